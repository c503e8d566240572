"""A `tf.data.Dataset` that was made on the driver: its rows, as arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.graph.recipe import Port, Recipe

__all__ = ["arrays_of"]

v1 = tf.compat.v1


def arrays_of(dataset: Any, recipe: Recipe) -> dict[str, list[np.ndarray]]:
    """All rows of a dataset, in memory: features under `x`, targets under `y`.

    Args:
        dataset: Of pairs (features, targets), rows or batches of them, each a tensor or several in
            the order of inputs and labels. It may be of a graph.
        recipe: Of the graph that takes them.

    Raises:
        InputError: It is endless or empty, or its elements are something else.
    """
    parts = dataset.element_spec
    if not isinstance(parts, tuple) or len(parts) != 2:
        raise InputError(
            "a dataset of pairs (features, targets)", repr(parts),
            "Map it: dataset.map(lambda row: (row['image'], row['label'])).",
        )  # fmt: skip
    groups = [part if isinstance(part, tuple | list) else (part,) for part in parts]
    for specs, ports in zip(groups, (recipe.inputs, recipe.labels), strict=True):
        if len(specs) != len(ports) or not all(isinstance(s, tf.TensorSpec) for s in specs):
            raise InputError(
                f"{len(ports)} tensors for {', '.join(p.name for p in ports)}", repr(specs),
                "Map the dataset to the tensors that the graph takes, in their order.",
            )  # fmt: skip
    batched = _has_batches(groups[0], recipe.inputs)
    variant = dataset._variant_tensor
    if tf.is_symbolic_tensor(variant):
        rows = _rows_in_graph(dataset, variant.graph, batched)
    else:
        # The caller may be inside a graph; a thread begins outside of all.
        with ThreadPoolExecutor(1) as thread:
            rows = thread.submit(_rows, dataset, batched).result()
    if not rows:
        raise InputError("a dataset with rows", "an empty one", "Check its filters.")
    arrays = [np.stack(column) for column in zip(*rows, strict=True)]
    cut = len(groups[0])
    return {"x": arrays[:cut], "y": arrays[cut:]}


def _has_batches(specs: Sequence[Any], ports: Sequence[Port]) -> bool:
    return any(
        port.shape is not None and spec.shape.rank == len(port.shape)
        for spec, port in zip(specs, ports, strict=True)
    )


def _rows(dataset: Any, batched: bool) -> list[list[np.ndarray]]:
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise InputError("a dataset that ends", "an endless one", "Leave out repeat().")
    rows = dataset.unbatch() if batched else dataset
    return [tf.nest.flatten(row) for row in rows.as_numpy_iterator()]


def _rows_in_graph(dataset: Any, graph: Any, batched: bool) -> list[list[np.ndarray]]:
    found = []
    with graph.as_default(), v1.Session(graph=graph) as sess:
        rows = dataset.unbatch() if batched else dataset
        iterator = v1.data.make_initializable_iterator(rows)
        row = tf.nest.flatten(iterator.get_next())
        sess.run([iterator.initializer, v1.tables_initializer()])
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while True:
                found.append(sess.run(row))
    return found
