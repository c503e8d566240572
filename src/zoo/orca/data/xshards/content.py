"""What is inside a shard: cut it, join it, measure it and select from it, without Spark."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from zoo.errors import ContractError, InputError

__all__ = [
    "class_name",
    "concatenate",
    "content_kind",
    "even_cuts",
    "leaves",
    "select",
    "shard_length",
    "split_nested",
    "take_rows",
]

_NESTED = "an ndarray, or lists, tuples and dicts, nested or not, with ndarrays as leaves"
# Old programs compare these texts; pandas 3 itself gives others.
_CLASS_NAMES: tuple[tuple[type, str], ...] = (
    (pd.DataFrame, "pandas.core.frame.DataFrame"),
    (pd.Series, "pandas.core.series.Series"),
    (np.ndarray, "numpy.ndarray"),
)


def class_name(shard: Any) -> str:
    """The path of a shard's class, such as `pandas.core.frame.DataFrame` or `list`.

    Example:
        >>> class_name({"x": 1})
        'dict'
    """
    for kind, name in _CLASS_NAMES:
        if isinstance(shard, kind):
            return name
    kind = type(shard)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def content_kind(shard: Any) -> str:
    """How a shard is cut into rows: `frame`, `series`, `array`, `list`, or `other` for not at all.

    Example:
        >>> content_kind([1, 2]), content_kind(np.float32(1)), content_kind({"x": 1})
        ('list', 'other', 'other')
    """
    if isinstance(shard, pd.DataFrame):
        return "frame"
    if isinstance(shard, pd.Series):
        return "series"
    if isinstance(shard, np.ndarray) and shard.ndim:
        return "array"
    return "list" if isinstance(shard, list) else "other"


def shard_length(shard: Any) -> int:
    """The length of a shard, 1 for what has none. That of a dict is the number of its keys."""
    try:
        return len(shard)
    except TypeError:
        return 1


def take_rows(shard: Any, start: int, stop: int) -> Any:
    """Rows `start` to `stop` of a frame, series, array or list."""
    if isinstance(shard, pd.DataFrame | pd.Series):
        return shard.iloc[start:stop]
    return shard[start:stop]


def select(shard: Any, key: Any) -> Any:
    """What a shard holds under a key.

    Raises:
        ContractError: Nothing can be selected from a shard of this kind.
        InputError: The shard does not have the key.
    """
    if not hasattr(shard, "__getitem__"):
        raise ContractError(
            "shards that hold something under keys",
            f"{class_name(shard)}: No selection operation available for this XShards",
            "Use transform_shard to get at what a shard holds.",
        )
    try:
        return shard[key]
    except Exception as exc:  # noqa: BLE001 - shards may be of any class of the user's
        raise InputError(
            f"a key that each shard has ({_some_keys(shard)})",
            f"{key!r}: Invalid key for this XShards",
            "Select another key.",
        ) from exc


def _some_keys(shard: Any) -> str:
    keys = shard.columns if isinstance(shard, pd.DataFrame) else getattr(shard, "keys", tuple)
    known = [repr(key) for key in itertools.islice(keys() if callable(keys) else keys, 8)]
    return ", ".join(known) or f"{class_name(shard)} of length {shard_length(shard)}"


def leaves(data: Any) -> Iterator[np.ndarray]:
    """The arrays in nested lists, tuples and dicts.

    Raises:
        ContractError: Something else is in there.
    """
    if isinstance(data, np.ndarray) and data.ndim:
        yield data
    elif isinstance(data, list | tuple):
        for part in data:
            yield from leaves(part)
    elif isinstance(data, dict):
        for part in data.values():
            yield from leaves(part)
    else:
        shown = "an array without dimensions" if isinstance(data, np.ndarray) else class_name(data)
        raise ContractError(_NESTED, shown, "Convert it with numpy.asarray, for example.")


def split_nested(data: Any, count: int) -> list[Any]:
    """Cut nested arrays along their first dimension, as `numpy.array_split` does.

    Args:
        data: An ndarray, or any nesting of lists, tuples and dicts with ndarrays as leaves.
        count: How many parts.

    Returns:
        The parts, each nested as the data.

    Raises:
        ContractError: There is something else in the data, or the arrays differ in length.
        InputError: There are fewer rows than parts.
    """
    arrays = list(leaves(data))
    lengths = sorted({len(array) for array in arrays})
    if len(lengths) != 1:
        raise ContractError(
            "arrays with the same first dimension" if arrays else _NESTED,
            f"lengths {lengths}" if arrays else f"{class_name(data)} without an array in it",
            "Cut or fill them to one length." if arrays else "Pass data.",
        )
    if lengths[0] < count:
        raise InputError(
            f"at least as many rows as the number of shards ({count})",
            f"{lengths[0]} rows",
            f"Pass num_shards={lengths[0]} or fewer." if lengths[0] else "Pass data with rows.",
        )
    parts = [np.array_split(array, count) for array in arrays]
    return [_rebuild(data, iter([cut[i] for cut in parts])) for i in range(count)]


def _rebuild(data: Any, arrays: Iterator[np.ndarray]) -> Any:
    if isinstance(data, dict):
        return {key: _rebuild(value, arrays) for key, value in data.items()}
    if isinstance(data, list):
        return [_rebuild(part, arrays) for part in data]
    if isinstance(data, tuple):
        parts = [_rebuild(part, arrays) for part in data]
        # A named tuple takes its fields one by one.
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    return next(arrays)


def even_cuts(lengths: Sequence[int], count: int) -> list[list[tuple[int, int, int]]]:
    """Spread rows evenly over parts, in order.

    Args:
        lengths: Rows of each source.
        count: How many parts; sizes differ by one at most.

    Returns:
        For each source, the pieces that it is cut into: part, first row, row after the last.

    Example:
        >>> even_cuts([3, 1], 2)
        [[(0, 0, 2), (1, 2, 3)], [(1, 0, 1)]]
    """
    total = sum(lengths)
    bounds = [total * part // count for part in range(count + 1)]
    pieces: list[list[tuple[int, int, int]]] = []
    start, part = 0, 0
    for length in lengths:
        cuts = []
        at = start
        while at < start + length:
            while bounds[part + 1] <= at:
                part += 1
            stop = min(bounds[part + 1], start + length)
            cuts.append((part, at - start, stop - start))
            at = stop
        pieces.append(cuts)
        start += length
    return pieces


def concatenate(shards: Sequence[Any]) -> Any:
    """Join shards of one kind: frames, series, arrays or lists.

    Raises:
        InputError: The kinds differ, or they cannot be joined.
    """
    kinds = {content_kind(shard) for shard in shards}
    join = _JOINS.get(next(iter(kinds))) if len(kinds) == 1 else None
    if join is None:
        names = sorted({class_name(shard) for shard in shards})
        raise InputError(
            "DataFrames, Series, arrays or lists, all of one kind",
            ", ".join(names) or "no shards",
            "Use transform_shard to make them so.",
        )
    return shards[0] if len(shards) == 1 else join(shards)


def _join_arrays(arrays: Sequence[np.ndarray]) -> np.ndarray:
    try:
        return np.concatenate(arrays)
    except ValueError as exc:
        shapes = sorted({str(array.shape[1:]) for array in arrays})
        raise InputError(
            "arrays that differ in their first dimension only",
            f"rows of the shapes {', '.join(shapes[:5])}",
            "Use transform_shard to bring them to one shape.",
        ) from exc


def _join_frames(frames: Sequence[Any]) -> Any:
    # Frames without rows say nothing of dtypes: those of an empty partition are a guess.
    filled = [frame for frame in frames if len(frame)] or [frames[0]]
    if len(filled) == 1:
        return filled[0]
    with warnings.catch_warnings():
        # pandas will keep the dtype of columns with nothing in them; today's rule is the better.
        warnings.filterwarnings("ignore", "The behavior of .* concatenation", FutureWarning)
        joined = pd.concat(filled)
    if isinstance(joined, pd.Series):
        return _with_categories(joined, filled)
    if joined.columns.is_unique:
        for label in joined.columns[joined.dtypes == np.dtype(object)]:
            parts = [frame[label] for frame in filled if label in frame]
            if all(hasattr(part, "cat") for part in parts):
                joined[label] = _with_categories(joined[label], parts)
    return joined


def _with_categories(joined: pd.Series[Any], parts: Sequence[pd.Series[Any]]) -> pd.Series[Any]:
    """As pandas joined it, but categories of one type stay categories where they have no order."""
    if joined.dtype != object or not all(hasattr(part, "cat") for part in parts):
        return joined
    kinds = {(part.cat.ordered, part.cat.categories.dtype) for part in parts}
    if len(kinds) > 1 or next(iter(kinds))[0] or sum(map(len, parts)) != len(joined):
        return joined
    return pd.Series(union_categoricals(list(parts)), index=joined.index, name=joined.name)


def _join_lists(lists: Sequence[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


_JOINS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "frame": _join_frames,
    "series": _join_frames,
    "array": _join_arrays,
    "list": _join_lists,
}
