"""What agreement between ranks costs: measured for a few, fitted, and predicted for many.

Ranks are processes of this machine. docs/scaling.md holds the figures; `--write` makes it anew.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agreement.model import LINKS
from agreement.page import PAGE
from agreement.ranks import Plan, Step, Sum, run
from agreement.report import HELD_OUT, Findings, findings
from contest import leave_on_terminate, show_machine

_SMALLEST, _SIZES = 4096, 8
_WHOLE = Plan(tuple(_SMALLEST * 4**k for k in range(_SIZES)), seconds=0.3, steps=200, rows=1024)
_QUICK = Plan((4096, 256 * 1024, 1024**2), seconds=0.02, steps=10, rows=1024)
_TITLES = {
    "sums": "sums: milliseconds",
    "ratios": "sums: ratio of the two ways",
    "sent": "bytes that a rank sends: times 2(N-1)/N S",
    "touched": "bytes that a rank of one host reads and writes, on paper",
    "fits": "fits, and their errors on sizes that they did not see",
    "held_out": "sizes that the fits did not see",
    "steps": "training steps",
    "slow_gradients": "PREDICTION for assumed networks: 100 MB, steps of 0.5 s: ms, efficiency",
    "quick_gradients": "PREDICTION for assumed networks: 1 MB, steps of 0.5 s: ms, efficiency",
    "claims": "claims",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", help="default 1 2 4 8; 1 2 with --quick")
    parser.add_argument("--quick", action="store_true", help="few sizes, seconds, not minutes")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    parser.add_argument("--write", type=Path, help="a page to write, such as docs/scaling.md")
    chosen = parser.parse_args()
    if chosen.ranks is None:
        chosen.ranks = [1, 2] if chosen.quick else [1, 2, 4, 8]
    if max(chosen.ranks) < 2 or min(chosen.ranks) < 1:
        parser.error("--ranks: 2 or more must be among them, and none below 1")
    return chosen


def page(found: Findings, facts: dict[str, Any]) -> str:
    """The page of these findings."""
    told = [f"{facts['cores']} cores", facts["system"], f"Python {facts['python']}"]
    assumed = [
        f"- {link.name}: {1e6 * link.alpha:g} µs a message, {1e9 * link.beta:g} ns a byte."
        for link in LINKS
    ]
    return PAGE.substitute(
        found.tables(),
        machine=", ".join([*told, f"load {facts['load_before']} before the run"]),
        cores=facts["cores"],
        assumptions="\n".join(assumed),
        cell="milliseconds of a sum and efficiency",
        our_beta=f"{1e9 * found.ring.constants[-1]:.2f} ns",
        touch_beta=f"{1e9 * found.memory.constants[-1]:.3f} ns",
    )


def numbers(found: Findings, facts: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """Everything, for a machine to read."""
    return {
        "machine": facts,
        "options": {"ranks": chosen.ranks, "quick": chosen.quick},
        "sums": [asdict(s) for s in found.sums],
        "steps": [asdict(s) for s in found.steps],
        "held_out_sizes": HELD_OUT,
        "fits": {"ring": found.ring.constants, "memory": found.memory.constants},
        "errors": {way: found.errors(way) for way in found.models},
        "predictions": [
            {"bytes": size, "ranks": n, "per_host": of, "link": asdict(link), "seconds": seconds}
            for size in (100e6, 1e6)
            for n, of, link, seconds in found.predictions(size)
        ],
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in found.claims()],
    }


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    facts = show_machine()
    sums: list[Sum] = []
    steps: list[Step] = []
    for ranks in sorted(set(chosen.ranks)):
        print(f"running {ranks} ranks ...", flush=True)
        more_sums, more_steps = run(ranks, _QUICK if chosen.quick else _WHOLE)
        sums += more_sums
        steps += more_steps
    found = findings(facts["cores"], sums, steps)
    for name, text in found.tables().items():
        if text:
            print(f"\n{_TITLES[name]}\n{text}")
    if chosen.json:
        chosen.json.write_text(json.dumps(numbers(found, facts, chosen), indent=1))
    if chosen.write:
        chosen.write.write_text(page(found, facts))


if __name__ == "__main__":
    main()
