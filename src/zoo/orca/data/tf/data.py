"""Shards as the data of a TensorFlow model: built on each worker from the shards it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from zoo.errors import ContractError, InputError, load_extra
from zoo.orca.data.tf.mapped_shards import mapped_shard, named_arrays
from zoo.orca.data.tf.variable import VariableArrays
from zoo.orca.data.xshards.jobs import map_shards
from zoo.orca.data.xshards.spark_xshards import SparkXShards

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Dataset", "SliceRecipe"]


@dataclass(frozen=True)
class SliceRecipe:
    """How a worker makes a `tf.data.Dataset` of its shards. Travels with any function in it.

    Args:
        functions: Applied to each element, one after the other.
    """

    functions: tuple[Callable[..., Any], ...] = ()

    def __reduce__(self) -> tuple[Callable[[bytes], SliceRecipe], tuple[bytes]]:
        # Plain pickle stores a function as its name, which a lambda or a notebook's lacks there.
        return _unpickled, (cloudpickle.dumps(self.functions),)

    def build(self, shards: Iterable[Any], element_spec: Any = None) -> tf.data.Dataset:
        """Slice the shards of a partition along their first axis, one after the other.

        Args:
            shards: Arrays, or dicts and tuples of them; lists count as arrays. Arrays of objects
                hold texts, bytes, or arrays whose shapes differ.
            element_spec: The form of an element, for a partition without shards.

        Returns:
            The elements, without batches.

        Raises:
            InputError: A shard cannot be sliced, or there is none and no `element_spec`.
            MissingExtraError: TensorFlow is not installed.
        """
        tf = load_extra("tensorflow", "tensorflow")
        datasets = [self._slices(shard) for shard in shards]
        if datasets:
            return reduce(lambda all_, one: all_.concatenate(one), datasets)
        if element_spec is None:
            raise InputError(
                "at least one shard, or the element_spec of others", "neither", "Pass element_spec."
            )
        return tf.data.Dataset.from_generator(tuple, output_signature=element_spec)

    def _slices(self, shard: Any) -> tf.data.Dataset:
        tf = load_extra("tensorflow", "tensorflow")
        template = _template(shard)
        try:
            dataset = tf.data.Dataset.from_tensor_slices(_packed(shard, template))
        except (ValueError, TypeError) as exc:
            raise InputError(
                "shards of arrays with one first dimension, alone or in dicts and tuples",
                f"{type(shard).__name__} ({exc})",
                "Make such shards with transform_shard.",
            ) from exc
        if _varies(template):
            unpack = partial(_unpacked_element, template)
            dataset = dataset.map(tf.autograph.experimental.do_not_convert(unpack))
        for function in self.functions:
            dataset = dataset.map(function)
        return dataset


class Dataset:
    """Elements that lie in shards over the cluster, and what is to be done to each.

    Nothing is computed before a worker builds its part.

    Args:
        xshards: The shards.
        recipe: How a worker makes elements of its shards.
    """

    def __init__(self, xshards: SparkXShards, recipe: SliceRecipe | None = None) -> None:
        self.xshards, self.recipe = xshards, recipe or SliceRecipe()

    @staticmethod
    def from_tensor_slices(xshards: SparkXShards) -> Dataset:
        """Slice shards, dicts or tuples of arrays, along their first axis.

        Raises:
            ContractError: These are no `SparkXShards`.
        """
        if not isinstance(xshards, SparkXShards):
            raise ContractError(
                "a SparkXShards: only datasets backed by a SparkXShards are supported",
                type(xshards).__name__,
                "Make one with XShards.partition or a reader.",
            )
        return Dataset(xshards)

    def map(self, map_func: Callable[..., Any]) -> Dataset:
        """Apply a function to each element, as `tf.data.Dataset.map` does."""
        return Dataset(self.xshards, SliceRecipe((*self.recipe.functions, map_func)))

    def build(self, shards: Iterable[Any], element_spec: Any = None) -> tf.data.Dataset:
        """Make the elements of one partition's shards; see `SliceRecipe.build`.

        To build on workers, send `recipe` there: this object holds the cluster's shards.
        """
        return self.recipe.build(shards, element_spec)

    def to_shards(self) -> SparkXShards:
        """What an estimator trains on: the elements, made once on the workers.

        Elements are (features, targets), each a tensor or a tuple of tensors, or dicts with `x`,
        `y` and more. Functions that draw at random do so once, not anew each epoch: for that, give
        `fit` a function f(config, batch_size) that returns a dataset.

        Returns:
            A dict with `x` and `y` for each shard.
        """
        recipe = self.recipe

        def make(shard: Any) -> dict[str, Any]:
            # Without functions there is nothing that needs TensorFlow.
            if not recipe.functions:
                return named_arrays(shard)
            return mapped_shard(recipe.build([shard]))

        # Not transform_shard: that would drop the shards, which are still wanted, from memory.
        return SparkXShards(map_shards(self.xshards.rdd, make))


def _unpickled(data: bytes) -> SliceRecipe:
    return SliceRecipe(cloudpickle.loads(data))


# A template has the form of a shard, with VariableArrays in the places of arrays of arrays.


def _template(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _template(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_template, value))
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        arrays = [one for one in value if isinstance(one, np.ndarray)]
        if arrays and len(arrays) == len(value):
            return VariableArrays(np.result_type(*arrays), _common_shape(arrays))
    return None


def _common_shape(arrays: list[Any]) -> tuple[int | None, ...] | None:
    if len({array.ndim for array in arrays}) > 1:
        return None
    lengths = zip(*(array.shape for array in arrays), strict=True)
    return tuple(axis[0] if len(set(axis)) == 1 else None for axis in lengths)


def _varies(template: Any) -> bool:
    if isinstance(template, dict):
        return any(map(_varies, template.values()))
    if isinstance(template, tuple):
        return any(map(_varies, template))
    return template is not None


def _packed(value: Any, template: Any) -> Any:
    if isinstance(template, dict):
        return {name: _packed(value[name], one) for name, one in template.items()}
    if isinstance(template, tuple):
        return tuple(map(_packed, value, template))
    return value if template is None else template.pack(value)


def _unpacked(value: Any, template: Any) -> Any:
    if isinstance(template, dict):
        return {name: _unpacked(value[name], one) for name, one in template.items()}
    if isinstance(template, tuple):
        return tuple(map(_unpacked, value, template))
    return value if template is None else template.unpack(*value)


def _unpacked_element(template: Any, *element: Any) -> Any:
    # A map function gets the parts of a tuple one by one, and anything else as it is.
    return _unpacked(element if isinstance(template, tuple) else element[0], template)
