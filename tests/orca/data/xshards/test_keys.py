import datetime as dt
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.xshards.keys import partition_of_values

MANY = 1 << 40
MOMENT = pd.Timestamp("1950-01-02 03:04:05.9")


def cells(*values: Any) -> pd.Series:
    return pd.Series(values, dtype=object)


EQUAL = {
    "one": [
        pd.Series([1], dtype=dtype)
        for dtype in ("int64", "uint8", "float32", "Int64", "boolean", "category", "int64[pyarrow]")
    ]
    + [cells(value) for value in (1, 1.0, True, np.float32(1), np.True_, Decimal(1), 1 + 0j)],
    "negative": [pd.Series([-1]), pd.Series([-1.0]), cells(-1)],
    "half": [
        pd.Series([0.5]),
        pd.Series([0.5], dtype="float32"),
        cells(0.5),
        cells(Decimal("0.5")),
    ],
    "large": [pd.Series([2**63], dtype="uint64"), pd.Series([2.0**63]), cells(2**63)],
    "beyond 64 bits": [pd.Series([2.0**70]), cells(2**70)],
    "infinite": [pd.Series([np.inf]), cells(np.inf), cells(Decimal("Infinity"))],
    "missing": [
        cells(None),
        cells(pd.NA),
        pd.Series([np.nan]),
        pd.Series([pd.NaT]),
        pd.Series([None], dtype="Int64"),
        pd.Series([None], dtype="category"),
        pd.Series([None], dtype="string"),
    ],  # fmt: skip
    "text": [
        cells("a"),
        *(pd.Series(["a"], dtype=d) for d in ("string", "category", "string[pyarrow]")),
    ],
    "time": [
        pd.Series([MOMENT]),
        pd.Series([MOMENT]).astype("datetime64[s]"),
        cells(MOMENT),
        cells(MOMENT.to_pydatetime()),
        cells(MOMENT.to_datetime64()),
    ],  # fmt: skip
    "zoned": [
        pd.Series([MOMENT]).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
        cells(MOMENT.tz_localize("UTC").tz_convert("Asia/Tokyo")),
    ],
    "duration": [
        pd.Series([pd.Timedelta("-1.5s")]),
        cells(dt.timedelta(seconds=-1.5)),
        cells(np.timedelta64(-1500, "ms")),
    ],  # fmt: skip
    "tuple": [cells((1, "a", None)), cells((1.0, "a", np.nan))],
    "complex": [cells(1 + 2j), cells(np.complex64(1 + 2j))],
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_of_any_dtype_meet(name: str) -> None:
    places = {int(partition_of_values(series, MANY)[0]) for series in EQUAL[name]}
    assert len(places) == 1


def test_mixed_values_meet_their_equals() -> None:
    mixed = partition_of_values(cells("a", 1, None, b"a"), MANY)
    assert mixed[0] == partition_of_values(cells("a"), MANY)[0]
    assert mixed[1] == partition_of_values(pd.Series([1.0]), MANY)[0]


def test_the_hash_seed_has_no_say() -> None:
    program = (
        "import pandas as pd; from zoo.orca.data.xshards.keys import partition_of_values as p;"
        "print(p(pd.Series(['a', 'b', 1, None, ('x', 2)], dtype=object), 1000).tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1


@pytest.mark.parametrize(
    "values",
    [pd.Series(np.arange(7000)), pd.Series(np.arange(7000).astype(str)), pd.Series(np.arange(7e3))],
)
def test_values_spread_over_all_partitions(values: pd.Series) -> None:
    counts = np.bincount(partition_of_values(values, 7), minlength=7)
    assert counts.min() > 800


def test_dates_before_pandas_can_count() -> None:
    assert partition_of_values(cells(dt.date(1, 1, 1)), 5).tolist()[0] in range(5)


@pytest.mark.parametrize("value", [uuid.UUID(int=1), {"a": 1}, object()])
def test_values_that_cannot_be_compared_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match=rf"numbers, text.*{type(value).__name__}"):
        partition_of_values(cells("a", value), 2)


def test_no_values() -> None:
    assert len(partition_of_values(pd.Series([], dtype=object), 3)) == 0
