"""What several files say of the package is the same in all."""

import re
import tomllib
from pathlib import Path

import zoo

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
START, VERSIONS = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("start", "versions"))


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, pattern
    return match[1]


def lower_bound(package: str) -> str:
    extras = PROJECT["optional-dependencies"]
    needs = [*PROJECT["dependencies"], *(need for extra in extras.values() for need in extra)]
    return next(found(r">=([\d.]+)", need) for need in needs if need.startswith(f"{package}>"))


def test_one_version() -> None:
    cited = found(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == zoo.__version__ == cited


def test_one_oldest_python() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    named = [found(r"([\d.]+)$", one) for one in PROJECT["classifiers"] if ":: 3." in one]
    assert oldest == min(named, key=lambda one: int(one.partition(".")[2]))
    assert found(r"^\| Python \| ([\d.]+) or newer", VERSIONS) == oldest
    assert f"Python {oldest} or newer" in START


def test_one_oldest_release_of_each_framework() -> None:
    for name in ("PySpark", "PyTorch", "TensorFlow"):
        package = {"PyTorch": "torch"}.get(name, name.lower())
        assert found(rf"^\| {name} \| ([\d.]+) or newer", VERSIONS) == lower_bound(package)


def test_pages_name_the_oldest_pyspark() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "start.md"):
        said = re.findall(r"PySpark (\d[\d.]*\d|\d)", page.read_text())
        assert said
        assert set(said) == {lower_bound("pyspark")}


def test_every_extra_is_told_of() -> None:
    extras = set(PROJECT["optional-dependencies"])
    assert set(re.findall(r"^\| `(\w+)` \|", START, re.MULTILINE)) == extras
