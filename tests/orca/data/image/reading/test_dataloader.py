import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.image import (
    DType,
    FeatureType,
    ImageDecoder,
    ParquetDataset,
    SchemaField,
    read_parquet,
)
from zoo.orca.data.image.dataset_schema import encode

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


def test_other_keys_of_a_config_are_named(dataset: str, caplog: pytest.LogCaptureFixture) -> None:
    read_parquet("dataloader", dataset, config={"num_worker": 2, "rank": 0, "num_shards": 1})
    assert "mean nothing here: num_worker" in caplog.text


def test_known_keys_of_a_config_are_not_named(
    dataset: str, caplog: pytest.LogCaptureFixture
) -> None:
    read_parquet("dataloader", dataset, config={"num_workers": 0, "prefetch_factor": 2})
    assert not caplog.text


def test_images_in_floats_make_batches(tmp_path: Path) -> None:
    pixels = np.array([[0, 4095]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rows = [{"image": str(tmp_path / "a.png"), "x": n, "name": ""} for n in range(2)]
    ParquetDataset.write(str(tmp_path / "out"), rows, SCHEMA)
    decoder = ImageDecoder("F", (1, 2), scale=None)
    (batch,) = read_parquet(
        "dataloader", str(tmp_path / "out"), batch_size=2, decoders={"image": decoder}
    )
    assert batch["image"].tolist() == [[[[0, 4095]]]] * 2


def test_whole_numbers_without_a_sign_are_never_wrapped(tmp_path: Path) -> None:
    schema = {"x": SchemaField(FeatureType.SCALAR, DType.INT32, ())}
    folder = tmp_path / "out" / "chunk=0"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"x": pa.array([2**63 + 1], pa.uint64())}), folder / "a.parquet")
    (tmp_path / "out" / "_orca_metadata").write_text(encode(schema))
    with pytest.raises(InputError, match="stack into a batch"):
        list(read_parquet("dataloader", str(tmp_path / "out")))


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


@pytest.fixture
def damaged(tmp_path: Path, make_picture: Callable[..., bytes]) -> str:
    """Twelve records in chunks of four, where every fifth is half an image."""
    rows = []
    for number in range(12):
        file = tmp_path / f"{number}.png"
        data = make_picture(40, 40, seed=number)
        file.write_bytes(data[:900] if number % 5 == 0 else data)
        rows.append({"image": str(file), "x": number, "name": f"n{number}"})
    ParquetDataset.write(str(tmp_path / "out"), rows, SCHEMA, block_size=4)
    return str(tmp_path / "out")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_fail(damaged: str, num_workers: int) -> None:
    loader = read_parquet("dataloader", damaged, None, {"num_workers": num_workers}, 4)
    with pytest.raises(InputError, match=r"column 'image', row 0 of .*chunk=0"):
        list(loader)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_skipped_and_counted(damaged: str, num_workers: int) -> None:
    config = {"num_workers": num_workers}
    loader = read_parquet("dataloader", damaged, None, config, 2, on_error="skip")
    for _ in range(2):
        assert [batch["x"].tolist() for batch in loader] == [[1], [2, 3], [4], [6, 7], [8, 9], [11]]
        assert (loader.dataset.skipped, loader.dataset.quarantined) == (3, [])


