import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.layout.chunk_index import (
    INDEX_KEY,
    NULL,
    ChunkIndex,
    ColumnIndex,
    RowGroupSpan,
    index_values,
)
from zoo.orca.data.image.writing.chunk_file import write_chunk
from zoo.orca.data.image.writing.record_columns import ROW_GROUP_ROWS

SCHEMA = {
    "first": SchemaField(FeatureType.SCALAR, DType.BYTES, ()),
    "number": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    "array": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1,)),
    "text": SchemaField(FeatureType.SCALAR, DType.STRING, ()),
}


def records(count: int) -> list[dict[str, Any]]:
    """Values of many lengths, some of them missing or empty."""
    rng = np.random.default_rng(0)
    return [
        {
            "first": None if n % 7 == 3 else rng.bytes(int(rng.integers(0, 3000))),
            "number": n,
            "array": np.arange(n % 5, dtype=np.float32),
            "text": f"row {n}",
        }
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def chunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chunk file of three row groups."""
    folder = tmp_path_factory.mktemp("data") / "chunk=0"
    write_chunk(folder, SCHEMA, records(2 * ROW_GROUP_ROWS + 100))
    return folder / "part-00000.parquet"


def index_of(file: Path) -> ChunkIndex:
    return ChunkIndex.decode(pq.read_metadata(file).metadata[INDEX_KEY])


def test_value_lies_where_the_index_says(chunk: Path) -> None:
    raw, metadata, index = chunk.read_bytes(), pq.read_metadata(chunk), index_of(chunk)
    table = pq.read_table(chunk, partitioning=None)
    for name, at in (("first", 0), ("array", 2)):
        values = table[name].to_pylist()
        lengths, crcs = index.columns[name].lengths, index.columns[name].crcs
        for group in range(3):
            place = metadata.row_group(group).column(at)
            end = place.data_page_offset + place.total_compressed_size
            rows = index.rows_of(group)
            for row, offset in zip(
                range(rows.start, rows.stop), index.offsets(name, group, end), strict=True
            ):
                if values[row] is None:
                    assert (offset, lengths[row]) == (-1, NULL)
                    continue
                value = raw[offset : offset + int(lengths[row])]
                assert value == values[row]
                assert int.from_bytes(raw[offset - 4 : offset], "little") == lengths[row]
                assert zlib.crc32(value) == crcs[row]


def test_row_groups_are_summed_up(chunk: Path) -> None:
    raw, metadata, index = chunk.read_bytes(), pq.read_metadata(chunk), index_of(chunk)
    assert [span.rows for span in index.row_groups] == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 100]
    assert index.rows == metadata.num_rows
    assert index.row_groups[0].start == 4
    for span in index.row_groups:
        assert zlib.crc32(raw[span.start : span.end]) == span.crc
    starts = [span.start for span in index.row_groups[1:]]
    assert starts == [span.end for span in index.row_groups[:-1]]


def test_columns_of_bytes_are_one_plain_page(chunk: Path) -> None:
    group = pq.read_metadata(chunk).row_group(0)
    for at in (0, 2):
        assert group.column(at).compression == "UNCOMPRESSED"
        assert "PLAIN" in group.column(at).encodings
        assert not group.column(at).has_dictionary_page
    assert group.column(3).compression == "SNAPPY"


def test_pages_have_checksums(chunk: Path) -> None:
    raw = bytearray(chunk.read_bytes())
    raw[index_of(chunk).row_groups[0].start + 3000] ^= 1
    with (
        pq.ParquetFile(io.BytesIO(raw), page_checksum_verification=True) as file,
        pytest.raises(OSError, match="CRC"),
    ):
        file.read_row_group(0, columns=["first"])


def test_text_comes_back(chunk: Path) -> None:
    index = index_of(chunk)
    again = ChunkIndex.decode(index.encode())
    assert again.encode() == index.encode()
    assert again.row_groups == index.row_groups
    np.testing.assert_array_equal(
        again.columns["first"].lengths, index.columns["first"].lengths, strict=True
    )


def test_index_without_rows() -> None:
    index = ChunkIndex((), {"x": ColumnIndex.join([])})
    assert (index.rows, ChunkIndex.decode(index.encode()).rows) == (0, 0)


def test_large_lengths_and_checksums_are_kept() -> None:
    column = ColumnIndex(np.array([2**31 + 5], np.uint32), np.array([2**32 - 1], np.uint32))
    index = ChunkIndex((RowGroupSpan(1, 4, 2**40, 2**32 - 1),), {"x": column})
    again = ChunkIndex.decode(index.encode())
    assert again.row_groups[0].end == 2**40
    assert again.columns["x"].crcs[0] == 2**32 - 1
    assert again.offsets("x", 0, 2**40)[0] == 2**40 - 2**31 - 5


def test_missing_values_have_no_bytes() -> None:
    column = index_values([b"ab", None, b""])
    assert column.lengths.tolist() == [2, NULL, 0]
    assert column.crcs.tolist() == [zlib.crc32(b"ab"), 0, 0]


def altered(**change: Any) -> str:
    column = index_values([b"ab"])
    index = ChunkIndex((RowGroupSpan(1, 4, 10, 0),), {"x": column})
    return json.dumps({**json.loads(index.encode()), **change})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        '{"version": 1}',
        altered(version=2),
        altered(columns={"x": {"lengths": "AA==", "crcs": "AA=="}}),
        altered(columns={"x": {"lengths": "", "crcs": ""}}),
        altered(columns={"x": {"lengths": "?", "crcs": ""}}),
        altered(row_groups=[{"rows": 1, "start": 9, "end": 4, "crc": 0}]),
        altered(row_groups=[{"rows": "one"}]),
        altered(row_groups=5),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="the index of a chunk file"):
        ChunkIndex.decode(text)
