"""What hangs on what in a graph: placeholders that are needed, variables that are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from zoo.errors import InputError

__all__ = ["ancestors", "needed_placeholders", "require_portable", "written"]

_READS = {
    "ReadVariableOp",
    "ResourceGather",
    "ResourceGatherNd",
    "VarIsInitializedOp",
    "VariableShape",
}
# What gives the variable on that it gets: a branch or a loop has it from there.
_PASSES = ("Identity", "Enter", "Switch", "Merge", "Exit", "NextIteration")
_PASSING = {*_PASSES, *(f"Ref{name}" for name in _PASSES)}
_WRITES = (
    *("Assign", "Apply", "SparseApply", "CountUpTo", "StridedSliceAssign"),
    *("ResourceScatter", "ResourceApply", "ResourceSparseApply", "ResourceCountUpTo"),
    *("ResourceStridedSliceAssign", "RngSkip", "RngReadAndSkip", "Stateful"),
    *("ScatterAdd", "ScatterSub", "ScatterUpdate", "ScatterMul", "ScatterDiv", "ScatterM"),
)
_OF_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def ancestors(targets: Iterable[Any], fed: Iterable[Any] = ()) -> dict[str, Any]:
    """Operations that run when targets are asked for, by name.

    Args:
        targets: Tensors and operations.
        fed: Tensors with values from outside, behind which nothing runs.
    """
    fed = list(fed)
    stop, fed_ops = {tensor.name for tensor in fed}, {tensor.op.name for tensor in fed}
    waiting = [t for t in targets if getattr(t, "name", None) not in stop]
    found: dict[str, Any] = {}
    while waiting:
        element = waiting.pop()
        op = getattr(element, "op", element)
        if op.name in found:
            continue
        found[op.name] = op
        waiting += [t for t in op.inputs if t.name not in stop]
        waiting += [o for o in op.control_inputs if o.name not in fed_ops]
    return found


def needed_placeholders(ops: Mapping[str, Any]) -> frozenset[str]:
    """Tensors of placeholders without a default among these operations."""
    return frozenset(
        op.outputs[0].name
        for op in ops.values()
        if op.type in ("Placeholder", "PlaceholderV2") and op.outputs
    )


def require_portable(ops: Mapping[str, Any]) -> None:
    """Refuse operations that exist in this process only.

    Raises:
        InputError: There is one.
    """
    for name, op in ops.items():
        if op.type in _OF_PYTHON:
            raise InputError(
                "a graph of TensorFlow's own operations, which can travel to the ranks",
                f"{name!r}, a function of Python (py_func)",
                "Write it with operations of TensorFlow, or prepare the columns before.",
            )


def written(variable: Any, ops: Mapping[str, Any]) -> bool:
    """Whether one of these operations writes a variable.

    Args:
        variable: Of TensorFlow, of either kind.
        ops: From `ancestors`.
    """
    waiting, seen = [_handle(variable)], set[str]()
    while waiting:
        tensor = waiting.pop()
        for op in tensor.consumers():
            if op.name in seen or op.name not in ops:
                continue
            seen.add(op.name)
            if op.type in _PASSING:
                waiting += [t for t in op.outputs if _is_variable(t)]
            elif _writes(op, is_reference=tensor.dtype._is_ref_dtype):
                return True
    return False


def _handle(variable: Any) -> Any:
    handle = getattr(variable, "handle", None)
    return variable._variable if handle is None else handle


def _is_variable(tensor: Any) -> bool:
    return bool(tensor.dtype._is_ref_dtype) or tensor.dtype == tf.resource


def _writes(op: Any, *, is_reference: bool) -> bool:
    if op.type.startswith(_WRITES):
        return True
    functions = _functions(op)
    if functions:
        return any(_body_writes(op.graph, name) for name in functions)
    # What takes the handle of a variable and is not known for reading may write; an operation that
    # takes a reference gets its value.
    return not is_reference and op.type not in _READS


def _functions(op: Any) -> list[str]:
    """Names of functions that an operation calls: a branch, the body of a loop."""
    found = []
    for value in op.node_def.attr.values():
        found += [value.func.name] if value.HasField("func") else []
        found += [f.name for f in value.list.func]
    return [name for name in found if name]


def _body_writes(graph: Any, name: str, seen: frozenset[str] = frozenset()) -> bool:
    if name in seen:
        return False
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    body = library.get(name)
    for node in () if body is None else body.node_def:
        if node.op.startswith(_WRITES):
            return True
        inner = [v.func.name for v in node.attr.values() if v.HasField("func")]
        if any(_body_writes(graph, n, seen | {name}) for n in inner):
            return True
    return False
