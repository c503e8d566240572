"""A graph in a session of its own: it is fed and fetched, its variables are read and set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from zoo.errors import InputError
from zoo.orca.learn.graph.recipe import Recipe

__all__ = ["Program"]

v1 = tf.compat.v1


class Program:
    """A graph that runs.

    The session ends with this object. How many threads compute inside an operation is decided by
    the first session of a process; TensorFlow has one pool of them for all.

    Args:
        recipe: Of the graph.
        threads: That compute; 0 leaves it to TensorFlow.

    Raises:
        InputError: The graph was made by another version of TensorFlow.
    """

    def __init__(self, recipe: Recipe, threads: int = 0) -> None:
        if recipe.version != tf.__version__:
            raise InputError(
                f"TensorFlow {recipe.version} where ranks run, as on the driver",
                f"TensorFlow {tf.__version__}", "Install the same version everywhere.",
            )  # fmt: skip
        self.recipe = recipe
        self._graph = tf.Graph()
        definition = v1.GraphDef.FromString(recipe.graph)
        with self._graph.as_default():
            v1.import_graph_def(definition, name="")
        config = v1.ConfigProto.FromString(recipe.session_config)
        config.allow_soft_placement = True
        config.device_count["GPU"] = 0  # else each rank would take all of its memory
        if threads:
            # A step is small: operations side by side would only wait for each other.
            config.intra_op_parallelism_threads, config.inter_op_parallelism_threads = threads, 1
        self._session = v1.Session(graph=self._graph, config=config)
        self._calls: dict[tuple[tuple[str, ...], tuple[str, ...]], Callable[..., Any]] = {}
        if recipe.setup is not None:
            self.run([recipe.setup])

    def run(self, fetches: Sequence[str], feeds: Mapping[str, Any] | None = None) -> list[Any]:
        """Run operations and tensors by name.

        Args:
            fetches: Tensors, whose values come back, and operations, for which None does.
            feeds: Arrays by the tensor that they are for, of its type.
        """
        if not fetches:
            return []
        feeds = feeds or {}
        key = (tuple(fetches), tuple(feeds))
        call = self._calls.get(key)
        if call is None:
            # A third of the time of `run` with a feed_dict, which looks at everything each time.
            options = config_pb2.CallableOptions(feed=key[1])
            options.fetch.extend(_tensors(key[0]))
            options.target.extend(name for name in key[0] if ":" not in name)
            call = self._calls[key] = self._session._make_callable_from_options(options)
        found = call(*map(np.asarray, feeds.values()))
        values = dict(zip(_tensors(key[0]), found, strict=True))
        return [values.get(name) for name in key[0]]

    def values(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Values of variables, all of them or some; they are copies.

        Args:
            names: Of the variables.
        """
        chosen = [v for v in self.recipe.variables if names is None or v.name in names]
        found = self.run([v.read for v in chosen])
        return {v.name: np.array(value) for v, value in zip(chosen, found, strict=True)}

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Give variables new values.

        Args:
            values: By name. They are copied: TensorFlow may keep memory that it is fed with.
        """
        chosen = [v for v in self.recipe.variables if v.name in values]
        feeds = {v.place: np.array(values[v.name], _dtype(v.dtype)) for v in chosen}
        self.run([v.assign for v in chosen], feeds)

    def fixed(self, what: Sequence[str], *, training: bool) -> dict[str, Any]:
        """What is fed besides features and targets.

        Args:
            what: Names in the recipe's `needs`.
            training: In training; or else.

        Raises:
            InputError: Something needs a tensor for which there is nothing.
        """
        recipe = self.recipe
        needed = frozenset().union(*(recipe.needs.get(name, frozenset()) for name in what))
        missing = sorted(needed - set(recipe.feeds))
        if missing:
            raise InputError(
                "values for all placeholders",
                f"none for {', '.join(missing)}, which {what[0]} needs",
                "Name them among inputs or labels, give them a default with "
                "tf.compat.v1.placeholder_with_default, or pass "
                "fit(feed_dict={placeholder: (value in training, value otherwise)}).",
            )
        return {name: pair[not training] for name, pair in recipe.feeds.items()}


def _tensors(names: Sequence[str]) -> list[str]:
    """Those that are tensors and no operations, each once."""
    return list(dict.fromkeys(name for name in names if ":" in name))


def _dtype(name: str) -> Any:
    """A type of numpy's, bfloat16 and its like included."""
    return tf.dtypes.as_dtype(name).as_numpy_dtype
