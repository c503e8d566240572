import contextlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.formats.tfrecord_file import (
    crc32c,
    decode_example,
    encode_example,
    read_records,
    write_records,
)


def bit_by_bit(data: bytes) -> int:
    """The definition of the checksum, as slow as it is plain."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_checksum_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0


@pytest.mark.parametrize("size", [1, 3, 4, 63, 64, 65, 127, 191, 1000, 70_001])
def test_checksum_is_that_of_the_definition(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == bit_by_bit(data)


@pytest.mark.parametrize("records", [[], [b""], [b"a", b"", bytes(100_000)]])
def test_records_come_back(tmp_path: Path, records: list[bytes]) -> None:
    assert write_records(tmp_path / "file", records) == len(records)
    assert list(read_records(str(tmp_path / "file"))) == records


def test_records_on_another_file_system() -> None:
    assert write_records(memory("file"), [b"a", b"bc"]) == 2
    assert list(read_records("memory://tfrecord/file")) == [b"a", b"bc"]


def memory(name: str) -> Any:
    from zoo.orca.data.storage import locate

    folder = locate("memory://tfrecord")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 20])
def test_file_that_ends_early(tmp_path: Path, cut: int) -> None:
    write_records(tmp_path / "file", [b"first", b"second"])
    data = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(data[:-cut])
    records = read_records(tmp_path / "file")
    assert next(records) == b"first"
    with pytest.raises(InputError, match="record 1 ends early"):
        next(records)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    write_records(tmp_path / "file", [b"first"])
    data = (tmp_path / "file").read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "file").write_bytes(flipped)
        with pytest.raises(InputError, match="fails its checksum"):
            list(read_records(tmp_path / "file"))


def test_length_that_lies_takes_no_memory(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**62)
    crc = bit_by_bit(length)
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    (tmp_path / "file").write_bytes(length + struct.pack("<I", masked) + bytes(100))
    with pytest.raises(InputError, match="record 0"):
        list(read_records(tmp_path / "file"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        list(read_records(tmp_path / "gone"))


def test_example_comes_back() -> None:
    example = encode_example(
        {
            "b": [b"\xff", b""],
            "ü": "text",
            "i": [0, 127, 128, -1, 2**63 - 1],
            "f": [0.5, -2],
            "n": 7,
        }
    )
    assert decode_example(example) == {
        "b": [b"\xff", b""],
        "ü": [b"text"],
        "i": [0, 127, 128, -1, 2**63 - 1],
        "f": [0.5, -2.0],
        "n": [7],
    }


def test_same_features_give_the_same_bytes() -> None:
    assert encode_example({"a": 1, "b": 2}) == encode_example({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [None, [b"a", 1], [[1]], object()])
def test_value_of_another_kind(value: Any) -> None:
    with pytest.raises((InputError, TypeError)):
        encode_example({"a": value})


def test_damaged_examples_are_errors_or_other_examples() -> None:
    example = encode_example({"key": [1, 2], "other": b"bytes", "f": 1.5})
    generator = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(example)
        damaged[generator.integers(len(damaged))] = generator.integers(256)
        with contextlib.suppress(InputError):
            decode_example(bytes(damaged[: generator.integers(len(damaged)) + 1]))
    with pytest.raises(InputError, match="Example"):
        decode_example(os.urandom(4) + b"\xff" * 20)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**64 + 5])
def test_whole_numbers_of_more_than_64_bits(value: int) -> None:
    with pytest.raises(InputError, match="64 bits"):
        encode_example({"x": value})
