"""What the elements of a dataset are: rows or batches, of which features and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.rank.array_batches import Batch

__all__ = ["Arrays", "Elements", "Part", "rows_of"]

Arrays = list[np.ndarray]
"""The tensors of an element or a batch, one after the other."""

Part = tuple[np.ndarray, ...] | dict[str, np.ndarray]
"""Features or targets: in order, or by the names that the dataset has for them."""


class Elements:
    """The elements of a dataset.

    Args:
        dataset: Of (features, targets) or (features, targets, weights): tensors, and tuples or
            dicts of them.

    Attributes:
        varying: Batches may have other shapes than those before them, rows apart.

    Raises:
        InputError: They are something else.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self._spec = dataset.element_spec
        self._shapes = [spec.shape for spec in _specs(self._spec)]
        self._operations = list(_operations(dataset))
        self.varying = any(
            shape.rank is None or None in shape.as_list()[1:] for shape in self._shapes
        )

    def are_batches(self, *sizes: int) -> bool:
        """Whether they are batches, with rows in front, and no single rows.

        Args:
            *sizes: Rows that a batch may have if it has a fixed number.

        Raises:
            InputError: It cannot be known.
        """
        known = all(shape.rank is not None for shape in self._shapes)
        first = {shape[0] if shape.rank else None for shape in self._shapes}
        if known:
            if any(shape.rank == 0 for shape in self._shapes):
                return False
            if len(first) > 1 and None not in first:
                return False
            if len(first) == 1 and first <= {None, *sizes}:
                return True
        # Vectors of one length may be rows, or batches of numbers: that depends on who made them.
        made = next((name for name in self._operations if "batch" in name.lower()), None)
        if made is None and not known:
            raise InputError(
                "a dataset that knows how many axes its tensors have",
                "tensors of unknown shape",
                "Give from_generator an output_signature, and use tf.ensure_shape on what "
                "py_function returns.",
            )
        return made is not None and "unbatch" not in made.lower()

    def example(self, like: Arrays | None, *, batched: bool) -> Batch:
        """Two made-up rows: of zeros, and empty texts.

        Args:
            like: Rows whose lengths are taken where the dataset tells none; 1 without them.
            batched: Elements are batches.
        """
        made = []
        for k, (spec, shape) in enumerate(
            zip(tf.nest.flatten(self._spec), self._shapes, strict=True)
        ):
            known = None if shape.rank is None else shape.as_list()[1 if batched else 0 :]
            if known is None or None in known:
                known = like[k].shape[1:] if like else [n or 1 for n in known or ()]
            text = spec.dtype == tf.string
            dtype = object if text else spec.dtype.as_numpy_dtype
            made.append(np.full((2, *known), b"" if text else 0, dtype))
        return self.batch(made)

    def batch(self, arrays: Arrays) -> Batch:
        """The batch that these arrays are."""
        features, targets, *weights = tf.nest.pack_sequence_as(self._spec, arrays)
        weight = weights[0] if weights else None
        return Batch(_part(features), _part(targets), len(arrays[0]), weight)


def rows_of(arrays: Arrays) -> int:
    """The rows of a batch.

    Raises:
        InputError: Its tensors have not one number of them.
    """
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        raise InputError(
            "as many features as targets in each batch",
            f"tensors of {' and '.join(map(str, sorted(rows)))} rows",
            "Check what the dataset was made of.",
        )
    return rows.pop()


def _part(given: Any) -> Part:
    if isinstance(given, Mapping):
        return dict(given)
    return tuple(given) if isinstance(given, tuple | list) else (given,)


def _specs(spec: Any) -> list[tf.TensorSpec]:
    """The forms of all tensors of an element."""
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise InputError(
            "a dataset of (features, targets) or (features, targets, weights)",
            f"elements {_shown(spec)}",
            "Use dataset.map(lambda row: (row['image'], row['label'])), for example.",
        )
    if any(isinstance(part, tuple | list | Mapping) for one in spec[:2] for part in _parts(one)):
        raise InputError(
            "features and targets as tensors, or as tuples or dicts of tensors",
            "tuples or dicts inside these",
            "Use dataset.map to put all tensors in one tuple, or one dict.",
        )
    found: list[Any] = tf.nest.flatten(spec)
    if odd := [one for one in found if not isinstance(one, tf.TensorSpec)]:
        raise InputError(
            "a dataset of dense tensors",
            f"{type(odd[0]).__name__.removesuffix('Spec')} among its elements",
            "Use dataset.map with tensor.to_tensor() for ragged ones, which pads them, or "
            "tf.sparse.to_dense.",
        )
    return found


def _parts(spec: Any) -> list[Any]:
    return list(spec.values()) if isinstance(spec, Mapping) else list(_part(spec))


def _shown(spec: Any) -> str:
    if isinstance(spec, Mapping):
        return f"as a dict of {', '.join(map(repr, spec))}"
    return f"of {len(spec)} parts" if isinstance(spec, tuple) else type(spec).__name__


def _operations(dataset: Any) -> Iterator[str]:
    """The names of what a dataset was made by, from the last one on."""
    while dataset is not None:
        yield type(dataset).__name__
        # Part of every dataset since TensorFlow 1.13, if no public one.
        inputs: Sequence[Any] = getattr(dataset, "_inputs", list)()
        dataset = inputs[0] if len(inputs) == 1 else None
