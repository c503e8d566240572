import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from zoo.errors import ContractError, InputError
from zoo.orca.data.image import (
    DType,
    FeatureType,
    ImageDecoder,
    ParquetDataset,
    SchemaField,
    read_parquet,
)
from zoo.orca.data.image.reading.tf_reader import read_as_tf, read_as_tf_dataset

ROWS = 10
SCHEMA = {
    "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
    "boxes": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1, 5)),
    "pixels": SchemaField(FeatureType.NDARRAY, DType.UINT8, (2, 3)),
    "number": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "weight": SchemaField(FeatureType.SCALAR, DType.FLOAT32, ()),
    "name": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
    "raw": SchemaField(FeatureType.SCALAR, DType.BYTES, ()),
}


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def records(
    tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., bytes]
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pictures")
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(make_picture(8, 6, seed=row))
    return [
        {
            "image": str(folder / f"{row}.png"),
            "boxes": np.full((row % 3, 5), row, np.float32),
            "pixels": np.full((2, 3), row, np.uint8),
            "number": row,
            "weight": row / 4,
            "name": f"ü{row}",
            "raw": bytes([row, 0, 255]),
        }
        for row in range(ROWS)
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> str:
    """Ten records in chunks of four, four and two."""
    out = str(tmp_path_factory.mktemp("dataset") / "out")
    ParquetDataset.write(out, records, SCHEMA, block_size=4)
    return out


def one_column(folder: Path, field: SchemaField, values: list[Any]) -> str:
    out = str(folder / "one")
    ParquetDataset.write(out, [{"x": value} for value in values], {"x": field}, block_size=4)
    return out


def listed(dataset: Any) -> list[Any]:
    return list(dataset.as_numpy_iterator())


def numbers(dataset: Any) -> list[int]:
    return [int(record["number"]) for record in listed(dataset)]


def test_records_are_dicts_of_what_was_written(
    tf: ModuleType, path: str, records: list[dict[str, Any]]
) -> None:
    found = listed(read_parquet("tf_dataset", path))
    assert len(found) == ROWS
    for row, record in zip(records, found, strict=True):
        assert record.keys() == SCHEMA.keys()
        assert record["image"] == Path(row["image"]).read_bytes()
        np.testing.assert_array_equal(record["boxes"], row["boxes"])
        np.testing.assert_array_equal(record["pixels"], row["pixels"])
        assert record["number"] == row["number"]
        assert record["weight"] == row["weight"]
        assert record["name"].decode() == row["name"]
        assert record["raw"] == row["raw"]


def test_types_and_shapes_come_from_the_schema(tf: ModuleType, path: str) -> None:
    specs = read_as_tf_dataset(path).element_spec
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in specs.items()} == {
        "image": (tf.string, []),
        "boxes": (tf.float32, [None, 5]),
        "pixels": (tf.uint8, [2, 3]),
        "number": (tf.int32, []),
        "weight": (tf.float32, []),
        "name": (tf.string, []),
        "raw": (tf.string, []),
    }


def test_output_types_and_shapes_of_older_programs(tf: ModuleType, path: str) -> None:
    types = {"image": tf.string, "number": tf.float32, "pixels": tf.int64}
    shapes = {"number": tf.TensorShape([]), "pixels": [None, 3]}
    dataset = read_parquet(
        "tf_dataset", path, output_types=types, output_shapes=shapes, columns=list(types)
    )
    specs = dataset.element_spec
    assert {name: spec.dtype for name, spec in specs.items()} == types
    assert specs["pixels"].shape.as_list() == [None, 3]
    assert [record["number"] for record in listed(dataset)] == [float(n) for n in range(ROWS)]


def test_default_batch_size_gives_single_records(tf: ModuleType, path: str) -> None:
    for dataset in (read_parquet("tf_dataset", path), read_as_tf_dataset(path, batch_size=1)):
        assert dataset.element_spec["number"].shape.as_list() == []


