"""Errors of tasks on their way to the driver, without Spark between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from zoo.orca.data.xshards import error_inbox
from zoo.orca.data.xshards.error_inbox import INVITATION, CarriedError, ErrorInbox, Reporting

Start = Callable[[str | None], None]


class Task:
    """What a task of Spark knows of its job."""

    def __init__(self, told: str | None) -> None:
        self._told = {INVITATION: told}

    def getLocalProperty(self, name: str) -> str | None:  # noqa: N802 - Spark names it
        return self._told.get(name)


@pytest.fixture
def inbox() -> Iterator[ErrorInbox]:
    with ErrorInbox("127.0.0.1") as made:
        yield made


@pytest.fixture
def in_task(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Be in a task that knows this of its job."""

    def start(told: str | None) -> None:
        monkeypatch.setattr(error_inbox.TaskContext, "get", lambda: Task(told))

    return start


def raised(error: Exception) -> str:
    """What Spark would tell of an error."""
    with pytest.raises(type(error)) as caught, Reporting("shard 1 of partition 2"):
        raise error
    return "\n".join([str(error), *getattr(caught.value, "__notes__", [])])


def test_an_error_arrives_as_itself(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation)
    found = inbox.find(raised(KeyError("why")))
    assert found is not None
    with pytest.raises(KeyError, match="why") as caught:
        found.throw()
    (note,) = caught.value.__notes__
    assert note.startswith("Raised by shard 1 of partition 2 on ")
    assert "Number" not in note
    assert caught.value.__context__ is None


def test_the_text_of_spark_tells_which(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation)
    text = raised(KeyError("first"))
    raised(KeyError("second"))
    found = inbox.find(text)
    assert found is not None
    assert "first" in found.facts["text"]
    assert inbox.find("Raised by shard 1 of partition 2.") is None


def test_of_several_in_a_text_the_last_ended_the_task(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation)
    cause, error = raised(KeyError("cause")), raised(ValueError("error"))
    found = inbox.find(f"{error} {cause}")
    assert found is not None
    assert found.facts["text"] == "ValueError: error"


def test_an_error_is_told_of_once(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation)
    error = KeyError("why")
    with pytest.raises(KeyError), Reporting("partition 2"), Reporting("shard 1"):
        raise error
    assert len(error.__notes__) == 1
    assert "Raised by shard 1 on" in error.__notes__[0]


@pytest.mark.parametrize("told", [None, '["127.0.0.1", 1, "00"]', "no address"])
def test_without_a_driver_that_listens_the_error_passes(in_task: Start, told: str | None) -> None:
    in_task(told)
    text = raised(KeyError("why"))
    assert "Raised by shard 1 of partition 2 on" in text
    assert "Number" not in text


def test_a_driver_with_another_key_gets_nothing(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation[:-34] + f'{"0" * 32}"]')
    assert "Number" not in raised(KeyError("why"))


def test_a_long_text_arrives(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation)
    text = "begin" + "x" * 100_000
    error = ValueError(text)
    error.add_note("a note of the user")
    found = inbox.find(raised(error))
    assert found is not None
    with pytest.raises(ValueError, match="begin") as caught:
        found.throw()
    assert (str(caught.value) == text, caught.value.__notes__[0]) == (True, "a note of the user")


def test_a_text_that_is_too_long_is_cut() -> None:
    error = ValueError("begin" + "x" * (2 << 20) + "end")
    error.add_note("a note of the user")
    carried = CarriedError.of(error, "shard 1")
    assert len(carried.payload) < 100_000
    with pytest.raises(ValueError, match="^begin") as caught:
        carried.throw()
    assert str(caught.value).endswith("xend")
    assert "a note of the user" in caught.value.__notes__[0]


def test_hundreds_of_errors_leave_the_last(inbox: ErrorInbox, in_task: Start) -> None:
    in_task(inbox.invitation)
    texts = [raised(KeyError(number)) for number in range(70)]
    assert inbox.find(texts[0]) is None
    assert inbox.find(texts[-1]) is not None


def test_errors_that_a_retry_has_mended_are_logged(
    inbox: ErrorInbox, in_task: Start, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.tell_of_retries()
    assert not caplog.text
    in_task(inbox.invitation)
    raised(KeyError("why"))
    inbox.tell_of_retries()
    assert "shard 1 of partition 2 on" in caplog.text
    assert "KeyError: 'why'" in caplog.text


def test_an_error_that_takes_no_notes_passes(inbox: ErrorInbox, in_task: Start) -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):  # noqa: N818
        code: int

    in_task(inbox.invitation)
    with pytest.raises(Frozen), Reporting("shard 1"):
        raise Frozen(3)


def test_nothing_listens_any_more_after_the_job(in_task: Start) -> None:
    with ErrorInbox("127.0.0.1") as inbox:
        in_task(inbox.invitation)
    assert "Number" not in raised(KeyError("why"))
