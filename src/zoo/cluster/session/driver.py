"""The driver JVM: started with the right Java, kept quiet, and ended again."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import logging
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from zoo.cluster.guard import session_dir, session_guard
from zoo.cluster.session.java import find_java
from zoo.cluster.session.properties import escaped
from zoo.cluster.session.soon import import_what_is_needed
from zoo.cluster.session.surroundings import locale_for_java
from zoo.errors import ClusterError

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway

__all__ = [
    "DriverJvm",
    "configured_master",
    "environment",
    "has_own_log_settings",
    "spark_command",
    "variables",
    "write_properties",
]

_log = logging.getLogger(__name__)

START_S = 120.0
STOP_S = 10.0
# Printed by every JVM that Spark starts, whatever the log settings.
_CHATTER = re.compile(
    rb"WARNING: Using incubator modules: jdk\.incubator\.vector"
    rb"|WARNING: package sun\.security\.action not in java\.base"
)


def spark_command(script: str) -> str:
    """The path of one of Spark's own scripts, such as `spark-submit`."""
    # This file of Spark's alone: the package takes half a second to import.
    package = importlib.util.find_spec("pyspark")
    assert package is not None
    assert package.origin is not None
    finder = runpy.run_path(str(Path(package.origin).with_name("find_spark_home.py")))
    home: str = finder["_find_spark_home"]()
    return os.path.join(home, "bin", script)


def _conf_dir() -> Path:
    named = os.environ.get("SPARK_CONF_DIR")
    return Path(named) if named else Path(spark_command("spark-submit")).parents[1] / "conf"


def has_own_log_settings() -> bool:
    """Whether the user configured how Spark logs."""
    return any(_conf_dir().glob("log4j2.*"))


def configured_master() -> str | None:
    """The master that the user's Spark settings name; None when they name none."""
    arguments = os.environ.get("PYSPARK_SUBMIT_ARGS", "")
    named = re.search(r"--master[ =](\S+)", arguments)
    if named is None:
        file = _conf_dir() / "spark-defaults.conf"
        text = file.read_text() if file.exists() else ""
        named = re.search(r"^\s*spark\.master[\s=]+(\S+)", text, re.MULTILINE)
    return named and named[1]


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write Spark properties to a file that only this user can read.

    A command line can be read by everyone on the machine, and properties may hold passwords.
    """
    lines = [f"{key}={escaped(value)}\n" for key, value in properties.items()]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.writelines(lines)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a Spark script should find in its environment. What the user has set wins."""
    return {**extra, **os.environ, "JAVA_HOME": str(find_java()), **locale_for_java()}


class DriverJvm:
    """A JVM that listens to this Python process, and ends with it.

    Args:
        properties: Spark properties that must be known when the JVM starts.
        extra_environment: Variables it gets unless they are set already.
        forward: Send what it prints through Python's own streams, which notebooks show.
        on_death: Called when it ends without having been asked to.

    Attributes:
        environment: Of this process when it was started; workers in it inherit that.
    """

    def __init__(
        self,
        properties: Mapping[str, str],
        extra_environment: Mapping[str, str],
        *,
        forward: bool,
        on_death: Callable[[str], object],
    ) -> None:
        self._last_lines: collections.deque[str] = collections.deque(maxlen=30)
        self._stopping = False
        self._forward = forward
        self._on_death = on_death
        self.environment = dict(os.environ)
        contact = session_dir() / "gateway"
        contact.unlink(missing_ok=True)
        self._process = _launch(properties, extra_environment, contact, piped=forward)
        session_guard().add_process(self._process.pid)
        self._pumps = [
            threading.Thread(target=self._pump, args=pair, daemon=True, name="zoo-jvm-output")
            for pair in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr"))
            if pair[0] is not None
        ]
        for pump in self._pumps:
            pump.start()
        try:
            import_what_is_needed()
            self.gateway: JavaGateway = self._connect(contact)
        except BaseException:
            self._process.kill()
            raise
        threading.Thread(target=self._watch, daemon=True, name="zoo-jvm-watch").start()

    @property
    def pid(self) -> int:
        """The process id of the JVM."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the JVM still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the JVM, and wait for it."""
        from py4j.protocol import Py4JError

        self._stopping = True
        with contextlib.suppress(Py4JError, OSError):  # it may be gone
            self.gateway.shutdown()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pump in self._pumps:
            pump.join(1.0)

    def _connect(self, contact: Path) -> JavaGateway:
        from pyspark.java_gateway import launch_gateway

        deadline = time.monotonic() + START_S
        while not contact.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._fail_start()
            time.sleep(0.02)
        with open(contact, "rb") as file:
            port = int.from_bytes(file.read(4), "big")
            secret = file.read(int.from_bytes(file.read(4), "big")).decode()
        contact.unlink()
        # This is how spark-submit tells a Python program of the JVM that started it.
        told = {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
        with variables(told):
            return launch_gateway()

    def _fail_start(self) -> NoReturn:
        code = self._process.poll()
        self._process.kill()
        self._process.wait()
        for pump in self._pumps:
            pump.join(1.0)
        raise ClusterError(
            "the Spark driver JVM to start",
            f"no answer in {START_S:.0f} s" if code is None else f"its end with code {code}",
            "Its last words:\n" + "\n".join(self._last_lines),
        )

    def _pump(self, pipe: IO[bytes], name: str) -> None:
        for line in pipe:
            if _CHATTER.match(line):
                continue
            text = line.decode(errors="replace")
            self._last_lines.append(text.rstrip())
            with contextlib.suppress(OSError, ValueError):
                if self._forward:
                    getattr(sys, name).write(text)
                else:
                    os.write(2, line)

    def _watch(self) -> None:
        code = self._process.wait()
        if not self._stopping:
            cause = signal.Signals(-code).name if code < 0 else f"code {code}"
            self._on_death(cause)


def _launch(
    properties: Mapping[str, str], extra: Mapping[str, str], contact: Path, *, piped: bool
) -> subprocess.Popen[bytes]:
    file = session_dir() / "driver.properties"
    write_properties(file, properties)
    arguments = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell"))
    return subprocess.Popen(
        [
            spark_command("spark-submit"),
            "--properties-file",
            str(file),
            "--load-spark-defaults",
            # For a Python program that nobody submitted, spark-submit has other ideas.
            *("--name", "zoo", "--conf", "spark.ui.showConsoleProgress=false"),
            *arguments,
        ],
        # The JVM ends when this pipe does.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if piped else None,
        stderr=subprocess.PIPE,
        env={
            **environment(extra),
            "SPARK_CONNECT_MODE": "0",
            "_PYSPARK_DRIVER_CONN_INFO_PATH": str(contact),
        },
        # Ctrl-C stops the job through Python; it must not reach the JVM.
        process_group=0,
    )


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while. Who calls this holds the lock of the session."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
