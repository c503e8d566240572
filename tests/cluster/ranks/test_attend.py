"""A rank that is interrupted, dies of a signal, or fails after the round is over."""

import importlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from zoo.cluster.ranks import attend
from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.cluster.ranks.link import Flow, Link
from zoo.cluster.ranks.local import LocalLauncher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Stopped
from zoo.cluster.ranks.round import launch
from zoo.cluster.ranks.timing import Timing
from zoo.errors import RankLostError

# Ranks cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Result = tuple[bytes, dict[str, Any]]
QUICK = Timing(notice_s=0.05, repeat_s=0.02, pulse_s=0.2)
SLOW_MODULE = """
import pathlib, sys, time
pathlib.Path({begun!r}).touch()
end = time.monotonic() + 0.6
while time.monotonic() < end:
    pass
pathlib.Path({ended!r}).touch()
"""


def run(body: Callable[[Member], Result], ranks: int = 2, timing: Timing = QUICK) -> None:
    launch(
        pickled(body, "it"),
        launcher=LocalLauncher(), ranks=ranks, per_executor=ranks, timing=timing,
    )  # fmt: skip


def await_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


# Where nobody is interrupted


def test_import_is_not_interrupted(tmp_path: Path) -> None:
    begun, ended, after = (str(tmp_path / name) for name in ("begun", "ended", "after"))
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE.format(begun=begun, ended=ended))
    folder = str(tmp_path)

    def body(member: Member) -> Result:
        if member.rank == 1:
            await_file(begun)
            raise ValueError("mine")
        sys.path.insert(0, folder)
        try:
            importlib.import_module("slow_module")
            time.sleep(60)
        except Stopped:
            Path(after).write_text(str("slow_module" in sys.modules))
            raise
        return b"", {}

    with pytest.raises(ValueError, match="mine"):
        run(body)
    assert Path(ended).exists()
    assert Path(after).read_text() == "True"


class SlowToUnpickle:
    """Takes its time to come to life."""

    def __init__(self, begun: str, ended: str) -> None:
        self.begun, self.ended = begun, ended

    def __setstate__(self, state: dict[str, str]) -> None:
        vars(self).update(state)
        Path(self.begun).touch()
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            pass
        Path(self.ended).touch()


def test_unpickling_is_not_interrupted(tmp_path: Path) -> None:
    begun, ended = str(tmp_path / "begun"), str(tmp_path / "ended")
    slow = pickled(SlowToUnpickle(begun, ended), "it")

    def body(member: Member) -> Result:
        if member.rank == 1:
            await_file(begun)
            raise ValueError("mine")
        unpickled(slow)
        time.sleep(60)
        return b"", {}

    with pytest.raises(ValueError, match="mine"):
        run(body)
    assert Path(ended).exists()


SEEN: list[bool] = []


def look() -> None:
    SEEN.append(attend._in_the_middle(sys._getframe()))


class LooksWhenUnpickled:
    def __reduce__(self) -> Any:
        return eval, ("__import__('builtins').zoo_look()",)


