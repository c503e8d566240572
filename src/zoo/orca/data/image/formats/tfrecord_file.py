"""TFRecord files of `tf.train.Example` messages, without TensorFlow.

A file is a row of records: the length (8 bytes, little-endian), a checksum of the length, the
bytes, a checksum of the bytes. The checksums are CRC-32C, masked. An `Example` is a protobuf
message that maps names to lists of bytes, of floats or of whole numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.orca.data.storage import Location, locate

__all__ = ["Feature", "crc32c", "decode_example", "encode_example", "read_records", "write_records"]

Feature = bytes | str | int | float | Sequence[bytes] | Sequence[str] | Sequence[int | float]
"""A value of an example, or a list of values of one kind."""

_Words = npt.NDArray[np.uint32]
_POLYNOMIAL = 0x82F63B78
_BLOCK, _AT_ONCE = 64, 1024
_MASK_DELTA = 0xA282EAD8
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


# The checksum


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes.

    A checksum is linear, so that of many bytes is put together from those of blocks, all of which
    NumPy computes at once: hundreds of megabytes a second, where a loop over bytes makes ten.
    """
    if len(data) < 4:
        return _crc_of_few(data)
    blocks = -(-len(data) // _BLOCK)
    padded = np.zeros(blocks * _BLOCK, np.uint8)
    body = padded[padded.size - len(data) :]
    body[:] = np.frombuffer(data, np.uint8)
    # The register starts as all ones, which is the same as flipping the first four bytes; zeros
    # ahead of them change nothing.
    body[:4] ^= 0xFF
    rows = padded.reshape(blocks, _BLOCK)
    # Some blocks at a time, so that what NumPy makes in between stays in the processor's cache.
    starts = range(0, blocks, _AT_ONCE)
    sums: _Words = np.concatenate([_block_sums(rows[at : at + _AT_ONCE]) for at in starts])
    for level in range(blocks.bit_length()):
        sums = _halved(sums, level)
    return int(sums[0]) ^ 0xFFFFFFFF


def _halved(sums: _Words, level: int) -> _Words:
    """Join neighbours; a zero ahead of them, like zero bytes ahead of data, changes nothing."""
    if sums.size == 1:
        return sums
    even = np.concatenate((np.zeros(sums.size % 2, np.uint32), sums))
    joined: _Words = _apply(_shift_by_blocks(level), even[0::2]) ^ even[1::2]
    return joined


def _crc_of_few(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register = int(_byte_table()[(register ^ byte) & 0xFF]) ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def _block_sums(blocks: npt.NDArray[np.uint8]) -> _Words:
    """Checksums of rows of bytes: the table knows what each byte adds from where it stands."""
    index = blocks.astype(np.intp)
    index += np.arange(_BLOCK, dtype=np.intp) * 256
    sums: _Words = np.bitwise_xor.reduce(_place_table().take(index), axis=1)
    return sums


@lru_cache(maxsize=1)
def _byte_table() -> _Words:
    table: _Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (table & 1).astype(bool)
        np.right_shift(table, 1, out=table)
        np.bitwise_xor(table, np.uint32(_POLYNOMIAL), out=table, where=odd)
    return table


@lru_cache(maxsize=1)
def _place_table() -> _Words:
    rows = [_byte_table()]
    for _ in range(_BLOCK - 1):
        rows.append(_apply(_shift_by_one(), rows[-1]))
    return np.concatenate(rows[::-1])


@lru_cache(maxsize=1)
def _shift_by_one() -> _Words:
    """What one more zero byte does to a checksum: a table for each of its four bytes."""
    words = np.arange(256, dtype=np.uint32) << (np.arange(4, dtype=np.uint32) * 8)[:, None]
    shifted: _Words = _byte_table()[words & 0xFF] ^ (words >> 8)
    return shifted


@lru_cache(maxsize=64)
def _shift_by_blocks(level: int) -> _Words:
    """What `_BLOCK * 2**level` more zero bytes do: each table applied to itself is the next."""
    if level:
        table = _shift_by_blocks(level - 1)
        return _apply(table, table)
    table = _shift_by_one()
    for _ in range(_BLOCK.bit_length() - 1):
        table = _apply(table, table)
    return table


def _apply(table: _Words, words: _Words) -> _Words:
    shifted: _Words = (
        table[0][words & 0xFF]
        ^ table[1][(words >> 8) & 0xFF]
        ^ table[2][(words >> 16) & 0xFF]
        ^ table[3][words >> 24]
    )
    return shifted


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + _MASK_DELTA) & 0xFFFFFFFF)


# The file


def write_records(file: Location, records: Iterable[bytes]) -> int:
    """Write records as a new TFRecord file; return how many there were."""
    count = 0
    with file.open("wb") as stream:
        for record in records:
            length = struct.pack("<Q", len(record))
            stream.write(length + _masked(length))
            stream.write(record)
            stream.write(_masked(record))
            count += 1
    return count