def test_a_batch_of_bad_images_only_is_left_out(damaged: str) -> None:
    assert numbers(read_parquet("dataloader", damaged, on_error="skip")) == [
        x for x in range(12) if x % 5
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_listed(damaged: str, num_workers: int) -> None:
    config = {"num_workers": num_workers}
    loader = read_parquet("dataloader", damaged, None, config, 3, on_error="quarantine")
    assert len(numbers(loader)) == 9
    places = [(Path(bad.file).parent.name, bad.row) for bad in loader.dataset.quarantined]
    assert places == [("chunk=0", 0), ("chunk=1", 1), ("chunk=2", 2)]
    assert "end early" in loader.dataset.quarantined[0].reason


def test_left_out_records_are_logged(damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    list(read_parquet("dataloader", damaged, on_error="skip"))
    assert "3 of 12 records left out" in caplog.text


def test_records_that_transforms_refuse_count_as_bad(dataset: str) -> None:
    def transform(record: dict[str, Any]) -> int:
        if record["x"] == 7:
            raise ValueError("no sevens")
        return int(record["x"])

    loader = read_parquet("dataloader", dataset, transform, None, 23, on_error="quarantine")
    assert len(next(iter(loader))) == 22
    list(loader)
    assert "no sevens" in loader.dataset.quarantined[0].reason


def test_errors_of_the_program_are_never_skipped(dataset: str) -> None:
    loader = read_parquet("dataloader", dataset, lambda record: record["y"], on_error="skip")
    with pytest.raises(KeyError):
        list(loader)


def test_unknown_on_error(dataset: str) -> None:
    with pytest.raises(InputError, match="ignore"):
        read_parquet("dataloader", dataset, on_error="ignore")


def drawn(loader: Any, epoch: int | None = None) -> list[int]:
    if epoch is not None:
        loader.dataset.set_epoch(epoch)
    return numbers(loader)


def test_shuffled_order_is_the_same_for_any_workers(dataset: str) -> None:
    loaders = [
        read_parquet(
            "dataloader", dataset, None, {"num_workers": workers}, 4, columns=["x"], shuffle=True
        )
        for workers in (0, 2)
    ]
    first, second = ([drawn(loader) for _ in range(2)] for loader in loaders)
    assert first == second
    assert first[0] != first[1]
    assert [sorted(order) for order in first] == [list(range(23))] * 2


def test_an_epoch_can_be_chosen(dataset: str) -> None:
    loader = read_parquet("dataloader", dataset, columns=["x"], shuffle=True, seed=3)
    epochs = [drawn(loader) for _ in range(3)]
    again = read_parquet("dataloader", dataset, columns=["x"], shuffle=True, seed=3)
    assert [drawn(again, 2), drawn(again), drawn(again, 0)] == [epochs[2], ANY, epochs[0]]


def test_persistent_workers_know_the_epoch(dataset: str) -> None:
    settings = {"columns": ["x"], "shuffle": True}
    config = {"num_workers": 1, "persistent_workers": True}
    loader = read_parquet("dataloader", dataset, None, config, 4, **settings)
    plain = read_parquet("dataloader", dataset, None, None, 4, **settings)
    assert [drawn(loader) for _ in range(3)] == [drawn(plain) for _ in range(3)]


@pytest.mark.slow
def test_spawned_workers(dataset: str) -> None:
    config = {"num_workers": 2, "multiprocessing_context": "spawn"}
    decoders = {"image": ImageDecoder(size=(4, 4))}
    assert numbers(read_parquet("dataloader", dataset, None, config, 5, decoders=decoders)) == list(
        range(23)
    )


def test_a_shuffled_loader_over_ranks_takes_each_record_once(dataset: str) -> None:
    shares = [
        numbers(
            read_parquet(
                "dataloader",
                dataset,
                config={"num_shards": 30, "rank": rank, "balance": "rows"},
                columns=["x"],
                shuffle=True,
            )
        )
        for rank in range(30)
    ]
    assert sorted(x for share in shares for x in share) == list(range(23))


def test_last_batch_can_be_dropped(dataset: str) -> None:
    loader = read_parquet("dataloader", dataset, None, None, 5, columns=["x"], drop_last=True)
    assert [len(batch["x"]) for batch in loader] == [5] * 4
    assert (len(loader), loader.batch_size, loader.drop_last) == (4, 5, True)


def test_collate_fn_sees_records(dataset: str) -> None:
    def collate(records: list[dict[str, Any]]) -> list[int]:
        return [record["x"] for record in records]

    loader = read_parquet("dataloader", dataset, None, None, 10, collate_fn=collate)
    assert [len(batch) for batch in loader] == [10, 10, 3]


def test_images_of_one_size_are_what_their_decoder_makes(dataset: str) -> None:
    for decoder in (
        ImageDecoder(size=(5, 6)),
        ImageDecoder(mode="L", size=(5, 6), layout="HWC"),
        ImageDecoder(size=(5, 6), scale=None),
    ):
        loader = read_parquet("dataloader", dataset, None, None, 23, decoders={"image": decoder})
        batch = next(iter(loader))["image"]
        expected = np.stack([record["image"] for record in loader.dataset[:]])
        np.testing.assert_array_equal(batch.numpy(), expected, strict=True)


class _Lengths:
    """A transform that does its own decoding."""

    wants_bytes = ("image",)

    def __call__(self, record: dict[str, Any]) -> int:
        return len(record["image"])


def test_wants_bytes_keeps_columns_undecoded(dataset: str) -> None:
    loader = read_parquet("dataloader", dataset, _Lengths())
    sizes = [(Path(dataset).parent / f"{n}.png").stat().st_size for n in range(23)]
    assert [int(length) for length in loader] == sizes


class _Key:
    """A transform that gives back what it may draw from."""

    def __call__(self, record: dict[str, Any], key: Any = None) -> str:
        return f"{record['x']}: {key}"


@pytest.mark.parametrize("shuffle", [False, True])
def test_transforms_draw_by_seed_epoch_and_place(dataset: str, shuffle: bool) -> None:
    loaders = [
        read_parquet("dataloader", dataset, _Key(), config, columns=["x"], shuffle=shuffle)
        for config in (None, {"num_workers": 1}, {"num_shards": 1, "rank": 0, "balance": "rows"})
    ]
    first, second, third = ([key for batch in loader for key in batch] for loader in loaders)
    assert first == second == third
    assert len(set(first)) == 23
    assert not set(first) & {key for batch in loaders[0] for key in batch}  # a second epoch


def test_torchs_own_loader_reads_the_dataset(dataset: str) -> None:
    ours = read_parquet("dataloader", dataset, columns=["x", "name"])
    theirs = torch.utils.data.DataLoader(ours.dataset, batch_size=10)
    assert numbers(theirs) == list(range(23))
    kept = torch.utils.data.DataLoader(ours.dataset, 10, collate_fn=ours.collate_fn)
    assert numbers(kept) == list(range(23))


def test_settings_for_workers_do_no_harm_without(dataset: str) -> None:
    config = {"num_workers": 0, "prefetch_factor": 4, "persistent_workers": True}
    assert len(list(read_parquet("dataloader", dataset, config=config))) == 23


@pytest.mark.parametrize("num_workers", [-1, 1.5, True])
def test_num_workers_out_of_range(dataset: str, num_workers: object) -> None:
    with pytest.raises(InputError, match="num_workers"):
        read_parquet("dataloader", dataset, config={"num_workers": num_workers})


def test_columns_that_are_missing_values(tmp_path: Path) -> None:
    schema = {"x": SCHEMA["x"]}
    ParquetDataset.write(str(tmp_path / "out"), [{"x": 1}, {"x": None}], schema)
    with pytest.raises(InputError, match="stack into a batch"):
        list(read_parquet("dataloader", str(tmp_path / "out"), batch_size=2))


def test_loader_of_another_file_system(dataset: str) -> None:
    far = "local://" + dataset
    for workers in (0, 1):
        config = {"num_workers": workers}
        loader = read_parquet("dataloader", far, None, config, 2, columns=["x"], shuffle=True)
        assert sorted(numbers(loader)) == list(range(23))


def test_a_dataset_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "chunk=0").mkdir()
    table = pa.table({"x": pa.array(range(50), pa.int32()), "name": ["a", "b"] * 25})
    pq.write_table(table, tmp_path / "chunk=0" / "part-0.snappy.parquet", row_group_size=7)
    (tmp_path / "_orca_metadata").write_text(encode({n: SCHEMA[n] for n in ("x", "name")}))
    loader = read_parquet("dataloader", str(tmp_path), None, None, 8, shuffle=True)
    batches = list(loader)
    assert sorted(x for batch in batches for x in batch["x"].tolist()) == list(range(50))
    assert batches[0]["x"].dtype == torch.int64


def test_records_travel_to_spawned_workers(dataset: str) -> None:
    records = read_parquet("dataloader", dataset).dataset
    assert records[22]["x"] == 22
    again = pickle.loads(pickle.dumps(records))
    assert (len(again), again[22]["x"]) == (23, 22)
    with pytest.raises(IndexError):
        records[23]


def test_read_as_torch_is_a_loader(dataset: str) -> None:
    assert numbers(ParquetDataset.read_as_torch(dataset)) == list(range(23))


def test_workers_make_the_same_batches(dataset: str) -> None:
    decoders = {"image": ImageDecoder(size=(5, 6))}
    plain, workers = (
        [
            batch["image"]
            for batch in read_parquet("dataloader", dataset, None, config, 10, decoders=decoders)
        ]
        for config in (None, {"num_workers": 2})
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, workers, strict=True))
    assert workers[0].dtype == torch.float32
