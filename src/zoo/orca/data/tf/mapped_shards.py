"""What a `Dataset` makes of a shard, as the dict of arrays that estimators train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import InputError, load_extra

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["mapped_shard", "named_arrays"]

_BATCH_ROWS = 1024
# What TensorFlow says of elements that make no batch.
_UNEVEN = ("Cannot batch tensors", "Cannot add tensor to the batch")


def mapped_shard(dataset: tf.data.Dataset) -> dict[str, Any]:
    """All elements of a dataset as arrays; see `named_arrays`.

    Args:
        dataset: Of a shard, without batches.

    Raises:
        InputError: Elements differ in shape, are no dense tensors, or have another form.
    """
    tf = load_extra("tensorflow", "tensorflow")
    specs = tf.nest.flatten(dataset.element_spec)
    if not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise _uneven("ragged or sparse tensors")
    batches = dataset.batch(_BATCH_ROWS).as_numpy_iterator()
    try:
        found = [tf.nest.flatten(batch) for batch in batches] or [_nothing(specs)]
    except tf.errors.InvalidArgumentError as exc:
        if not any(words in str(exc.message) for words in _UNEVEN):
            raise
        raise _uneven("several shapes") from exc
    try:
        arrays = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    except ValueError as exc:  # batches are even, each in its own way
        raise _uneven("several shapes") from exc
    return named_arrays(tf.nest.pack_sequence_as(dataset.element_spec, arrays))


def _nothing(specs: Sequence[tf.TensorSpec]) -> list[np.ndarray]:
    """Arrays without rows."""
    shapes = [spec.shape.as_list() if spec.shape.rank else [] for spec in specs]
    return [
        np.empty([0, *(n or 0 for n in shape)], spec.dtype.as_numpy_dtype)
        for spec, shape in zip(specs, shapes, strict=True)
    ]


def _uneven(received: str) -> InputError:
    return InputError(
        "elements of one shape after all functions of map",
        received,
        "Pad or cut them there, with tensor.to_tensor() or tf.image.resize, for example.",
    )


def named_arrays(shard: Any) -> dict[str, Any]:
    """A shard under the names that estimators know: `x` the features, `y` the targets.

    Args:
        shard: (features, targets), a dict with `x` and, if need be, `y`, or features alone.

    Raises:
        InputError: It has another form.
    """
    if isinstance(shard, Mapping) and "x" in shard:
        return {**shard, **{key: _listed(shard[key]) for key in ("x", "y") if key in shard}}
    if isinstance(shard, tuple):
        if len(shard) != 2:
            raise InputError(
                "elements (features, targets)",
                f"tuples of {len(shard)}",
                "For weights of rows, let map return {'x': ..., 'y': ..., 'weight': ...}, and pass "
                "sample_weight_col='weight'.",
            )
        return {"x": _listed(shard[0]), "y": _listed(shard[1])}
    return {"x": _listed(shard)}


def _listed(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part if isinstance(part, tuple | list) else np.asarray(part)
    if len(part) > 1:
        raise InputError(
            "features and targets in an order",
            f"a dict of {', '.join(map(repr, part))}",
            "Let map return a tuple, in the order of the model's inputs.",
        )
    return np.asarray(next(iter(part.values())))
