"""What the trials amount to: a table, and whether what is promised held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from trials.stage import Trial

__all__ = ["STAGES", "TITLES", "Claim", "claims", "failures", "table"]

TITLES = {
    "killed": "an executor killed",
    "keras": "an executor killed, Keras on TensorFlow",
    "graph": "an executor killed, a TensorFlow graph",
    "inside": "a rank killed inside all-reduce",
    "two": "two executors killed at once",
    "again": "two executors killed, 0 to 5 s apart",
    "five": "an executor killed, five times in a fit",
    "offering": "a survivor killed between its offer and the answer",
    "last state": "an executor killed while the last state is on its way",
    "large": "a state of 2 GB handed over at 50 MB/s",
    "shards": "an executor killed, its shards deleted",
    "stopped": "a rank stopped for 30 s",
    "full": "the folder of snapshots full",
    "damaged": "the newest snapshot damaged",
    "host": "a host lost with its disk, six kinds of frames",
    "driver": "the driver killed, another resumes",
    "arriving": "executors arriving",
    "dynamic": "dynamic allocation, from one to three",
}
"""What is done, by kind, in the order in which it is told of."""

STAGES = {
    "cluster": [k for k in TITLES if k not in ("host", "driver", "dynamic", "large")],
    "hosts": ["host"],
    "local": ["driver", "large"],
    "dynamic": ["dynamic"],
}
"""Which trials share a Spark."""

_HEAD = (
    "what is done", "trials", "ended", "losses", "recovery, s: median", "worst",
    "extra steps: median", "worst", "largest difference", "each row once", "left",
)  # fmt: skip
_NEAR, _SOON_S = 1e-9, 10.0


def table(trials: Sequence[Trial]) -> str:
    """One line for each kind, in Markdown."""
    lines = [_HEAD, tuple("---" for _ in _HEAD)]
    for kind, title in TITLES.items():
        found = _made(trials, kind)
        if found:
            lines.append((title, *_cells(found)))
        elif any(t.kind == kind for t in trials):
            lines.append((title, "0", *["-"] * (len(_HEAD) - 2)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(found: Sequence[Trial]) -> tuple[str, ...]:
    waits = [t.recovery_s for t in found if t.recovery_s is not None]
    extra = [t.extra_steps for t in found]
    differences = [t.difference for t in found if t.difference is not None]
    return (
        str(len(found)),
        str(sum(t.ended for t in found)),
        str(sum(t.losses for t in found)),
        f"{median(waits):.1f}" if waits else "-",
        f"{max(waits):.1f}" if waits else "-",
        f"{median(extra):g}",
        str(max(extra)),
        (f"{max(differences):.0e}" if max(differences) else "0") if differences else "-",
        str(sum(t.rows_once for t in found)),
        str(sum(len(t.left) for t in found)),
    )


@dataclass(frozen=True)
class Claim:
    """Something that is promised.

    Attributes:
        text: What.
        measured: What came out.
        holds: Whether that is it.
    """

    text: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.text} ({self.measured})"


def claims(trials: Iterable[Trial]) -> list[Claim]:
    """What is promised, of the trials that were made."""
    made = [t for t in trials if not t.skipped]
    worst = max((t.difference for t in made if t.difference is not None), default=0.0)
    found = [
        _count("every fit ends", [t.ended for t in made]),
        Claim(
            f"weights equal those of the undisturbed fit within {_NEAR:g}",
            f"at most {worst:.0e}",
            all(t.difference is not None and t.difference <= _NEAR for t in made if t.compared),
        ),
        _count(
            "each row is used once for each epoch, or the fit ends with an error that says why not",
            [t.rows_once or bool(t.told) for t in made],
        ),
        _count("no process is left", [not t.left for t in made]),
    ]
    waits = [t.recovery_s for t in _made(made, "killed") if t.recovery_s is not None]
    if waits:
        middle = median(waits)
        text = f"training goes on in under {_SOON_S:.0f} s after an executor was killed (median)"
        found.append(Claim(text, f"{middle:.1f} s", middle < _SOON_S))
    if inside := _made(made, "inside"):
        text = "killed inside all-reduce: the blow landed there"
        found.append(_count(text, ["inside" in t.notes for t in inside]))
    growth = [t.notes.get("rounds_to_grow") for t in made if t.kind in ("arriving", "dynamic")]
    # A fit that began with all executors had none to wait for, and proves nothing.
    if grown := [rounds in (1, 2) for rounds in growth if rounds != 0]:
        found.append(_count("new executors are used within two rounds", grown))
    return found


def _count(text: str, held: Sequence[bool]) -> Claim:
    return Claim(text, f"{sum(held)} of {len(held)}", all(held))


def failures(trials: Iterable[Trial]) -> list[str]:
    """Trials with another end than they should have, each with its seed."""
    return [
        f"{t.kind} {t.seed}: {t.error or 'not exact'}, difference {t.difference}, "
        f"each row once {t.rows_once}, {len(t.left)} processes left"
        for t in trials
        if not t.skipped and (not t.exact or t.left or t.error)
    ]


def _made(trials: Iterable[Trial], kind: str) -> list[Trial]:
    return [t for t in trials if t.kind == kind and not t.skipped]