def read_records(path: str | Location) -> Iterator[bytes]:
    """Read the records of a TFRecord file, one in memory at a time.

    Raises:
        InputError: The file is missing, ends early or is damaged.
    """
    file = locate(path) if isinstance(path, str) else path
    try:
        left = file.stat().st_size
        with file.open("rb") as stream:
            for number in range(left):
                if not left:
                    return
                size = _read_length(file, number, stream.read(12))
                # A length that lies must not make Python ask for that much memory.
                body = stream.read(size + 4) if size + 16 <= left else b""
                if len(body) != size + 4 or _masked(body[:-4]) != body[-4:]:
                    raise _damaged(file, number)
                left -= 16 + size
                yield body[:-4]
    except OSError as exc:
        raise InputError("a TFRecord file", f"{str(file)!r} ({exc})", "Check the path.") from exc


def _read_length(file: Location, number: int, head: bytes) -> int:
    if len(head) != 12 or _masked(head[:8]) != head[8:]:
        raise _damaged(file, number)
    return int(struct.unpack("<Q", head[:8])[0])


def _damaged(file: Location, number: int) -> InputError:
    return InputError(
        "whole TFRecord records",
        f"{str(file)!r}, whose record {number} ends early or fails its checksum",
        "Copy or write the file again.",
    )


# The message


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """Return the bytes of a `tf.train.Example`; the same features always give the same bytes.

    Args:
        features: Bytes and texts become a list of bytes, whole numbers of int64, others of float.

    Raises:
        InputError: A value is of another kind.
    """
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _encode_feature(name, value)))
        for name, value in sorted(features.items())
    )
    return _field(1, b"".join(entries))


def decode_example(data: bytes) -> dict[str, list[Any]]:
    """Return the features of a `tf.train.Example`: bytes, floats or ints, always as a list.

    Raises:
        InputError: The bytes are no such message.
    """
    try:
        return dict(
            _decode_entry(entry)
            for _, features in _fields(data, 1)
            for _, entry in _fields(features, 1)
        )
    except (IndexError, ValueError, TypeError, struct.error) as exc:
        raise InputError(
            "the bytes of a tf.train.Example", f"{len(data)} others ({exc})", "Check the file."
        ) from exc


def _encode_feature(name: str, value: Feature) -> bytes:
    single = isinstance(value, (bytes, str, int, float, np.generic))
    many: list[Any] = [value] if single else list(value)  # type: ignore[arg-type]
    if all(isinstance(one, (bytes, str)) for one in many):
        raw = (one.encode() if isinstance(one, str) else one for one in many)
        return _field(_BYTES_LIST, b"".join(_field(1, one) for one in raw))
    if all(isinstance(one, (int, np.integer)) for one in many):
        if not all(-(2**63) <= one < 2**63 for one in many):
            raise InputError("whole numbers of 64 bits", f"others in {name!r}", "Use texts.")
        packed = b"".join(_varint(int(one) & 0xFFFFFFFFFFFFFFFF) for one in many)
        return _field(_INT64_LIST, _field(1, packed))
    if all(isinstance(one, (int, float, np.number)) for one in many):
        return _field(_FLOAT_LIST, _field(1, struct.pack(f"<{len(many)}f", *many)))
    raise InputError(
        "bytes, texts, whole numbers or floats, of one kind in a list",
        f"{name!r} with {sorted({type(one).__name__ for one in many})}",
        "Convert the value.",
    )


def _decode_entry(entry: bytes) -> tuple[str, list[Any]]:
    name, values = "", []
    for number, field in _fields(entry, 1, 2):
        if number == 1:
            name = field.decode()
        else:
            values = [one for kind, each in _fields(field, 1, 2, 3) for one in _VALUES[kind](each)]
    return name, values


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _scan(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """The fields of a message: number, how it is written, and its bytes or its number."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, wire, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _LENGTH:
            size, at = _read_varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("a field that goes beyond the end")
        yield key >> 3, wire, data[at : at + size]
        at += size


def _fields(data: bytes, *numbers: int) -> Iterator[tuple[int, bytes]]:
    """The fields of these numbers, all of which hold bytes; others are from a newer format."""
    for number, wire, value in _scan(data):
        if number in numbers:
            if wire != _LENGTH:
                raise ValueError(f"field {number} without a length")
            yield number, value


def _bytes_values(data: bytes) -> list[Any]:
    return [value for _, value in _fields(data, 1)]


def _float_values(data: bytes) -> list[Any]:
    # Packed into one field or one after the other, floats lie in fields of a multiple of 4 bytes.
    parts = [value for number, _, value in _scan(data) if number == 1]
    return [one for part in parts for (one,) in struct.iter_unpack("<f", part)]


def _int64_values(data: bytes) -> list[Any]:
    values: list[int] = []
    for number, wire, value in _scan(data):
        if number == 1 and wire == _VARINT:
            values.append(value)
        elif number == 1:
            at = 0
            while at < len(value):
                one, at = _read_varint(value, at)
                values.append(one)
    return [value - 2**64 if value >= 2**63 else value for value in values]


_VALUES = {_BYTES_LIST: _bytes_values, _FLOAT_LIST: _float_values, _INT64_LIST: _int64_values}
