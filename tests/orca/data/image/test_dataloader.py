import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.errors import InputError
from zoo.orca.data.image import (
    DType,
    FeatureType,
    ImageDecoder,
    ParquetDataset,
    SchemaField,
    read_parquet,
)

SCHEMA = {
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "x": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "name": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}


@pytest.fixture
def dataset(tmp_path: Path, make_picture: Callable[..., bytes]) -> str:
    """Eleven chunks of two records and one of one, so that names and numbers sort differently."""
    rows = []
    for number in range(23):
        file = tmp_path / f"{number}.png"
        file.write_bytes(make_picture(4 + number % 2, 3, seed=number))
        rows.append({"image": str(file), "x": number, "name": f"n{number}"})
    ParquetDataset.write(str(tmp_path / "out"), rows, SCHEMA, block_size=2)
    return str(tmp_path / "out")


def numbers(loader: Any) -> list[int]:
    return [int(x) for batch in loader for x in batch["x"]]


def test_records_come_in_order(dataset: str) -> None:
    loader = read_parquet("dataloader", dataset)
    assert numbers(loader) == list(range(23))
    assert len(loader) == 23
    assert numbers(loader) == list(range(23))  # a second epoch


def test_batch_of_the_defaults(dataset: str) -> None:
    batch = next(iter(read_parquet("dataloader", dataset)))
    assert list(batch) == list(SCHEMA)
    assert (batch["image"].shape, batch["image"].dtype) == ((1, 3, 4, 3), torch.float32)
    assert (batch["x"].dtype, batch["name"]) == (torch.int64, ["n0"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # few cores
@pytest.mark.parametrize("num_workers", [0, 2, 3])
def test_each_record_once_whatever_the_workers(dataset: str, num_workers: int) -> None:
    decoders = {"image": ImageDecoder(size=(4, 4))}
    loader = read_parquet(
        "dataloader", dataset, None, {"num_workers": num_workers}, 5, decoders=decoders
    )
    assert numbers(loader) == list(range(23))
    assert [len(batch["x"]) for batch in loader] == [5, 5, 5, 5, 3]


def test_shards_part_the_chunks(dataset: str) -> None:
    shares = [
        numbers(read_parquet("dataloader", dataset, config={"num_shards": 5, "rank": rank}))
        for rank in range(5)
    ]
    assert shares[1] == [2, 3, 12, 13, 22]
    assert Counter(x for share in shares for x in share) == Counter(range(23))


@pytest.mark.parametrize(
    "config",
    [
        {"num_shards": 13, "rank": 0},
        {"num_shards": 0, "rank": 0},
        {"num_shards": 2, "rank": 2},
        {"num_shards": 2, "rank": -1},
        {"num_shards": 2},
        {"rank": 0},
    ],
)
def test_shards_that_cannot_be(dataset: str, config: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match=r"num_shards|rank"):
        read_parquet("dataloader", dataset, config=config)


def test_other_keys_of_a_config_are_left_alone(dataset: str) -> None:
    assert len(read_parquet("dataloader", dataset, config={"lr": 0.1})) == 23


def test_transforms_see_records(dataset: str) -> None:
    def transform(record: dict[str, Any]) -> tuple[float, int]:
        return float(record["image"].max()), record["x"]

    loader = read_parquet("dataloader", dataset, transforms=transform, batch_size=23)
    brightest, x = next(iter(loader))
    assert x.tolist() == list(range(23))
    assert 0.5 < float(brightest.min()) <= float(brightest.max()) <= 1


def test_bytes_can_be_kept(dataset: str) -> None:
    loader = read_parquet("dataloader", dataset, decoders={"image": None})
    assert next(iter(loader))["image"][0] == (Path(dataset).parent / "0.png").read_bytes()


def test_images_of_different_sizes_in_a_batch(dataset: str) -> None:
    with pytest.raises(InputError, match=r"ImageDecoder\(size="):
        list(read_parquet("dataloader", dataset, batch_size=2))


def test_decoder_for_no_column(dataset: str) -> None:
    with pytest.raises(InputError, match="picture"):
        read_parquet("dataloader", dataset, decoders={"picture": ImageDecoder()})


def test_corrupt_image_is_placed(tmp_path: Path, make_picture: Callable[..., bytes]) -> None:
    (tmp_path / "bad.png").write_bytes(make_picture(40, 40)[:900])
    rows = [{"image": f"{tmp_path}/bad.png", "x": 0, "name": ""}]
    ParquetDataset.write(str(tmp_path / "out"), rows, SCHEMA)
    with pytest.raises(InputError, match=r"column 'image', row 0 .*part-00000\.parquet"):
        list(read_parquet("dataloader", str(tmp_path / "out")))


def test_damaged_chunk_file_is_named(dataset: str) -> None:
    (Path(dataset) / "chunk=3" / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="chunk=3"):
        read_parquet("dataloader", dataset)


def test_empty_chunk_folder_is_named(dataset: str) -> None:
    (Path(dataset) / "chunk=3" / "part-00000.parquet").unlink()
    with pytest.raises(InputError, match="chunk=3"):
        read_parquet("dataloader", dataset)


def test_records_travel_to_spawned_workers(dataset: str) -> None:
    records = read_parquet("dataloader", dataset).dataset
    assert records[22]["x"] == 22
    again = pickle.loads(pickle.dumps(records))
    assert (len(again), again[22]["x"]) == (23, 22)
    with pytest.raises(IndexError):
        records[23]


def test_read_as_torch_is_a_loader(dataset: str) -> None:
    assert numbers(ParquetDataset.read_as_torch(dataset)) == list(range(23))
