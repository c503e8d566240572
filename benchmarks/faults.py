"""Breaks things while a model is trained, many times, and tells what became of the training.

Each trial has a seed. docs/faults.md holds the figures; `--write` makes it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from contest import leave_on_terminate, show_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from trials.page import PAGE
from trials.report import STAGES, TITLES, claims, failures, table
from trials.stage import Trial
from trials.victims import MARK, left_of

_HERE = Path(__file__).parent
_FULL = {"killed": 30, "again": 30, "host": 12}
_USUAL = 10
_STAGE_LONGEST_S = 3 * 3600


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials",
        type=int,
        help="of each kind; default 30 of losses that users meet most, else 10",
    )
    parser.add_argument("--only", help=f"kinds, with commas between: {', '.join(TITLES)}")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of each kind")
    parser.add_argument(
        "--json", type=Path, help="a file for all trials; those that it holds are not made again"
    )
    parser.add_argument("--write", type=Path, help="a page to write, such as docs/faults.md")
    chosen = parser.parse_args()
    chosen.kinds = chosen.only.split(",") if chosen.only else list(TITLES)
    if unknown := set(chosen.kinds) - set(TITLES):
        parser.error(f"{', '.join(sorted(unknown))} is none of {', '.join(TITLES)}")
    return chosen


def run_stage(stage: str, wanted: list[tuple[str, int]]) -> Iterator[Trial]:
    """Make trials that share a Spark; a new one goes on when a trial has got stuck."""
    while wanted:
        mark = uuid.uuid4().hex
        done: list[Trial] = []
        with tempfile.TemporaryDirectory(prefix="zoo-faults-") as folder:
            for line in _program(stage, wanted, Path(folder), mark):
                done.append(Trial(**json.loads(line)))
                yield done[-1]
        left = left_of(mark)
        if done:
            done[-1].left += left
        if len(done) < len(wanted):
            missing = wanted[len(done)]
            if not done or done[-1].ended:
                yield Trial(*missing, error="the program ended before it")
                wanted = wanted[1:]
        wanted = wanted[len(done) :]


def _program(stage: str, wanted: list[tuple[str, int]], folder: Path, mark: str) -> Iterator[str]:
    """Run a stage in a process of its own; the lines that it writes, as they come."""
    order, answer, log = (folder / name for name in ("order", "answer", "log"))
    order.write_text(json.dumps({"trials": wanted}))
    answer.touch()
    places = [str(_HERE), str(_HERE.parent / "src"), os.getenv("PYTHONPATH")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        MARK: mark,
        "TMPDIR": str(folder),
    }
    with log.open("wb") as output, answer.open() as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "trials", stage, str(order), str(answer)],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            yield from _lines(told, process)
        finally:
            process.kill()
            status = process.wait()
            _unmount_below(folder)
    if status:
        print("\n".join(log.read_text(errors="replace").splitlines()[-100:]), file=sys.stderr)


def _lines(told: TextIO, process: subprocess.Popen[bytes]) -> Iterator[str]:
    deadline, line = time.monotonic() + _STAGE_LONGEST_S, ""
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        while part := told.readline():
            line += part
            if line.endswith("\n"):
                yield line
                line = ""
        if ended:
            return
        time.sleep(0.5)


def _unmount_below(folder: Path) -> None:
    """Let go of a small file system that a killed program has left."""
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        if (place := line.split()[1]).startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)


def page(trials: list[Trial], facts: dict[str, Any]) -> str:
    """The page of these trials."""
    told = [f"{facts['cores']} cores", facts["system"], f"Python {facts['python']}"]
    held = [str(claim) for claim in claims(trials)]
    places = Counter(t.notes["inside"] for t in trials if "inside" in t.notes)
    inside = sum(1 for t in trials if t.kind == "inside")
    where = ", ".join(f"`{name}` {count}" for name, count in places.most_common())
    return PAGE.substitute(
        machine=", ".join([*told, f"load {facts['load_before']} before the run"]),
        claims="\n".join(f"- {line[0].upper()}{line[1:]}." for line in held),
        table=table(trials),
        rows="1,200 to 3,000",
        inside=f"It landed there in {places.total()} of {inside}: {where}." if inside else "",
    )


def as_json(facts: dict[str, Any], trials: list[Trial]) -> str:
    """All numbers, a line for each trial."""
    lines = ",\n".join(json.dumps(trial.facts()) for trial in trials)
    return f'{{"machine": {json.dumps(facts)},\n"trials": [\n{lines}\n]}}\n'


def before(file: Path | None) -> list[Trial]:
    """What an earlier run, which may have been stopped, has written."""
    if file is None or not file.exists():
        return []
    return [Trial(**facts) for facts in json.loads(file.read_text())["trials"]]


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    facts = show_machine()
    trials = before(chosen.json)
    made = {(trial.kind, trial.seed) for trial in trials}
    for stage, kinds in STAGES.items():
        wanted = [
            (kind, chosen.seed + k)
            for kind in kinds
            if kind in chosen.kinds
            for k in range(chosen.trials or _FULL.get(kind, _USUAL))
            if (kind, chosen.seed + k) not in made
        ]
        for trial in run_stage(stage, wanted):
            trials.append(trial)
            said = trial.skipped or trial.error or trial.notes
            print(f"  {trial.kind} {trial.seed}: {trial.seconds:.0f} s, {said}", flush=True)
            if chosen.json:
                chosen.json.write_text(as_json(facts, trials))
    print(f"\n{table(trials)}\n")
    print("\n".join(map(str, claims(trials))))
    bad = failures(trials)
    if chosen.write:
        chosen.write.write_text(page(trials, facts))
    if bad:
        raise SystemExit("\n".join(bad))


if __name__ == "__main__":
    main()