@pytest.mark.parametrize("size", [3, 4, 10, 64])
def test_batches_hold_each_record_once(tf: ModuleType, path: str, size: int) -> None:
    dataset = read_as_tf_dataset(path, batch_size=size, columns=["number", "pixels"])
    batches = listed(dataset)
    assert [number for batch in batches for number in batch["number"]] == list(range(ROWS))
    assert [len(batch["pixels"]) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert len(dataset) == len(batches)


def test_batches_of_several_shapes_are_ragged(
    tf: ModuleType, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    batches = list(read_as_tf_dataset(path, batch_size=4, columns=["boxes", "number"]))
    assert isinstance(batches[0]["boxes"], tf.RaggedTensor)
    assert batches[0]["boxes"].row_lengths().numpy().tolist() == [0, 1, 2, 0]
    assert batches[0]["boxes"].to_tensor().shape == (4, 2, 5)
    assert batches[2]["number"].numpy().tolist() == [8, 9]
    assert not caplog.records


def test_transforms_run_on_each_record(tf: ModuleType, path: str) -> None:
    def transform(record: dict[str, Any]) -> Any:
        image = tf.io.decode_png(record["image"], channels=3)
        return tf.ensure_shape(image, (8, 6, 3)), record["number"] + 1

    dataset = read_parquet("tf_dataset", path, transforms=transform, batch_size=4)
    batches = listed(dataset)
    assert batches[0][0].shape == (4, 8, 6, 3)
    assert batches[2][1].tolist() == [9, 10]


@pytest.mark.parametrize("threads", [0, 2])
def test_decoders_make_arrays(
    tf: ModuleType, path: str, records: list[dict[str, Any]], threads: int
) -> None:
    decoder = ImageDecoder(size=(4, 4))
    dataset = read_as_tf_dataset(
        path,
        decoders={"image": decoder},
        columns=["image"],
        batch_size=4,
        config={"num_workers": threads},
    )
    assert dataset.element_spec["image"].shape.as_list() == [None, 3, 4, 4]
    found = np.concatenate([batch["image"] for batch in listed(dataset)])
    expected = [decoder(Path(record["image"]).read_bytes()) for record in records]
    np.testing.assert_array_equal(found, np.stack(expected))


def test_decoder_of_its_own_size(tf: ModuleType, path: str) -> None:
    dataset = read_as_tf_dataset(path, decoders={"image": ImageDecoder()}, columns=["image"])
    assert {record["image"].shape for record in listed(dataset)} == {(3, 8, 6)}


def test_decoder_none_keeps_the_bytes(tf: ModuleType, path: str) -> None:
    dataset = read_as_tf_dataset(path, decoders={"pixels": None}, columns=["pixels"])
    assert listed(dataset)[0]["pixels"].startswith(b"PK")


def test_decoder_without_a_type_needs_one(tf: ModuleType, path: str) -> None:
    decoders = {"image": lambda data: np.array([len(data)])}
    with pytest.raises(InputError, match="output_types"):
        read_as_tf_dataset(path, decoders=decoders)
    dataset = read_as_tf_dataset(
        path, decoders=decoders, output_types={"image": tf.int64}, columns=["image"]
    )
    assert listed(dataset)[0]["image"].shape == (1,)


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_ranks_get_each_record_once_as_the_torch_loader_does(
    tf: ModuleType, path: str, shards: int
) -> None:
    parts = []
    for rank in range(shards):
        config = {"num_shards": shards, "rank": rank}
        parts.append(numbers(read_parquet("tf_dataset", path, config=config)))
        loader = read_parquet("dataloader", path, config=config, columns=["number"])
        assert [int(batch["number"]) for batch in loader] == parts[-1]
    assert sorted(number for part in parts for number in part) == list(range(ROWS))


@pytest.mark.parametrize("shards", [2, 5, 12])
def test_ranks_balanced_by_rows(tf: ModuleType, path: str, shards: int) -> None:
    configs = [{"num_shards": shards, "rank": rank, "balance": "rows"} for rank in range(shards)]
    parts = [numbers(read_as_tf_dataset(path, config=config)) for config in configs]
    assert [number for part in parts for number in part] == list(range(ROWS))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    "config", [{"num_shards": 4, "rank": 0}, {"num_shards": 2, "rank": 2}, {"rank": 0}]
)
def test_shards_that_do_not_fit(tf: ModuleType, path: str, config: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        read_parquet("tf_dataset", path, config=config)
    with pytest.raises(ContractError):
        read_as_tf_dataset(path, config=config)


def test_shuffle_is_drawn_anew_by_seed(tf: ModuleType, path: str) -> None:
    def epochs(seed: int) -> list[list[int]]:
        dataset = read_as_tf_dataset(path, shuffle=True, seed=seed, shuffle_buffer=4)
        return [numbers(dataset) for _ in range(3)]

    first, again, other = epochs(1), epochs(1), epochs(2)
    assert first == again
    assert first != other
    assert first[0] != first[1]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in first)


def test_cardinality_is_known(tf: ModuleType, path: str) -> None:
    assert len(read_as_tf_dataset(path)) == ROWS
    assert len(read_as_tf_dataset(path, batch_size=4, shuffle=True)) == 3
    assert len(read_as_tf_dataset(path, config={"num_shards": 3, "rank": 2})) == 2


@pytest.mark.parametrize(
    "given",
    [
        {"output_types": {"none": "int32"}},
        {"output_types": {"image": "float32"}},
        {"output_types": {"number": "string"}},
        {"output_types": {"number": "no type"}},
        {"output_shapes": {"number": [3]}},
        {"output_shapes": {"pixels": "ab"}},
        {"decoders": {"number": bytes}},
        {"columns": ["none"]},
        {"batch_size": 0},
    ],
)
def test_arguments_that_do_not_fit(tf: ModuleType, path: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        read_as_tf_dataset(path, **given)


def test_number_that_does_not_fit_is_an_error(tf: ModuleType, tmp_path: Path) -> None:
    field = SchemaField(FeatureType.SCALAR, DType.INT32, ())
    out = one_column(tmp_path, field, [1, 2**40])
    with pytest.raises(tf.errors.OpError, match="values that fit int32 in column 'x'"):
        listed(read_as_tf_dataset(out))
    wide = read_as_tf_dataset(out, output_types={"x": tf.int64})
    assert [record["x"] for record in listed(wide)] == [1, 2**40]


def test_array_of_another_shape_is_an_error(tf: ModuleType, tmp_path: Path) -> None:
    field = SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (3,))
    out = one_column(tmp_path, field, [np.ones(3), np.ones(2)])
    with pytest.raises(tf.errors.OpError, match=r"shape \(3,\) in column 'x'"):
        listed(read_as_tf_dataset(out))
    any_length = read_as_tf_dataset(out, output_shapes={"x": [None]})
    assert [record["x"].shape for record in listed(any_length)] == [(3,), (2,)]


def test_missing_value_is_an_error(tf: ModuleType, tmp_path: Path) -> None:
    field = SchemaField(FeatureType.SCALAR, DType.STRING, ())
    out = one_column(tmp_path, field, ["a", None])
    with pytest.raises(tf.errors.OpError, match="1 missing ones"):
        listed(read_as_tf_dataset(out))


def test_arrays_of_texts(tf: ModuleType, tmp_path: Path) -> None:
    field = SchemaField(FeatureType.NDARRAY, DType.STRING, (2,))
    out = one_column(tmp_path, field, [np.array(["a", "ü"])])
    assert listed(read_as_tf_dataset(out))[0]["x"].tolist() == [b"a", "ü".encode()]


def test_missing_dataset(tf: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        read_as_tf_dataset(str(tmp_path / "gone"))


@pytest.mark.spark
def test_shards_hold_a_chunk_each(
    spark: SparkSession, tf: ModuleType, path: str, records: list[dict[str, Any]]
) -> None:
    dataset = read_as_tf(path)
    shards = dataset.xshards.collect()
    assert [len(shard["number"]) for shard in shards] == [4, 4, 2]
    elements = listed(dataset.map(lambda record: record).build(shards))
    assert [element["number"] for element in elements] == list(range(ROWS))
    assert elements[3]["image"] == Path(records[3]["image"]).read_bytes()
    assert [element["boxes"].shape for element in elements[:3]] == [(0, 5), (1, 5), (2, 5)]
    assert len(ParquetDataset.read_as_tf(path).xshards.collect()) == 3


def test_without_tensorflow_it_says_so(path: str) -> None:
    program = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        "from zoo.orca.data.image import read_parquet\n"
        "read_parquet('tf_dataset', sys.argv[1])\n"
    )
    command = [sys.executable, "-c", program, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "MissingExtraError" in done.stderr
    assert "zoo[tensorflow]" in done.stderr


def test_names_load_no_tensorflow() -> None:
    program = (
        "import sys\n"
        "import zoo.orca.data.image.reading.tf_reader, zoo.orca.data.image.formats.tfrecord\n"
        "from zoo.orca.data.tf.data import Dataset\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "settings", [{"shuffle_buffer": 0}, {"seed": -1}, {"config": {"num_workers": -1}}]
)
def test_settings_of_tf_out_of_range(tmp_path: Path, settings: dict[str, Any]) -> None:
    rows = [{"x": 1}]
    schema = {"x": SchemaField(FeatureType.SCALAR, DType.INT32, ())}
    ParquetDataset.write(str(tmp_path / "out"), rows, schema)
    with pytest.raises(InputError, match=r"shuffle_buffer|seed|num_workers"):
        read_as_tf_dataset(str(tmp_path / "out"), shuffle=True, **settings)
