"""Errors on their way to the driver, and what is shown of them there."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from zoo.cluster.ranks.carried import carry, folded, lines_of, raise_carried
from zoo.errors import InputError, RankError


def inside(source: str, **names: Any) -> Callable[..., Any]:
    """A function `run` of a module of ours."""
    scope = {"__name__": "zoo.made.up", "InputError": InputError, **names}
    exec(source, scope)
    return scope["run"]


def fails(*_: Any) -> None:
    raise ValueError("of the user")


def caught_by(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as exc:  # noqa: BLE001 - any is looked at
        return exc
    raise AssertionError("nothing was raised")


def names_in(error: Exception) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def thrown(error: Exception) -> Exception:
    """The error as it comes out of a rank."""
    payload, facts = carry(error)
    return caught_by(lambda: raise_carried(payload, facts, "rank 1 on alpha"))


# Where an error comes from


def test_lines_of_the_user_are_told_and_not_ours() -> None:
    through = inside("def run(call):\n    call()\n")
    error = caught_by(lambda: through(fails))
    assert "in fails" in lines_of(error)
    assert 'raise ValueError("of the user")' in lines_of(error)
    assert "in run" not in lines_of(error)


def from_inside(source: str) -> Exception:
    """An error that no line of this file led to."""
    error = caught_by(inside(source))
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    return error


def test_a_fault_of_ours_is_told_whole() -> None:
    assert "in run" in lines_of(from_inside("def run():\n    raise KeyError('bug')\n"))


def test_what_we_raise_on_purpose_has_no_lines_of_ours() -> None:
    assert not lines_of(from_inside("def run():\n    raise InputError('a', 'b', 'c')\n"))


def test_causes_are_named() -> None:
    def chain() -> None:
        try:
            fails()
        except ValueError as exc:
            raise KeyError("lost") from exc

    assert "Caused by ValueError: of the user" in lines_of(caught_by(chain))


def test_a_circle_of_causes_ends() -> None:
    one, two = KeyError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    assert lines_of(one).count("Caused by") == 1


# On the way


def test_a_text_above_the_limit_is_cut() -> None:
    error = ValueError("begin" + "x" * 1_000_000 + "end")
    error.add_note("a note of the user")
    payload, facts = carry(error, limit=200_000)
    assert len(payload) < 200_000
    again = caught_by(lambda: raise_carried(payload, facts, "rank 1 on alpha"))
    assert type(again) is ValueError
    assert str(again).startswith("beginx")
    assert str(again).endswith("xend")
    assert "characters) ..." in str(again)
    assert again.__notes__ == ["a note of the user", "Raised by rank 1 on alpha."]


def test_notes_of_the_user_stay_in_front() -> None:
    def noted() -> None:
        error = ValueError("x")
        error.add_note("mine")
        raise error

    mine, ours = thrown(caught_by(noted)).__notes__
    assert mine == "mine"
    assert ours.startswith("Raised by rank 1 on alpha:\n")
    assert "in noted" in ours


def test_notes_of_an_error_that_cannot_travel_are_told() -> None:
    error = KeyError("x" * 300_000)  # its text is that of its argument, in quotes
    error.add_note("mine")
    payload, facts = carry(error, limit=1_000)
    assert not payload
    again = caught_by(lambda: raise_carried(payload, facts, "rank 1 on alpha"))
    assert isinstance(again, RankError)
    assert "KeyError: 'xxx" in str(again)
    assert "mine" in again.__notes__[0]


def test_an_error_that_takes_no_notes_arrives() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):  # noqa: N818
        code: int

    again = thrown(Frozen(3))
    assert isinstance(again, Frozen)
    assert again.code == 3


# What is shown


def test_the_frames_around_an_error_of_a_rank_are_folded() -> None:
    payload, facts = carry(caught_by(fails))
    deep = inside(
        "def run():\n    inner()\ndef inner():\n    raise_carried(payload, facts, 'rank 1')\n",
        raise_carried=raise_carried, payload=payload, facts=facts,
    )  # fmt: skip
    error = caught_by(folded(deep))
    assert names_in(error) == ["caught_by"]
    shown = "".join(traceback.format_exception(error))
    assert shown.count("Traceback") == 1
    assert "in fails" in shown


def test_the_frames_around_an_error_on_purpose_are_folded() -> None:
    error = caught_by(folded(inside("def run():\n    raise InputError('a', 'b', 'c')\n")))
    assert names_in(error) == ["caught_by"]


def test_the_users_own_frames_stay() -> None:
    error = caught_by(folded(inside("def run():\n    call()\n", call=fails)))
    assert names_in(error) == ["caught_by", "fails"]


@pytest.mark.parametrize("line", ["{}['lost']", "int('x')", "json.loads('x')"])
def test_a_fault_of_ours_keeps_all_frames(line: str) -> None:
    error = caught_by(folded(inside(f"import json\ndef run():\n    {line}\n")))
    assert "run" in names_in(error)


def test_a_call_goes_on_as_ever() -> None:
    @folded
    def add(one: int, *, two: int) -> int:
        """Add."""
        return one + two

    assert (add(1, two=2), add.__name__, add.__doc__) == (3, "add", "Add.")
