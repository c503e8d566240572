"""The example runs as a program of its own, on two months of counts."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "pandas_shards.py"

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def said(run_program: Run, out: Path) -> str:
    """What the program prints, run once."""
    options = ["--days", "60", "--epochs", "6", "--out", str(out)]
    run = run_program(EXAMPLE, *options, timeout_s=500)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_every_line_of_the_files_is_read(said: str, out: Path) -> None:
    lines = sum(len(pd.read_csv(file)) for file in (out / "counts").glob("*.csv"))
    assert re.search(rf"^Read +{lines:,} rows", said, re.MULTILINE)


def test_rows_that_are_clean_and_have_a_past_are_used(said: str, out: Path) -> None:
    found = re.search(r"^Shards +([\d,]+) rows to train on, ([\d,]+) to test", said, re.MULTILINE)
    assert found is not None, said
    rows = pd.concat(map(pd.read_csv, (out / "counts").glob("*.csv")))
    rows = rows[rows["rides"] >= 0].drop_duplicates(["station", "time"])
    times = pd.to_datetime(rows["time"])
    past = pd.MultiIndex.from_arrays([rows["station"], times + pd.Timedelta(days=7)])
    kept = pd.MultiIndex.from_arrays([rows["station"], times]).isin(past).sum()
    assert sum(int(number.replace(",", "")) for number in found.groups()) == kept


def test_it_predicts_better_than_last_week(said: str) -> None:
    stations = re.findall(r"^ +[A-Z]\w+ +([\d.]+) +([\d.]+) +[\d.]+$", said, re.MULTILINE)
    assert len(stations) == 4
    assert all(float(model) < float(last_week) for model, last_week in stations)


def test_predictions_lie_beside_their_rows(said: str, out: Path) -> None:
    assert "predicted" in said
    rows = pd.concat(map(pd.read_parquet, (out / "predicted").rglob("*.parquet")))
    assert {"station", "time", "rides", "predicted"} <= set(rows.columns)
    assert rows[["rides", "predicted"]].corr().iloc[0, 1] > 0.9


def test_the_week_is_drawn(said: str, out: Path) -> None:
    assert "week.png" in said
    with Image.open(out / "week.png") as picture:
        assert picture.size == (1800, 680)
        colours = picture.getcolors(maxcolors=1 << 20) or []
    assert sum(count for count, (red, green, _) in colours if red - green > 100) > 1000
