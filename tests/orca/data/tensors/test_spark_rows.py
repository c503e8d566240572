"""What Spark says of its scratch folders, in our words. No Spark runs."""

import pickle

import pytest
from py4j.protocol import Py4JError

from zoo.errors import ClusterError
from zoo.orca.data.tensors.spark_rows import scratch_explained


@pytest.mark.parametrize(
    "error",
    [
        Py4JError("java.io.IOException: No space left on device"),
        Py4JError("java.io.IOException: Failed to create local dir in /gone"),
        pickle.PicklingError("Could not serialize broadcast: [Errno 30] Read-only file system"),
        OSError(122, "Disk quota exceeded"),
    ],
)  # fmt: skip
def test_a_scratch_folder_without_room_is_told(error):
    told = pytest.raises(ClusterError, match=r"room in Spark's scratch.*spark\.local\.dir")
    with told as caught, scratch_explained():
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass():
    with pytest.raises(Py4JError, match="another"), scratch_explained():
        raise Py4JError("another")
