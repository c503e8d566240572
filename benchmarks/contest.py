"""What benchmarks share: facts of the machine, and contenders in processes of their own."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_LONGEST_S = 3 * 3600
NOT_INSTALLED = 3
"""The status of a contender whose package is not there."""


def show_machine() -> dict[str, Any]:
    """Print and return what a reader of the figures has to know, the load before the run too."""
    facts = {
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()))
    return facts


def leave_on_terminate() -> None:
    """Let SIGTERM end this program in the ordinary way, which also ends contenders."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def add_only(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Let the user choose some of the contenders; all of them otherwise."""
    known = list(names)

    def chosen(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            wrong = ", ".join(sorted(unknown))
            raise argparse.ArgumentTypeError(f"{wrong} is none of {', '.join(known)}")
        return text.split(",")

    parser.add_argument("--only", type=chosen, default=known, help=f"some of {','.join(known)}")


def contend(module: str, name: str, order: dict[str, Any], folder: str) -> Any:
    """Run `python -m module name ORDER ANSWER` in a process group that ends with it.

    Args:
        module: A package beside this file.
        name: The contender.
        order: What it is told, as JSON.
        folder: For the files of order, answer and output.

    Returns:
        Its answer, or None when the package that it needs is not installed.
    """
    paths = {kind: Path(folder) / f"{name}.{kind}" for kind in ("order", "answer", "log")}
    paths["order"].write_text(json.dumps(order))
    # Spark's workers import from here too.
    places = [str(_HERE), str(_HERE.parent / "src"), os.getenv("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, "-m", module, name, str(paths["order"]), str(paths["answer"])]
    with paths["log"].open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(_LONGEST_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = paths["log"].read_text(errors="replace")
    if status == NOT_INSTALLED:
        print(f"  {name}: not installed ({text.strip().splitlines()[-1]})")
        return None
    if status:
        tail = "\n".join(text.splitlines()[-400:])
        raise SystemExit(f"{name} failed with status {status}:\n{tail}")
    return json.loads(paths["answer"].read_text())
