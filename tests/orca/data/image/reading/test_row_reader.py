from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.errors import InputError
from zoo.orca.data.image import DType, FeatureType, ParquetDataset, SchemaField
from zoo.orca.data.image.dataset_schema import encode
from zoo.orca.data.image.layout.dataset_folder import METADATA, open_dataset
from zoo.orca.data.image.reading.row_reader import iter_tables
from zoo.orca.data.image.reading.share import Share, share_of
from zoo.orca.data.image.writing.chunk_file import write_chunk

SCHEMA = {
    "data": SchemaField(FeatureType.SCALAR, DType.BYTES, ()),
    "x": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "name": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}


def record(x: int) -> dict[str, object]:
    return {"data": bytes([x % 251]) * x, "x": x, "name": f"n{x % 3}"}


def written(path: object, rows: int = 2500, block_size: int = 2000) -> Share:
    ParquetDataset.write(str(path), map(record, range(rows)), SCHEMA, block_size=block_size)
    return share_of(open_dataset(str(path)))


def test_a_table_for_each_row_group_in_order(tmp_path: Path) -> None:
    tables = list(iter_tables(written(tmp_path / "out")))
    assert len(tables) == 3  # two chunks, and a row group has 1,024 rows
    assert pa.concat_tables(tables).to_pylist() == [record(x) for x in range(2500)]


def test_columns_come_as_they_are_named(tmp_path: Path) -> None:
    table = next(iter_tables(written(tmp_path / "out", 5), ["name", "x"]))
    assert table.column_names == ["name", "x"]


@pytest.mark.parametrize("columns", [["y"], [], ["x", "x"]])
def test_columns_that_cannot_be(tmp_path: Path, columns: list[str]) -> None:
    with pytest.raises(InputError, match="data"):
        iter_tables(written(tmp_path / "out", 5), columns)


def test_a_column_whose_name_begins_another(tmp_path: Path) -> None:
    scalar = SCHEMA["x"]
    schema = {"a": scalar, "a.b": scalar}
    ParquetDataset.write(str(tmp_path / "out"), [{"a": 1, "a.b": 2}], schema)
    share = share_of(open_dataset(tmp_path / "out"))
    assert [t.to_pylist() for t in iter_tables(share, ["a"])] == [[{"a": 1}]]
    assert [t.to_pylist() for t in iter_tables(share, ["a.b"])] == [[{"a.b": 2}]]


def test_another_file_system(tmp_path: Path) -> None:
    tables = iter_tables(written(f"local://{tmp_path}/out", 30, 20))
    assert pa.concat_tables(tables).to_pylist() == [record(x) for x in range(30)]


def test_a_dataset_in_memory() -> None:
    tables = iter_tables(written("memory://row_groups/out", 30, 20))
    assert [x for table in tables for x in table["x"].to_pylist()] == list(range(30))


def test_old_layout_with_several_files_snappy_and_dictionaries(tmp_path: Path) -> None:
    rows = [record(x) for x in range(60)]
    for number in range(6):
        folder = tmp_path / f"chunk={number // 2}"
        folder.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows[10 * number : 10 * number + 10])
        file = folder / f"part-{number % 2:05d}-0a.snappy.parquet"
        pq.write_table(table, file, compression="snappy", row_group_size=3)
    (tmp_path / "chunk=0" / "_SUCCESS").touch()
    (tmp_path / METADATA).write_text(encode(SCHEMA))
    tables = list(iter_tables(share_of(open_dataset(tmp_path))))
    assert pa.concat_tables(tables).to_pylist() == rows
    assert [table.num_rows for table in tables[:5]] == [3, 3, 3, 1, 3]


def test_dictionary_types_of_other_writers_are_undone(tmp_path: Path) -> None:
    (tmp_path / "chunk=0").mkdir()
    name = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"name": name}), tmp_path / "chunk=0" / "part-0.parquet")
    (tmp_path / METADATA).write_text(encode({"name": SCHEMA["name"]}))
    table = next(iter_tables(share_of(open_dataset(tmp_path))))
    assert (table["name"].type, table["name"].to_pylist()) == (pa.string(), ["a", "b", "a"])


def test_a_column_that_a_file_lacks(tmp_path: Path) -> None:
    (tmp_path / "chunk=0").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "chunk=0" / "part-0.parquet")
    (tmp_path / METADATA).write_text(encode(SCHEMA))
    with pytest.raises(InputError, match=r"without \['data', 'name'\]"):
        share_of(open_dataset(tmp_path))


def test_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "chunk=0").mkdir()
    write_chunk(tmp_path / "chunk=0", SCHEMA, [])
    (tmp_path / METADATA).write_text(encode(SCHEMA))
    assert list(iter_tables(share_of(open_dataset(tmp_path)))) == []


def test_texts_that_are_no_unicode_are_damage(tmp_path: Path) -> None:
    (tmp_path / "chunk=0").mkdir()
    column = pa.array([b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"name": column}), tmp_path / "chunk=0" / "part-0.parquet")
    (tmp_path / METADATA).write_text(encode({"name": SCHEMA["name"]}))
    with pytest.raises(InputError, match="row group 0"):
        list(iter_tables(share_of(open_dataset(tmp_path))))


def test_a_changed_bit_is_found_by_the_checksum_of_its_row_group(tmp_path: Path) -> None:
    share = written(tmp_path / "out", 5)
    file = tmp_path / "out" / "chunk=0" / "part-00000.parquet"
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"part-00000\.parquet, row group 0 .*checksum"):
        list(iter_tables(share))
