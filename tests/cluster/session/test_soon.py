"""Noted modules are imported once, and one that cannot be is told of where it is used."""

import sys
from pathlib import Path

import pytest

from zoo.cluster.session import soon
from zoo.cluster.session.soon import import_what_is_needed, needed_soon


def test_what_was_noted_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soon, "_names", {})  # what other tests have noted takes seconds
    (tmp_path / "needed_one.py").write_text("")
    (tmp_path / "needed_broken.py").write_text("raise OSError('no')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("needed_one", "needed_broken", "needed_nowhere"):
        needed_soon(name)
        assert name not in sys.modules
    import_what_is_needed()
    assert "needed_one" in sys.modules
    monkeypatch.delitem(sys.modules, "needed_one")
    import_what_is_needed()
    assert "needed_one" not in sys.modules
