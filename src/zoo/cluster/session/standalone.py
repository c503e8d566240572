"""A standalone Spark cluster of this process: one master and one worker on this machine."""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.cluster.guard import session_dir, session_guard
from zoo.cluster.session.archive import archive_options
from zoo.cluster.session.driver import environment, spark_command, write_properties
from zoo.cluster.session.properties import log_settings
from zoo.cluster.session.topology import LOOPBACK
from zoo.errors import ClusterError

__all__ = ["OwnCluster", "Room"]

START_S = 120.0
STOP_S = 5.0
# Cores decide how many executors there are. A worker only counts memory, and does not take it;
# so it gets enough to count for executors of every size.
COUNTED_MEMORY = "1024g"
_GATE = "org.apache.spark.ui.JWSFilter"
_MASTER_UP = re.compile(r"Starting Spark master at (spark://\S+)")
_WORKER_UP = re.compile(r"Successfully registered with master")


@dataclass(frozen=True)
class Room:
    """What a cluster must have room for.

    Args:
        executors: How many executors.
        cores: Task slots of each.
        local_dir: Where they keep temporary files; the session directory when None.
    """

    executors: int
    cores: int
    local_dir: str | None = None


class OwnCluster:
    """A master and a worker JVM that nothing outside this machine can reach.

    The worker offers room for exactly the executors that were asked for, each a JVM of its own.
    """

    def __init__(self, room: Room) -> None:
        self.secret = secrets.token_hex(32)
        self._folder = session_dir() / f"standalone-{secrets.token_hex(4)}"
        self._folder.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._configure(room)
        try:
            self.url = self._start_master()
            self._start_worker(room)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the worker, with its executors, and the master. Doing it again does nothing."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []

    def _configure(self, room: Room) -> None:
        self._properties = self._folder / "cluster.properties"
        settings = {
            "spark.authenticate": "true",
            "spark.authenticate.secret": self.secret,
            # What other users of this machine could reach: jobs through REST, the buttons that
            # kill, the address that retires workers, and the logs of executors. Nobody needs the
            # pages of this cluster, so they open with a key that nobody has.
            "spark.master.rest.enabled": "false",
            "spark.ui.killEnabled": "false",
            "spark.master.ui.decommission.allow.mode": "DENY",
            "spark.ui.filters": _GATE,
            f"spark.{_GATE}.param.secretKey": secrets.token_urlsafe(48),
        }
        if room.local_dir:
            settings["spark.local.dir"] = room.local_dir
        write_properties(self._properties, settings)
        log = self._folder / "log4j2.properties"
        log.write_text(log_settings("INFO", None))
        # A master and a worker do little: start fast and stay small.
        self._java_options = shlex.join(
            [
                f"-Dlog4j2.configurationFile={log.as_uri()}",
                f"-Djava.io.tmpdir={self._folder}",
                *("-XX:+PerfDisableSharedMem", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                *shlex.split(archive_options()),
            ]
        )

    def _start_master(self) -> str:
        place = ("--host", LOOPBACK, "--port", "0", "--webui-port", "0")
        return self._launch("org.apache.spark.deploy.master.Master", place, _MASTER_UP)

    def _start_worker(self, room: Room) -> None:
        arguments = (
            *("--host", LOOPBACK, "--port", "0", "--webui-port", "0"),
            *("--cores", str(room.executors * room.cores), "--memory", COUNTED_MEMORY),
            *("--work-dir", str(self._folder / "work"), self.url),
        )
        self._launch("org.apache.spark.deploy.worker.Worker", arguments, _WORKER_UP)

    def _launch(self, main: str, arguments: Sequence[str], up: re.Pattern[str]) -> str:
        log = self._folder / f"{main.rpartition('.')[2]}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [
                    *(spark_command("spark-class"), main),
                    *("--properties-file", str(self._properties), *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
                process_group=0,
            )
        self._processes.append(process)
        session_guard().add_process(process.pid)
        return _await_line(process, log, up)

    def _environment(self) -> dict[str, str]:
        inherited = environment({"SPARK_LOCAL_IP": LOOPBACK})
        options = f"{self._java_options} {inherited.get('SPARK_DAEMON_JAVA_OPTS', '')}"
        return {**inherited, "SPARK_DAEMON_JAVA_OPTS": options}


def _await_line(process: subprocess.Popen[bytes], log: Path, wanted: re.Pattern[str]) -> str:
    deadline = time.monotonic() + START_S
    while True:
        text = log.read_text(errors="replace")
        found = wanted.search(text)
        if found:
            return found[found.re.groups]
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            raise ClusterError(
                f"{log.stem} of the standalone cluster to start",
                f"no word of it in {START_S:.0f} s" if ended is None else f"its end ({ended})",
                "Its last words:\n" + "\n".join(text.splitlines()[-20:]),
            )
        time.sleep(0.05)
