import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.errors import InputError
from zoo.orca.data.image import DType, FeatureType, ImageDecoder, ParquetDataset, SchemaField
from zoo.orca.data.image.dataset_schema import encode
from zoo.orca.data.image.layout.dataset_folder import METADATA
from zoo.orca.data.image.reading.records import Records, read_records
from zoo.orca.data.image.reading.row_reader import ByteCache

SCHEMA = {
    "data": SchemaField(FeatureType.SCALAR, DType.BYTES, ()),
    "array": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1,)),
    "x": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "y": SchemaField(FeatureType.SCALAR, DType.FLOAT32, ()),
    "name": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}
ROWS = 3000


def record(x: int) -> dict[str, Any]:
    return {
        "data": None if x % 7 == 3 else bytes([x % 251]) * (x % 40),
        "array": np.arange(x % 4, dtype=np.float32),
        "x": x,
        "y": x / 4,
        "name": None if x % 11 == 5 else f"n{x % 3}",
    }


def same(found: dict[str, Any], x: int) -> bool:
    expected = record(x)
    arrays = np.array_equal(found.pop("array"), expected.pop("array"))
    return arrays and found == expected


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "out"
    ParquetDataset.write(str(folder), map(record, range(ROWS)), SCHEMA, block_size=1700)
    return folder


def test_single_records(path: Path) -> None:
    records = read_records(path)
    assert len(records) == ROWS
    for x in (0, 3, 5, 1023, 1024, 1699, 1700, ROWS - 1):
        assert same(records[x], x)


def test_many_records_in_any_order(path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, ROWS, 500)
    found = read_records(path).__getitems__(rows)
    assert all(same(each, x) for each, x in zip(found, rows.tolist(), strict=True))


def test_numbers_are_pythons(path: Path) -> None:
    found = read_records(path, columns=["x", "y"])[9]
    assert {name: type(value) for name, value in found.items()} == {"x": int, "y": float}


def test_a_slice_and_the_end(path: Path) -> None:
    records = read_records(path, columns=["x"])
    assert [each["x"] for each in records[1698:1702]] == [1698, 1699, 1700, 1701]
    assert records[-1] == {"x": ROWS - 1}


@pytest.mark.parametrize("index", [ROWS, -ROWS - 1])
def test_a_record_that_is_not_there(path: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"record {index} of {ROWS}"):
        read_records(path)[index]


def test_an_index_is_a_whole_number(path: Path) -> None:
    with pytest.raises(TypeError):
        read_records(path)[1.5]  # type: ignore[call-overload]


def test_columns_are_pruned(path: Path) -> None:
    assert read_records(path, columns=["name", "x"])[3000 // 2] == {"name": "n0", "x": 1500}


def test_a_column_that_nobody_knows(path: Path) -> None:
    with pytest.raises(InputError, match="title"):
        read_records(path, columns=["title"])


def test_other_decoders_and_a_transform(path: Path) -> None:
    records = read_records(
        path, decoders={"array": len, "data": lambda data: 0}, transform=lambda each: each["data"]
    )
    assert records[4] == 0


def test_a_decoder_that_fails_names_the_place(path: Path) -> None:
    def refuse(data: bytes) -> None:
        raise ValueError("no good")

    with pytest.raises(InputError, match=r"no good \(column 'data', row 2 of .*chunk=1"):
        read_records(path, decoders={"data": refuse})[1702]


def test_a_share_is_a_sequence_too(path: Path) -> None:
    config = {"num_shards": 7, "rank": 4, "balance": "rows"}
    records = read_records(path, columns=["x"], config=config)
    first = 4 * ROWS // 7
    assert [records[0]["x"], records[-1]["x"]] == [first, 5 * ROWS // 7 - 1]
    place = records.place_of(0)
    assert (Path(place.file).parent.name, place.row) == ("chunk=1", first - 1700)


def test_another_file_system(path: Path) -> None:
    records = read_records(f"local://{path}")
    assert all(same(records[x], x) for x in (0, 1699, 2999))


def test_records_travel_without_what_they_read(path: Path) -> None:
    records = read_records(path)
    bare = len(pickle.dumps(records))
    records[:2000]
    again = pickle.loads(pickle.dumps(records))
    assert len(pickle.dumps(records)) == bare
    assert same(again[2999], 2999)


def test_old_layout(tmp_path: Path) -> None:
    rows = [{"x": x, "data": bytes([x]) * x, "name": f"n{x % 2}"} for x in range(40)]
    for number in range(4):
        folder = tmp_path / f"chunk={number // 2}"
        folder.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows[10 * number : 10 * number + 10])
        pq.write_table(table, folder / f"part-{number}.snappy.parquet", row_group_size=4)
    (tmp_path / METADATA).write_text(encode({name: SCHEMA[name] for name in rows[0]}))
    records = read_records(tmp_path)
    order = np.random.default_rng(0).permutation(40)
    assert records.__getitems__(order) == [rows[x] for x in order]


def test_images_are_decoded_by_default(tmp_path: Path, classes: Path) -> None:
    file = next(iter(sorted(classes.glob("*/*.png"))))
    schema = {"image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ())}
    ParquetDataset.write(str(tmp_path / "out"), [{"image": str(file)}], schema)
    records: Records = read_records(tmp_path / "out")
    np.testing.assert_array_equal(records[0]["image"], ImageDecoder()(file.read_bytes()))


def test_memory_for_what_was_read_is_bounded() -> None:
    made: list[int] = []
    cache: ByteCache[bytes] = ByteCache(10, len)
    for key in (1, 2, 1, 3, 2, 1):
        cache.get(key, lambda size=4 * key: made.append(size) or bytes(size))
    # 1 and 2 do not fit together with another, and the one in use is kept whatever its size.
    assert made == [4, 8, 4, 12, 8, 4]
    assert len(cache) == 1
