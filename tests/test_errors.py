import inspect
import pickle
import sys
from pathlib import Path

import pytest

from zoo import errors

ERRORS = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
RAISED = [error for error in ERRORS if error is not errors.ZooError]
EXPLAINED = [error for error in RAISED if error is not errors.MissingExtraError]


def make(error: type[errors.ZooError]) -> errors.ZooError:
    """Give each parameter its own name as the value."""
    parameters = inspect.signature(error).parameters.values()
    return error(*(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD))


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_a_zoo_error(error: type[Exception]) -> None:
    assert issubclass(error, errors.ZooError)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (errors.InputError, [ValueError]),
        (errors.ContractError, [errors.InputError, AssertionError, ValueError]),
        (errors.ColumnError, [errors.InputError, ValueError]),
        (errors.NotYetError, [NotImplementedError]),
        (errors.MissingExtraError, [ImportError]),
        (errors.ClusterError, [RuntimeError]),
        (errors.JavaError, [errors.ClusterError]),
        (errors.SlotsError, [errors.ClusterError]),
        (errors.RankError, [errors.ClusterError]),
    ],
)
def test_errors_are_also_what_programs_catch(
    error: type[Exception], bases: list[type[Exception]]
) -> None:
    assert all(issubclass(error, base) for base in bases)


@pytest.mark.parametrize("error", ERRORS)
def test_errors_are_drawn_in_the_tree(error: type[Exception]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("error", EXPLAINED)
def test_message_says_expected_received_and_remedy(error: type[errors.ZooError]) -> None:
    message = str(error("2 ranks", "3", "Ask for fewer."))
    assert message == "Expected 2 ranks; received 3. Ask for fewer."


@pytest.mark.parametrize("error", RAISED)
def test_errors_survive_pickling_with_their_facts(error: type[errors.ZooError]) -> None:
    before = make(error)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is error
    assert str(after) == str(before)
    assert vars(after) == vars(before)


def test_load_extra_returns_the_module_itself() -> None:
    assert errors.load_extra("json.decoder", "json") is sys.modules["json.decoder"]


@pytest.mark.parametrize("name", ["absent_package", "absent_package.part"])
def test_load_extra_names_the_extra_of_a_missing_package(name: str) -> None:
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'zoo\[torch\]'") as caught:
        errors.load_extra(name, "torch")
    assert (caught.value.package, caught.value.extra) == ("absent_package", "torch")


def test_load_extra_shows_what_broke_inside_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as caught:
        errors.load_extra("broken_package", "torch")
    assert not isinstance(caught.value, errors.MissingExtraError)
