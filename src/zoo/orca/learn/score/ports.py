"""What a model file takes and gives: its inputs by name, and arrays made to fit them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import InputError, NotYetError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.score.predict import Kinds, Outputs, kinds_of

__all__ = ["OpenModel", "Port", "Run", "numpy_dtype"]

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""A runtime: an array for each input in, one for each output out."""


@dataclass(frozen=True)
class Port:
    """An input of a model.

    Attributes:
        name: In the file.
        dtype: Of its numbers, in numpy's words.
        shape: Rows in front; None for a dimension that is open.
        within: The type of fewer bits in which the runtime computes whole numbers, if it does.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    within: str | None = None

    def __str__(self) -> str:
        shown = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"'{self.name}' ({self.dtype} of shape ({shown}))"

    def takes(self, dtype: str | None, shape: tuple[int, ...] | None) -> bool:
        """Whether rows of this type and shape go in; None for what is not known yet."""
        mine = np.dtype(self.dtype)
        if dtype is not None and np.dtype(dtype).kind == "f" and mine.kind in "iu":
            return False
        if shape is None:
            return True
        wanted = self.shape[1:]
        if wanted in ((1,), (None,)) and shape == ():  # one number is a row of one
            return True
        sizes = zip(shape, wanted, strict=False)
        return len(shape) == len(wanted) and all(w in (None, s) for s, w in sizes)

    def fitted(self, array: np.ndarray) -> np.ndarray:
        """The array in the type of the input, in C order; numbers stay what they are.

        Raises:
            InputError: It has another shape, or holds numbers that the type cannot.
        """
        if array.dtype.kind not in "iufb" or not self.takes(array.dtype.name, array.shape[1:]):
            raise InputError(
                f"rows for the input {self}",
                f"{array.dtype} of shape {array.shape}",
                "Give as many columns, or arrays of the shape, that this input takes.",
            )
        if array.ndim < len(self.shape):
            array = array.reshape(len(array), 1)
        wanted = np.dtype(self.dtype)
        if array.dtype == wanted and self.within is None:
            return np.ascontiguousarray(array)
        with np.errstate(all="ignore"):
            out = array.astype(wanted, order="C")
            if array.dtype.kind == "f" and wanted.kind == "f":
                lost = np.isinf(out) & np.isfinite(array)
            else:
                lost = (out.astype(array.dtype) != array) | ((out < 0) != (array < 0))
        if self.within is not None:
            bounds = np.iinfo(self.within)
            lost |= (out < bounds.min) | (out > bounds.max)
        if lost.any():
            raise InputError(
                f"numbers that {self.within or self.dtype} holds, for the input '{self.name}'",
                f"{array[lost][0]} of type {array.dtype}",
                "Scale them, or convert the model with an input of a wider type.",
            )
        return out


class OpenModel:
    """A model file that is open: arrays of the inputs in, arrays of the outputs out.

    A file that was made for a fixed number of rows gets this number, whatever comes: the rows that
    lack are copies of the last, and what they give is cut off. Nothing is kept between calls, so
    any number of threads may call.

    Args:
        inputs: In the order of the file.
        run: Called with arrays that fit them.

    Attributes:
        inputs: In the order of the file.

    Raises:
        InputError: An input has no dimension for rows, or inputs are made for unequal numbers.
    """

    def __init__(self, inputs: Sequence[Port], run: Run) -> None:
        self.inputs, self._run = tuple(inputs), run
        if not inputs or any(not port.shape for port in inputs):
            shown = ", ".join(map(str, inputs)) or "none"
            raise InputError(
                "a model whose inputs have rows in front", shown,
                "Export it with a first dimension for the rows of a batch.",
            )  # fmt: skip
        batches = {port.shape[0] for port in inputs} - {None}
        if len(batches) > 1 or 0 in batches:
            raise InputError(
                "a model whose inputs take the same number of rows",
                ", ".join(map(str, inputs)),
                "Export it with an open first dimension of all inputs.",
            )
        self._batch = batches.pop() if batches else None

    def whole_calls(self, rows: int) -> int:
        """So many rows, or the next number of them that needs no filling up."""
        return rows if self._batch is None else -(-rows // self._batch) * self._batch

    @property
    def float_dtype(self) -> str:
        """What floating-point columns become."""
        return "float64" if any(p.dtype == "float64" for p in self.inputs) else "float32"

    def __call__(self, arrays: Sequence[np.ndarray]) -> Outputs:
        """Predict.

        Args:
            arrays: One for each input, in the order of the file, with rows in front.

        Raises:
            InputError: One does not fit its input.
        """
        self._require_count([repr(f"array {k}") for k in range(len(arrays))])
        fitted = [port.fitted(array) for port, array in zip(self.inputs, arrays, strict=True)]
        rows = {len(array) for array in fitted}
        if len(rows) > 1:
            raise InputError(
                "arrays of one length for the inputs", f"lengths {sorted(rows)}", "Cut them alike."
            )
        outputs = self._outputs(fitted, rows.pop())
        return outputs[0] if len(outputs) == 1 else outputs

    def _outputs(self, arrays: Sequence[np.ndarray], rows: int) -> list[np.ndarray]:
        if not rows:  # runtimes need a row to tell what they would give
            made = [np.zeros((1, *array.shape[1:]), array.dtype) for array in arrays]
            return [output[:0] for output in self._outputs(made, 1)]
        if self._batch is None:
            return self._checked(arrays, rows)
        size = self._batch
        parts = [self._padded([a[i : i + size] for a in arrays]) for i in range(0, rows, size)]
        return [np.concatenate(same) for same in zip(*parts, strict=True)]

    def _padded(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        rows, size = len(arrays[0]), self._batch
        assert size is not None
        if rows < size:
            last = [np.repeat(a[-1:], size - rows, axis=0) for a in arrays]
            arrays = [np.concatenate(pair) for pair in zip(arrays, last, strict=True)]
        return [output[:rows] for output in self._checked(arrays, size)]

    def _checked(self, arrays: Sequence[np.ndarray], rows: int) -> list[np.ndarray]:
        outputs = list(self._run(arrays))
        if any(output.shape[:1] != (rows,) for output in outputs):
            raise InputError(
                "a model that returns one output for each row",
                f"outputs of shapes {[output.shape for output in outputs]} for {rows} rows",
                "Keep the first dimension, or export the model with an open one.",
            )
        return outputs

    def as_taken(self, plan: TensorPlan) -> TensorPlan:
        """The layout, when its tensors are those that the model takes.

        Raises:
            InputError: There are more or fewer of them, or one is of another kind.
        """
        self._require_count([repr(spec.name) for spec in plan.features])
        for port, spec in zip(self.inputs, plan.features, strict=True):
            if not port.takes(spec.dtype, spec.shape):
                shape = "" if spec.shape is None else f" of shape {spec.shape} for a row"
                raise InputError(
                    f"rows for the input {port}", f"'{spec.name}' ({spec.dtype}{shape})",
                    "Give as many columns, or arrays of the shape, that this input takes.",
                )  # fmt: skip
        return plan

    def _require_count(self, given: Sequence[str]) -> None:
        if len(given) == len(self.inputs):
            return
        missing = ", ".join(f"'{port.name}'" for port in self.inputs[len(given) :])
        raise InputError(
            f"one column or array for each input: {', '.join(map(str, self.inputs))}",
            f"{len(given)} ({', '.join(given)})" + (f", none for {missing}" if missing else ""),
            "Name them in the order of the inputs; a list inside feature_cols is one input.",
        )

    def kinds(self) -> Kinds | None:
        """What the outputs of a row are; None where inputs are open in more than the rows."""
        if any(None in port.shape[1:] for port in self.inputs):
            return None
        made = [np.zeros((1, *map(int, p.shape[1:])), p.dtype) for p in self.inputs]  # type: ignore[arg-type]
        return kinds_of(self(made))


def numpy_dtype(kind: str, known: dict[str, str], port: str) -> str:
    """The numbers of an input or output, in numpy's words.

    Args:
        kind: In the words of the runtime.
        known: Those that are known.
        port: What it is, for the message.

    Raises:
        NotYetError: It holds no numbers that numpy has.
    """
    if kind not in known:
        raise NotYetError(
            f"tensors of {', '.join(known.values())} as inputs and outputs of a model",
            f"{port} of type {kind}",
            "Convert it inside the model; of scikit-learn's classifiers, export zipmap=False.",
        )
    return known[kind]
