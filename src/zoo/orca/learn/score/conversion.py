"""Models that are converted: what was given, and whether what was made computes the same.

No framework is imported here: a model whose framework is not loaded is none.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ContractError, InputError
from zoo.orca.learn.score.predict import Outputs, Predictor

__all__ = ["GivenModel", "require_same"]


@dataclass(frozen=True)
class GivenModel:
    """A trained model and some of its rows.

    Attributes:
        model: A torch module in evaluation mode, or a Keras model.
        sample: An array for each input, with two rows or more in front.
    """

    model: Any
    sample: Sequence[np.ndarray]

    @classmethod
    def of(cls, source: Any, sample: Any, feature_cols: Any = None) -> GivenModel:
        """Recognise a model.

        Args:
            source: A torch module, a Keras model, or an estimator that has trained one.
            sample: Rows as an array or a list of one for each input; of an estimator also data
                with its feature columns.
            feature_cols: Those columns, when they are not those of its last fit.

        Raises:
            InputError: It is no such model, or there are fewer than two rows.
        """
        arrays = [sample] if isinstance(sample, np.ndarray) else sample
        if not isinstance(arrays, list | tuple) or not all(
            isinstance(a, np.ndarray) for a in arrays
        ):
            if not hasattr(source, "first_rows"):
                raise InputError(
                    "sample as an array with rows in front, or a list of one for each input",
                    type(sample).__name__, "Pass numpy arrays, or an estimator as the model.",
                )  # fmt: skip
            arrays = source.first_rows(sample, feature_cols=feature_cols)
        if not arrays or min(len(a) if a.ndim else 0 for a in arrays) < 2:  # noqa: PLR2004 - two
            raise ContractError(
                "two rows or more in sample, to compare with",
                f"shapes {[a.shape for a in arrays]}", "Pass more rows.",
            )  # fmt: skip
        model = source.get_model() if hasattr(source, "get_model") else source
        given = cls(model, [np.array(a, order="C") for a in arrays])
        if given.is_keras:
            return cls(model, _as_inputs(model, given.sample))
        if not given.is_torch:
            raise InputError(
                "one torch module or Keras model, or an estimator that has trained one",
                type(model).__name__, "Pass the model itself.",
            )  # fmt: skip
        own = model if model is not source else copy.deepcopy(model)
        return cls(own.cpu().eval(), _in_precision_of(own, given.sample))

    @property
    def is_keras(self) -> bool:
        """Whether it is a Keras model; with torch below it is a module besides."""
        keras: Any = sys.modules.get("keras")
        return keras is not None and isinstance(self.model, keras.Model)

    @property
    def keras_backend(self) -> str | None:
        """What computes a Keras model; None for others."""
        keras: Any = sys.modules.get("keras")
        return str(keras.backend.backend()) if self.is_keras else None

    @property
    def is_torch(self) -> bool:
        """Whether torch computes it."""
        torch: Any = sys.modules.get("torch")
        return torch is not None and isinstance(self.model, torch.nn.Module)

    def exportable(self) -> tuple[Any, Any]:
        """A torch module that takes an argument for each input, and which dimensions are open."""
        torch: Any = sys.modules["torch"]
        opened = tuple({0: torch.export.Dim("rows")} for _ in self.sample)
        called, model = self._called, self.model
        # Arguments that a module takes as one tuple are described as one.
        if not self.is_keras:
            taken = inspect.signature(model.forward).parameters.values()
            gathers = any(one.kind is one.VAR_POSITIONAL for one in taken)
            return model, (opened,) if gathers else opened

        class Called(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, *arrays: Any) -> Any:
                return called(arrays)

        return Called().eval(), (opened,)

    def _called(self, arrays: Sequence[Any]) -> Any:
        """The output of a Keras model, which takes several inputs as a list."""
        return self.model(list(arrays) if len(arrays) > 1 else arrays[0], training=False)

    def __call__(self, arrays: Sequence[np.ndarray]) -> Outputs:
        """Predict."""
        if self.is_keras:
            keras: Any = sys.modules["keras"]
            outputs = keras.tree.flatten(self._called(arrays))
            return [np.asarray(keras.ops.convert_to_numpy(o)) for o in outputs]
        torch: Any = sys.modules["torch"]
        with torch.no_grad():
            output = self.model(*map(torch.from_numpy, arrays))
        return [np.asarray(o) for o in _flat(output)]


def _in_precision_of(model: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Floats as the module computes in; numpy makes doubles where nobody asks for them."""
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    real = "float64" if "float64" in kinds else "float32"
    return [a.astype(real) if a.dtype.kind == "f" else a for a in arrays]


def _as_inputs(model: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays in the types of the inputs of a Keras model, which would convert them itself."""
    inputs = model.inputs or []
    if len(inputs) != len(arrays):
        raise InputError(
            f"a built Keras model, and a sample for each of its {len(inputs)} inputs",
            f"{len(arrays)} arrays", "Pass as many arrays; build the model with keras.Input.",
        )  # fmt: skip
    return [array.astype(str(port.dtype)) for port, array in zip(inputs, arrays, strict=True)]


def _flat(output: Any) -> Iterator[Any]:
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        for part in output:
            yield from _flat(part)
        return
    yield output.detach().cpu().numpy()


def require_same(
    source: GivenModel, made: Predictor, limit: float, names: tuple[str, str]
) -> float:
    """Compare two models on all rows of the sample, and on its first row alone.

    Args:
        source: What was converted.
        made: What it became.
        limit: The largest difference, as a part of the largest output (of 1 if that is smaller).
        names: Of both, for the message.

    Returns:
        The largest difference.

    Raises:
        InputError: They differ by more, or in what they return.
    """
    worst = 0.0
    for rows in (len(source.sample[0]), 1):
        arrays = [array[:rows] for array in source.sample]
        wanted = _as_list(source(arrays))
        with _told(names, rows):
            found = _as_list(made(arrays))
        worst = max(worst, _difference(wanted, found))
        if not worst <= limit:
            raise InputError(
                f"a converted model that computes what {names[0]} computes, up to {limit:g}",
                f"a difference of {worst:.3g} in {names[1]} on {rows} rows, "
                f"{_shapes(wanted)} and {_shapes(found)}",
                "No file was written. Replace the layer that differs, or pass a larger limit.",
            )
    return worst


@contextlib.contextmanager
def _told(names: tuple[str, str], rows: int) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        raise InputError(
            f"a converted model that takes {rows} rows",
            f"{type(exc).__name__} in {names[1]}: {exc}",
            "No file was written. Do not build numbers of rows into the model: x.flatten(1) "
            "instead of x.view(8, -1).",
        ) from exc


def _difference(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    if [a.shape for a in wanted] != [a.shape for a in found]:
        return float("inf")
    worst = 0.0
    for one, other in zip(wanted, found, strict=True):
        if not one.size:
            continue
        one, other = one.astype(np.float64), other.astype(np.float64)  # noqa: PLW2901 - the same
        odd = ~np.isfinite(one) | ~np.isfinite(other)
        if not np.array_equal(one[odd], other[odd], equal_nan=True):
            return float("inf")
        scale = max(1.0, float(np.abs(one[~odd]).max(initial=0.0)))
        worst = max(worst, float(np.abs(one[~odd] - other[~odd]).max(initial=0.0)) / scale)
    return worst


def _as_list(outputs: Outputs) -> list[np.ndarray]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return outputs if isinstance(outputs, list) else [outputs]


def _shapes(arrays: Sequence[np.ndarray]) -> str:
    return ", ".join(str(a.shape) for a in arrays)
