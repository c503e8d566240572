"""Code of the user's program travels as it is, not by the name of its module."""

import importlib
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest

from zoo.cluster.ranks.carried import pickled

OTHER_PROCESS = """
import pickle, sys
made = pickle.load(sys.stdin.buffer)
print(made(), made.__module__ in sys.modules)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module beside the program, edited after it was imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "a_module_of_the_program.py"
    file.write_text("def answer():\n    return 'old'\n")
    module = importlib.import_module(file.stem)
    file.write_text("NEW = 'new'\n\n\ndef answer():\n    return NEW\n")
    return importlib.reload(module)


def test_a_module_that_was_edited_travels_as_it_is_now(program: ModuleType) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS)],
        input=pickled(program.answer, "a function"),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode() == "new False\n"


def test_code_that_cannot_travel_goes_by_its_name_and_that_is_said(
    program: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    vars(program)["NEW"] = threading.Lock()
    assert pickle.loads(pickled(program.answer, "a function")) is program.answer
    assert "may be older there" in caplog.text


def test_what_is_installed_travels_by_its_name(program: ModuleType) -> None:
    for value in (textwrap.dedent, pytest.raises, pickled):
        assert len(pickled(value, "a function")) < 100


def test_modules_are_registered_only_meanwhile(program: ModuleType) -> None:
    before = cloudpickle.list_registry_pickle_by_value()
    pickled(program.answer, "a function")
    assert cloudpickle.list_registry_pickle_by_value() == before
    cloudpickle.register_pickle_by_value(program)
    try:
        pickled(program.answer, "a function")
        assert program.__name__ in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(program)
