import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.formats.image_folder import _records
from zoo.orca.data.image.formats.mnist import _open_idx
from zoo.orca.data.image.writing.fingerprint import fingerprint
from zoo.orca.data.image.writing.verify import Screening
from zoo.orca.data.storage import locate

VALUES: list[Any] = [
    None,
    1,
    1.5,
    "é\udcff",
    b"bytes",
    [1, "a"],
    {"a": 1},
    slice(0, 5),
    slice(0, 6),
    Path("/a"),
    locate("memory://a"),
    DType.BYTES,
    FeatureType.IMAGE,
    SchemaField(FeatureType.IMAGE, DType.BYTES, (1,)),
    np.float32(1.5),
    np.arange(3),
    np.arange(3, dtype=np.int32),
    Screening(),
    Screening("skip"),
    _records,
    _open_idx,
    partial(_records, "/a", {"x": 1}),
    partial(_records, "/a", {"x": 2}),
]


def test_different_values_have_different_names() -> None:
    names = [fingerprint(value) for value in VALUES]
    assert None not in names
    assert len(set(names)) == len(VALUES)


def test_equal_values_have_one_name_in_every_process() -> None:
    program = (
        "from zoo.orca.data.image.writing.fingerprint import fingerprint\n"
        "print(fingerprint({'a': 'b'}, slice(1, 2), items=[('x', 'y')] * 3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    items = [("".join(("x",)), "y") for _ in range(3)]
    assert done.stdout.strip() == fingerprint({"a": "b"}, slice(1, 2), items=items)


def test_long_arrays_that_print_alike_differ() -> None:
    first, second = np.zeros(10_000), np.zeros(10_000)
    second[5000] = 1
    assert fingerprint(first) != fingerprint(second)


@dataclass
class Holder:
    """A record with something inside that has no name."""

    value: Any


@pytest.mark.parametrize(
    "value", [lambda: 1, test_long_arrays_that_print_alike_differ, object(), {1}, Holder(object())]
)
def test_what_may_change_has_no_name(value: object) -> None:
    assert fingerprint(value) is None
    assert fingerprint(items=["a", value]) is None


def test_value_that_holds_itself_has_no_name() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert fingerprint(loop) is None
