"""Random operations that depend on what they are fed with.

A graph has the seeds of its random operations in it, and a session goes on in their sequences: what
a step draws would hang on all that ran before it. Here each becomes the operation of the same
distribution that has no memory (`tf.random.stateless_uniform` and its like), with a seed from
outside: dropout is then the same whenever, and however often, a step is taken.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Container
from typing import Any

import tensorflow as tf

__all__ = ["quiet", "seeded"]

_log = logging.getLogger(__name__)

# The operation without memory, and what it calls the attributes that it takes over.
_STATELESS = {
    "RandomUniform": ("StatelessRandomUniform", {"dtype": "dtype", "T": "T"}),
    "RandomStandardNormal": ("StatelessRandomNormal", {"dtype": "dtype", "T": "T"}),
    "TruncatedNormal": ("StatelessTruncatedNormal", {"dtype": "dtype", "T": "T"}),
    "RandomUniformInt": ("StatelessRandomUniformInt", {"Tout": "dtype", "T": "T"}),
    "Multinomial": ("StatelessMultinomial", {"T": "T", "output_dtype": "output_dtype"}),
}
# Where the seed stands among the inputs.
_AT = {"Multinomial": 2}
_OTHERS = {"RandomShuffle", "RandomGamma", "RandomPoisson", "RandomPoissonV2"}


def seeded(definition: Any, seed: str, looped: Container[str]) -> None:
    """Change a graph so that its random operations depend on a seed, each in its own way.

    Args:
        definition: A `GraphDef`, changed in place.
        seed: The operation that gives two whole numbers (int64).
        looped: Names of operations inside loops, which cannot be reached from outside.
    """
    kept, added = [], []
    for node in definition.node:
        if node.op in _OTHERS or (node.op in _STATELESS and node.name in looped):
            kept.append(node.name)
        elif node.op in _STATELESS:
            added += _replace(node, seed)
    definition.node.extend(added)
    random = {*_STATELESS, *_OTHERS}
    for function in definition.library.function:
        kept += [node.name for node in function.node_def if node.op in random]
    if kept:
        _log.warning(
            "random operations inside loops and functions, and shuffles, go on in sequences of "
            "their own: a training that is resumed draws other numbers there than an undisturbed "
            "one. These do: %s", ", ".join(kept[:5]),
        )  # fmt: skip


def quiet(definition: Any) -> None:
    """Change a graph so that what it draws is the middle of each distribution.

    Args:
        definition: A `GraphDef` that `seeded` has changed, changed in place.
    """
    middles = {"StatelessRandomUniform": 0.5}
    middles |= {"StatelessRandomNormal": 0.0, "StatelessTruncatedNormal": 0.0}
    added = []
    for node in definition.node:
        if node.op not in middles:
            continue
        kind, index = _copy(node.attr["dtype"]), _copy(node.attr["T"])
        real = tf.dtypes.as_dtype(kind.type)
        value = tf.compat.v1.NodeDef(name=f"{node.name}/zoo_middle", op="Const")
        value.attr["dtype"].CopyFrom(kind)
        value.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(middles[node.op], real))
        inputs = [node.input[0], value.name, *(i for i in node.input if i.startswith("^"))]
        del node.input[:]
        node.input.extend(inputs)
        for attribute in list(node.attr):
            del node.attr[attribute]
        node.attr["T"].CopyFrom(kind)
        node.attr["index_type"].CopyFrom(index)
        node.op = "Fill"
        added.append(value)
    definition.node.extend(added)


def _replace(node: Any, seed: str) -> list[Any]:
    """Make an operation one without memory; gives the operations that make its seed."""
    # By name: it stays the same when the graph grows.
    number = zlib.crc32(node.name.encode())
    int64 = tf.int64.as_datatype_enum
    salt = tf.compat.v1.NodeDef(name=f"{node.name}/zoo_salt", op="Const")
    salt.attr["dtype"].type = int64
    salt.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([0, number], tf.int64))
    key = tf.compat.v1.NodeDef(name=f"{node.name}/zoo_key", op="AddV2", input=[seed, salt.name])
    key.attr["T"].type = int64
    name, attributes = _STATELESS[node.op]
    kept = {theirs: _copy(node.attr[own]) for own, theirs in attributes.items()}
    inputs = list(node.input)
    inputs.insert(_AT.get(node.op, 1), key.name)
    del node.input[:]
    node.input.extend(inputs)
    for attribute in [a for a in node.attr if a != "_class"]:
        del node.attr[attribute]
    for attribute, value in kept.items():
        node.attr[attribute].CopyFrom(value)
    node.attr["Tseed"].type = int64
    node.op = name
    return [salt, key]


def _copy(value: Any) -> Any:
    copied = tf.compat.v1.AttrValue()
    copied.CopyFrom(value)
    return copied
