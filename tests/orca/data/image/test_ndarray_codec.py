import io

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.ndarray_codec import decode_ndarray, encode_ndarray


@pytest.mark.parametrize("value", [np.arange(6, dtype=np.uint8).reshape(2, 3), 3, [1.5, 2.5]])
def test_arrays_and_numbers_read_back(value: object) -> None:
    decoded = decode_ndarray(encode_ndarray(value))
    np.testing.assert_array_equal(decoded, np.asarray(value), strict=True)


def test_form_is_an_archive_with_the_key_arr() -> None:
    with np.load(io.BytesIO(encode_ndarray(np.ones(3)))) as archive:
        assert archive.files == ["arr"]


def test_archive_that_was_made_by_numpy_alone() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, arr=np.arange(4))
    assert decode_ndarray(buffer.getvalue()).tolist() == [0, 1, 2, 3]


def test_objects_are_not_pickled() -> None:
    with pytest.raises(InputError, match="Python objects"):
        encode_ndarray(np.array([{}, None]))


def test_pickles_are_not_read() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, arr=np.array([{}]))
    with pytest.raises(InputError, match="allow_pickle=False"):
        decode_ndarray(buffer.getvalue())


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 cut", None])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="NumPy archive"):
        decode_ndarray(data)


def test_damaged_archive_is_refused() -> None:
    data = bytearray(encode_ndarray(np.arange(1000)))
    data[80:120] = bytes(40)
    with pytest.raises(InputError, match="NumPy archive"):
        decode_ndarray(bytes(data))
