"""What a person sees while a fit runs, on a terminal and in a log."""

import contextlib
import io
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from zoo.orca.learn.driver.progress import Progress
from zoo.orca.learn.steps import EpochStats


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def last(self) -> str:
        """The line where the cursor is, or the one above when it is empty."""
        lines = [line for line in re.split(r"[\r\n]", self.getvalue()) if line.strip()]
        return lines[-1].rstrip()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@contextlib.contextmanager
def progress_on(
    stream: io.StringIO, epochs: range = range(1), show: bool | None = None
) -> Iterator[Progress]:
    """The progress of a fit of a program whose standard error goes there."""
    # Not by a fixture: pytest puts its own in place when the test begins.
    with contextlib.redirect_stderr(stream), Progress(epochs, show=show) as progress:
        yield progress


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The standard error of a program that has set up no logging, a file."""
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda self: False)
    return io.StringIO()


def report(epoch: int, rows: int, loss: float = 0.5) -> dict[str, Any]:
    return {"epoch": epoch, "step": 1, "steps": 9, "rows": rows, "loss": loss}


def stats(epoch: int, **validation: float) -> EpochStats:
    return EpochStats(
        epoch, steps=2, rows=1_000, weight=1_000.0, loss_sum=250.0, seconds=1.5,
        validation=validation,
    )  # fmt: skip


def test_phases_are_named(terminal: Terminal) -> None:
    with progress_on(terminal, range(2)) as progress:
        progress.phase("preparing data")
        assert terminal.last() == "preparing data"
        progress.expect(1_000)
        progress.phase("starting workers")
        assert terminal.last() == "starting workers"
        progress.show(report(1, 100))
        progress.validating()
        assert terminal.last().startswith("epoch 1/2, validating:")
        progress.epoch(stats(1, MAE=0.125))
        assert terminal.last().startswith("epoch 1/2:")
        assert "val_MAE=0.125" in terminal.last()


def test_the_start_is_no_part_of_the_time_that_is_left(terminal: Terminal) -> None:
    with progress_on(terminal, range(1)) as progress:
        progress.expect(1_000)
        progress.phase("starting workers")
        time.sleep(0.6)
        progress.show(report(1, 200))
        time.sleep(0.2)
        progress.show(report(1, 600))
        # 400 rows in 0.2 s, and 400 are left.
        rate, unit = re.search(r"([\d.]+)(k?)rows/s", terminal.last()).groups()  # type: ignore[union-attr]
        assert 800 < float(rate) * (1_000 if unit else 1) < 2_100
        assert re.search(r"\[00:00<00:00", terminal.last())


def test_the_last_state_stays(terminal: Terminal) -> None:
    with progress_on(terminal, range(1)) as progress:
        progress.expect(1_000)
        progress.show(report(1, 500))
        progress.show(report(1, 1_000, loss=0.25))
        progress.epoch(stats(1))
    assert terminal.last().startswith("epoch 1/1: 100%")
    assert "loss=0.25" in terminal.last()
    assert terminal.getvalue().endswith("\n")


def test_the_bar_counts_on_after_a_loss(terminal: Terminal) -> None:
    with progress_on(terminal, range(3, 5)) as progress:
        progress.expect(1_000)
        progress.show(report(4, 500))
        progress.phase("starting workers")
        assert terminal.last().startswith("starting workers")
        progress.show(report(4, 600))
        progress.show(report(5, 1_000))
    assert terminal.last().startswith("epoch 5/5: 100%")


def test_lines_of_the_log_go_above_the_bar(terminal: Terminal) -> None:
    with progress_on(terminal, range(1)) as progress:
        progress.expect(1_000)
        progress.show(report(1, 500))
        logging.getLogger("zoo.some.place").warning("look here")
        progress.epoch(stats(1))
    lines = [part.split("\r")[-1].rstrip() for part in terminal.getvalue().split("\n")]
    assert "look here" in lines


def test_handlers_are_as_before(terminal: Terminal) -> None:
    before = list(logging.root.handlers)
    with pytest.raises(ValueError, match="x"), progress_on(terminal, range(1)):
        raise ValueError("x")
    assert logging.root.handlers == before


def test_a_log_gets_a_line_for_each_epoch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "zoo"), Progress(range(2)) as progress:
        progress.phase("preparing data")
        progress.show(report(1, 500))
        progress.epoch(stats(1, loss=0.5, MAE=0.125))
        progress.epoch(stats(2))
    assert [record.getMessage() for record in caplog.records] == [
        "epoch 1/2: train_loss 0.25, val_loss 0.5, val_MAE 0.125 (1,000 rows in 1.5 s)",
        "epoch 2/2: train_loss 0.25 (1,000 rows in 1.5 s)",
    ]


def test_lines_are_seen_without_any_logging(unconfigured: io.StringIO) -> None:
    with progress_on(unconfigured, range(1)) as progress:
        progress.epoch(stats(1))
    assert unconfigured.getvalue() == "epoch 1/1: train_loss 0.25 (1,000 rows in 1.5 s)\n"


def test_a_level_of_the_program_silences_them(
    unconfigured: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("zoo"), "level", logging.WARNING)
    with progress_on(unconfigured, range(1)) as progress:
        progress.epoch(stats(1))
    assert not unconfigured.getvalue()


def test_nothing_is_shown_when_that_is_asked_for(unconfigured: io.StringIO) -> None:
    with progress_on(unconfigured, range(1), show=False) as progress:
        progress.phase("preparing data")
        progress.show(report(1, 500))
        progress.validating()
        progress.epoch(stats(1))
    assert not unconfigured.getvalue()


def test_rows_that_are_not_known_are_counted(terminal: Terminal) -> None:
    with progress_on(terminal, range(1)) as progress:
        progress.expect(None)
        progress.show(report(1, 500))
        progress.show(report(1, 700))
    assert "700rows" in terminal.last()