class LooksWhenHandled(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        look()


def import_something(folder: Path) -> None:
    (folder / "looks_at_us.py").write_text("import builtins; builtins.zoo_look()")
    importlib.import_module("looks_at_us")


def start_process(folder: Path) -> None:
    subprocess.run(["true"], check=True, preexec_fn=None, env=Environment())


class Environment(dict[str, str]):
    def items(self) -> Any:
        look()
        return super().items()


def start_thread(folder: Path) -> None:
    class Thread(threading.Thread):
        @property
        def _started(self) -> Any:
            look()
            return self.event

        @_started.setter
        def _started(self, value: Any) -> None:
            self.event = value

    thread = Thread(target=int)
    SEEN.clear()
    thread.start()
    thread.join()
    del SEEN[1:]  # what it asks for later


def log_something(folder: Path) -> None:
    handler, logger = LooksWhenHandled(), logging.getLogger("zoo.test")
    logger.addHandler(handler)
    logger.warning("a word")
    logger.removeHandler(handler)


def send_message(folder: Path) -> None:
    link: Any = object.__new__(Link)
    link._lock, link.sending = threading.Lock(), Flow()
    link._sock = SimpleNamespace(sendall=lambda data: look())
    assert link.send({"kind": "state"}, b"payload")


@pytest.mark.parametrize(
    "work",
    [
        import_something,
        send_message,
        lambda _: unpickled(cloudpickle.dumps(LooksWhenUnpickled())),
        start_process,
        start_thread,
        log_something,
    ],
    ids=["import", "message", "unpickle", "process", "thread", "log"],
)
def test_work_that_others_would_find_half_done_is_seen(
    work: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("builtins.zoo_look", look, raising=False)
    SEEN.clear()
    work(tmp_path)
    assert SEEN
    assert all(SEEN)
    sys.modules.pop("looks_at_us", None)


def test_other_work_may_be_interrupted() -> None:
    SEEN.clear()
    [look() for _ in range(1)]
    assert SEEN == [False]


def test_rank_that_never_comes_out_of_an_import_is_ended(tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")
    (tmp_path / "endless.py").write_text(
        f"import pathlib, time\npathlib.Path({begun!r}).touch()\ntime.sleep(600)"
    )
    folder = str(tmp_path)

    def body(member: Member) -> Result:
        if member.rank == 1:
            await_file(begun)
            raise ValueError("mine")
        sys.path.insert(0, folder)
        importlib.import_module("endless")
        return b"", {}

    start = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        run(body, timing=Timing(notice_s=0.05, repeat_s=0.02, ignore_s=0.2, unwind_s=30.0))
    assert time.monotonic() - start < 20.0


def test_rank_on_its_way_to_an_offer_is_not_interrupted_again(tmp_path: Path) -> None:
    place = str(tmp_path / "unwound")

    def body(member: Member) -> Result:
        if member.rank == 1:
            raise ValueError("mine")
        try:
            time.sleep(60)
        except Stopped:
            time.sleep(0.3)
            Path(place).touch()
        return b"", {}

    with pytest.raises(ValueError, match="mine"):
        run(body)
    assert Path(place).exists()


# Errors after the end


def ended(error: BaseException, *, stopped: bool) -> list[str]:
    """What a rank says whose body raises this."""

    def body(member: object) -> Result:
        raise error

    said: list[str] = []
    member: Any = SimpleNamespace(
        rank=0, stopped=stopped, held=False, finish=None,
        fail=lambda payload, facts: said.append(facts["text"]), bye=lambda: said.append("bye"),
    )  # fmt: skip
    attend._work(member, pickled(body, "it"))
    return said


def test_error_of_the_body_is_told() -> None:
    assert ended(ValueError("mine"), stopped=False) == ["ValueError: mine"]


@pytest.mark.parametrize("error", [SystemError("bad call flags"), Stopped("enough")], ids=repr)
def test_what_an_interruption_became_is_nobodys_error(error: BaseException) -> None:
    assert ended(error, stopped=True) == ["bye"]


def test_survivor_that_garbles_the_interruption_is_not_named() -> None:
    def body(member: Member) -> Result:
        if member.rank == 1:
            member.share(0)
            signal.raise_signal(signal.SIGKILL)
        member.share(0)
        try:
            time.sleep(60)
        except BaseException as exc:
            raise RuntimeError("garbled") from exc
        return b"", {}

    with pytest.raises(RankLostError, match="rank 1 on") as caught:
        run(body)
    assert "rank 0" not in str(caught.value)


# Ranks that die of a signal


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("__import__('ctypes').string_at(0)", r"was lost: segmentation fault.*native code"),
        ("os.abort()", r"was lost: aborted"),
        ("os.kill(os.getpid(), 9)", r"was lost: ended by SIGKILL.*out of memory"),
        ("os._exit(3)", r"was lost without a word"),
    ],
)
def test_signal_that_ended_a_rank_is_named(
    how: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def body(member: Member) -> Result:
        exec(f"import os; {how}")
        return b"", {}

    with pytest.raises(RankLostError, match=told):
        run(body, 1)
    assert ("most recent call first" in caplog.text) is ("segm" in told or "abort" in told)
