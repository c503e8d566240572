"""Damaged datasets: an error that says where, or exactly the rows that were written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.errors import InputError
from zoo.orca.data.image import DType, FeatureType, ParquetDataset, SchemaField
from zoo.orca.data.image.dataset_schema import encode
from zoo.orca.data.image.layout.dataset_folder import METADATA, open_dataset
from zoo.orca.data.image.reading.dataloader import read_as_dataloader
from zoo.orca.data.image.reading.records import read_records
from zoo.orca.data.image.reading.row_reader import iter_tables
from zoo.orca.data.image.reading.share import share_of

SCHEMA = {
    "data": SchemaField(FeatureType.SCALAR, DType.BYTES, ()),
    "x": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "name": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}
ROWS = [{"data": bytes([x]) * (5 + x), "x": x % 9, "name": f"name {x % 5}"} for x in range(40)]
Reader = Callable[[Path], list[dict[str, object]]]


def by_table(path: Path) -> list[dict[str, object]]:
    tables = iter_tables(share_of(open_dataset(path)))
    return [row for table in tables for row in table.to_pylist()]


def by_number(path: Path) -> list[dict[str, object]]:
    return list(read_records(path)[:])


def by_loader(path: Path) -> list[dict[str, object]]:
    loader = read_as_dataloader(str(path), collate_fn=lambda records: records, on_error="skip")
    return [record for batch in loader for record in batch]


READERS = [by_table, by_number, by_loader]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "whole"
    ParquetDataset.write(str(path), ROWS, SCHEMA, block_size=20)
    return path


@pytest.fixture
def dataset(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "dataset"))


def chunk_file(dataset: Path) -> Path:
    return dataset / "chunk=1" / "part-00000.parquet"


def outcomes(dataset: Path, file: Path, variants: list[bytes], reader: Reader) -> set[str]:
    """Read the dataset with each variant of a file; tell what came of it."""
    seen = set()
    for data in variants:
        file.write_bytes(data)
        try:
            seen.add("right" if reader(dataset) == ROWS else "wrong")
        except InputError:
            seen.add("error")
    return seen


def flipped(data: bytes, count: int) -> list[bytes]:
    rng = np.random.default_rng(5)
    variants = []
    for place, bit in zip(
        rng.integers(0, len(data), count), rng.integers(0, 8, count), strict=True
    ):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        variants.append(bytes(changed))
    return variants


@pytest.mark.parametrize("reader", READERS)
def test_an_undamaged_dataset(whole: Path, reader: Reader) -> None:
    assert reader(whole) == ROWS


@pytest.mark.parametrize("reader", READERS)
def test_flipped_bits_in_a_chunk_file(dataset: Path, reader: Reader) -> None:
    file = chunk_file(dataset)
    assert "wrong" not in outcomes(dataset, file, flipped(file.read_bytes(), 200), reader)


def test_every_flipped_bit_is_an_error_to_who_reads_it_all(dataset: Path) -> None:
    file = chunk_file(dataset)
    data = file.read_bytes()
    variants = flipped(data, 200)
    magic = [v for v in variants if v[:4] != data[:4]]  # no part of any row
    others = [v for v in variants if v[:4] == data[:4]]
    assert outcomes(dataset, file, others, by_table) == {"error"}
    assert outcomes(dataset, file, magic, by_table) <= {"right"}


@pytest.mark.parametrize("reader", READERS)
def test_flipped_bits_in_a_dataset_without_its_list(dataset: Path, reader: Reader) -> None:
    (dataset / "_zoo_files.json").unlink()
    file = chunk_file(dataset)
    data = file.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    # Without the list nothing vouches for the footer; the rest is still checked.
    variants = [body + data[-footer:] for body in flipped(data[:-footer], 100)]
    assert "wrong" not in outcomes(dataset, file, variants, reader)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("with_list", [True, False])
def test_a_chunk_file_that_was_cut_short(dataset: Path, reader: Reader, with_list: bool) -> None:
    if not with_list:
        (dataset / "_zoo_files.json").unlink()
    data = chunk_file(dataset).read_bytes()
    variants = [data[:size] for size in (0, 1, 4, 7, 8, 12, 100, len(data) // 2, len(data) - 1)]
    assert outcomes(dataset, chunk_file(dataset), variants, reader) == {"error"}


@pytest.mark.parametrize("name", ["_zoo_files.json", METADATA])
def test_flipped_bits_beside_the_chunks(dataset: Path, name: str) -> None:
    file = dataset / name
    variants = flipped(file.read_bytes(), 100)
    assert "wrong" not in outcomes(dataset, file, variants, by_number)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file(dataset: Path, reader: Reader) -> None:
    chunk_file(dataset).unlink()
    with pytest.raises(InputError, match="chunk=1"):
        reader(dataset)


def test_a_file_that_vanishes_while_it_is_read(dataset: Path) -> None:
    records = read_records(dataset)
    assert records[0] == ROWS[0]
    chunk_file(dataset).unlink()
    with pytest.raises(InputError, match="chunk=1"):
        records[20]


def test_a_file_that_is_cut_short_while_it_is_read(dataset: Path) -> None:
    records = read_records(dataset, columns=["data"])
    assert records[20] == {"data": ROWS[20]["data"]}
    chunk_file(dataset).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"chunk=1.*ends early"):
        records[39]


def test_files_that_changed_places(dataset: Path) -> None:
    first, second = dataset / "chunk=0" / "part-00000.parquet", chunk_file(dataset)
    shutil.copy(first, second)
    for reader in READERS:
        with pytest.raises(InputError, match="chunk=1"):
            reader(dataset)


def test_a_damaged_file_is_never_skipped(dataset: Path) -> None:
    file = chunk_file(dataset)
    place = file.read_bytes().index(ROWS[30]["data"])  # type: ignore[arg-type]
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"row 10 of 'data' has another checksum"):
        by_loader(dataset)


@pytest.mark.parametrize("reader", READERS)
def test_damage_in_the_old_layout_is_an_error_or_unseen(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "chunk=0").mkdir()
    file = tmp_path / "chunk=0" / "part-0.snappy.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=16)
    (tmp_path / METADATA).write_text(encode(SCHEMA))
    assert reader(tmp_path) == ROWS
    # Such files have no checksums. What cannot be read is still told by one kind of error.
    assert outcomes(tmp_path, file, flipped(file.read_bytes(), 150), reader) <= {
        "error",
        "right",
        "wrong",
    }
