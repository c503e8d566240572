from pathlib import Path

import pytest

from zoo.cluster.session import java
from zoo.cluster.session.java import find_java
from zoo.errors import JavaError

MODULES = "java.base jdk.incubator.vector"


def make_java(
    home: Path, version: str, *, modules: str | None = MODULES, release: bool = True
) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    if release:
        facts = [f'JAVA_VERSION="{version}"', f'MODULES="{modules}"' if modules else ""]
        (home / "release").write_text("\n".join(facts))
    return home


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(java, "_USUAL_PLACES", (f"{tmp_path}/jvm/*",))


def test_java_home_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = make_java(tmp_path / "home", "21.0.1")
    make_java(tmp_path / "jvm" / "17", "17.0.15")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java() == home


def test_old_java_home_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(make_java(tmp_path / "home", "1.8.0_392")))
    on_path = make_java(tmp_path / "path", "17.0.1")
    monkeypatch.setenv("PATH", str(on_path / "bin"))
    assert find_java() == on_path


def test_link_on_the_path_leads_to_its_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = make_java(tmp_path / "home", "17")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert find_java() == home


def test_usual_places_give_the_oldest_that_will_do(tmp_path: Path) -> None:
    for version in ("25.0.3", "11.0.2", "17.0.15", "21"):
        make_java(tmp_path / "jvm" / version, version)
    assert find_java() == tmp_path / "jvm" / "17.0.15"


def test_java_without_a_release_file_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/bin:/usr/bin")  # the fake java is a shell script
    monkeypatch.setattr("shutil.which", lambda _: None)
    home = make_java(tmp_path / "jvm" / "x", "17.0.9", release=False)
    assert find_java() == home


def test_java_without_the_vector_module_is_passed_over(tmp_path: Path) -> None:
    make_java(tmp_path / "jvm" / "small", "17.0.1", modules="java.base")
    with pytest.raises(JavaError, match=r"lacks the module jdk\.incubator\.vector"):
        find_java()


def test_without_java_the_error_tells_what_to_type() -> None:
    with pytest.raises(JavaError, match="sudo apt-get install -y openjdk-17-jre-headless"):
        find_java()
