"""Evaluation on arrays: the sums of one part of the data, and what all parts give together.

Of the framework only an `Evaluator` is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from zoo.cluster.ranks.carried import carry, raise_carried
from zoo.errors import InputError
from zoo.orca.data.tensors.flaws import Flaw, raise_flaws, raise_weightless
from zoo.orca.data.tensors.plan import TensorPlan

if TYPE_CHECKING:
    from zoo.orca.data.tensors.rows import Pieces

__all__ = ["PART_SCHEMA", "Evaluator", "SentEvaluator", "score_part", "sums_of"]

PART_SCHEMA = "sums string, flaws string, remarks string, error binary, facts string, place string"
"""What `score_part` gives back, as Spark's DDL."""


class Evaluator(Protocol):
    """A model, its loss and metrics, in a framework."""

    def run(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        """Score batches: an array for each tensor of the plan."""

    def sums(self) -> Any:
        """What to add up with other parts, for json; its first entry begins with the rows."""


@dataclass(frozen=True)
class SentEvaluator:
    """Model, loss and metrics on their way to the executors.

    Attributes:
        blob: As they are now.
        open: Of their framework: makes an evaluator of the blob, for batches of such a plan.
    """

    blob: bytes
    open: Callable[[bytes, TensorPlan], Evaluator]


def score_part(
    pieces: Pieces, evaluator: Callable[[], Evaluator], batch_size: int, place: str
) -> pa.RecordBatch:
    """Score one part of the data.

    Args:
        pieces: Its rows.
        evaluator: Makes one.
        batch_size: Rows that the model sees at once.
        place: What to call the part in an error.

    Returns:
        One row: sums, flaws, or the error that was hit.
    """
    sums, error, facts = "", b"", ""
    try:
        made = evaluator()
        made.run(_batches(pieces, batch_size))
        sums = json.dumps(made.sums())
    except Exception as exc:  # noqa: BLE001 - the process boundary: it is raised on the driver
        error, said = carry(exc)
        facts = json.dumps(said)
    flaws = json.dumps([asdict(flaw) for flaw in pieces.flaws.values()])
    remarks = json.dumps([asdict(remark) for remark in pieces.remarks.values()])
    values = [sums, flaws, remarks, error, facts, place]
    names = [part.split()[0] for part in PART_SCHEMA.split(", ")]
    return pa.RecordBatch.from_pydict({n: [v] for n, v in zip(names, values, strict=True)})


def _batches(pieces: Iterable[Sequence[Any]], batch_size: int) -> Iterator[Sequence[np.ndarray]]:
    for arrays in pieces:
        for i in range(0, len(arrays[0]), batch_size):
            yield [array[i : i + batch_size] for array in arrays]


def sums_of(parts: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The sums of all parts.

    Args:
        parts: From `score_part`.

    Raises:
        ColumnError: Cells cannot become numbers, or no row weighs anything.
        InputError: There are no rows.
        Exception: Whatever model, loss or metrics raised, as its own type.
    """
    for part in parts:
        if part["facts"]:
            raise_carried(bytes(part["error"]), json.loads(part["facts"]), part["place"])
    raise_flaws([Flaw(**flaw) for part in parts for flaw in json.loads(part["flaws"])])
    sums = [json.loads(part["sums"]) for part in parts]
    rows = int(sum(s[0][0] for s in sums))
    if not rows:
        raise InputError(
            "rows to evaluate", "data with zero rows", "Check the filters and joins before it."
        )
    raise_weightless([Flaw(**r) for part in parts for r in json.loads(part["remarks"])], rows)
    return sums
