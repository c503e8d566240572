"""Find a Java that Spark can run on."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import JavaError

__all__ = ["MINIMUM_VERSION", "find_java"]

_log = logging.getLogger(__name__)

MINIMUM_VERSION = 17
# Spark starts the JVM with `--add-modules` of this one; cut-down JDKs lack it.
REQUIRED_MODULE = "jdk.incubator.vector"
_USUAL_PLACES = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/opt/jdk*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
)


@dataclass(frozen=True)
class _Java:
    home: Path
    version: int
    modules: frozenset[str]

    @property
    def flaw(self) -> str | None:
        """Why Spark cannot run on it; None when it can."""
        if self.version < MINIMUM_VERSION:
            return f"{self.home} is Java {self.version}"
        if self.modules and REQUIRED_MODULE not in self.modules:
            return f"{self.home} lacks the module {REQUIRED_MODULE}"
        return None


def find_java() -> Path:
    """The home of a Java that is new enough.

    `JAVA_HOME` comes first, then `java` on the PATH, then the usual places, where the oldest
    version that will do is taken: it is the one that Spark was tested with longest.

    Raises:
        JavaError: None was found.
    """
    flaws = []
    for home in _candidates():
        java = _inspect(home)
        flaw = f"{home} holds no Java that starts" if java is None else java.flaw
        if flaw is None:
            return home
        _log.info("Passing over Java: %s.", flaw)
        flaws.append(flaw)
    raise JavaError(
        f"Java {MINIMUM_VERSION} or newer",
        "; ".join(flaws) or "none in JAVA_HOME, on the PATH or in the usual places",
        "Type: sudo apt-get install -y openjdk-17-jre-headless (Debian, Ubuntu); or set JAVA_HOME "
        "to the folder of a newer one.",
    )


def _candidates() -> Iterator[Path]:
    if os.environ.get("JAVA_HOME"):
        yield Path(os.environ["JAVA_HOME"])
    on_path = shutil.which("java")
    # On macOS, /usr/bin/java is only a stub that may ask to install one.
    if on_path is not None and not (sys.platform == "darwin" and on_path == "/usr/bin/java"):
        yield Path(on_path).resolve().parent.parent
    homes = {home.resolve() for place in _USUAL_PLACES for home in Path("/").glob(place[1:])}
    found = [java for java in map(_inspect, sorted(homes)) if java is not None]
    yield from (java.home for java in sorted(found, key=lambda java: java.version))


def _inspect(home: Path) -> _Java | None:
    if not os.access(home / "bin" / "java", os.X_OK):
        return None
    try:
        facts = (home / "release").read_text()
    except OSError:
        facts = ""
    version = _major(_fact(facts, "JAVA_VERSION") or _asked_version(home))
    if version is None:
        return None
    return _Java(home, version, frozenset((_fact(facts, "MODULES") or "").split()))


def _fact(facts: str, name: str) -> str | None:
    match = re.search(rf'^{name}="?([^"\n]*)', facts, re.MULTILINE)
    return match and match[1]


def _asked_version(home: Path) -> str:
    try:
        answer = subprocess.run(
            [home / "bin" / "java", "-version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r'version "([^"]+)"', answer.stderr)
    return match[1] if match else ""


def _major(version: str) -> int | None:
    # Up to 8 the text is "1.8.0_392", from 9 on "17.0.15" or "21-ea".
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match[1]) if match else None
