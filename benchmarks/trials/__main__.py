"""One Spark and the trials that run on it: `python -m trials STAGE ORDER ANSWER`."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from trials import hosts, programs
from trials.kinds import KINDS as ON_CLUSTER
from trials.losses import KINDS as LOSSES
from trials.stage import Stage, StuckError, Trial
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

_KINDS = {
    **ON_CLUSTER,
    **LOSSES,
    "driver": programs.driver,
    "dynamic": programs.dynamic,
    "host": hosts.host,
}
_DYNAMIC = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.minExecutors": "1",
    "spark.dynamicAllocation.maxExecutors": "3",
    # Executors that came before the others wait for them: on slow machines for many seconds.
    "spark.dynamicAllocation.executorIdleTimeout": "10s",
    # Else as many as this are there from the first moment.
    "spark.executor.instances": "1",
}


def _start(stage: str) -> None:
    conf = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "8"}
    if stage in ("cluster", "hosts"):
        # Executors that are killed over and over are started over and over.
        conf |= {"spark.master": "local-cluster[3,1,1024]", "spark.deploy.maxExecutorRetries": "-1"}
        if stage == "hosts":
            conf["spark.python.daemon.module"] = "trials.own_host"
        init_orca_context("spark-submit", conf=conf)
    elif stage == "local":
        init_orca_context("local", cores=4, memory="1g", conf=conf)
    else:
        conf |= _DYNAMIC
        init_orca_context("standalone", cores=1, memory="1g", num_nodes=3, conf=conf)


def main() -> None:
    name, order, answer = sys.argv[1], *map(Path, sys.argv[2:])
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("zoo").setLevel(logging.INFO)
    wanted = json.loads(order.read_text())["trials"]
    _start(name)
    with tempfile.TemporaryDirectory(prefix="zoo-trials-") as folder:
        stage = Stage(OrcaContext.get_spark_session(), Path(folder))
        with answer.open("w") as file:
            for kind, seed in wanted:
                trial = Trial(kind, seed)
                begun, stuck = time.monotonic(), False
                try:
                    _KINDS[kind](stage, trial)
                except StuckError as exc:
                    trial.error, stuck = str(exc), True
                except Exception as exc:  # noqa: BLE001 - the table tells of it
                    trial.ended, trial.error = False, f"{type(exc).__name__}: {exc}"
                    traceback.print_exc()
                trial.seconds = time.monotonic() - begun
                file.write(json.dumps(trial.facts()) + "\n")
                file.flush()
                if stuck:
                    os._exit(1)
    stop_orca_context()


if __name__ == "__main__":
    main()
