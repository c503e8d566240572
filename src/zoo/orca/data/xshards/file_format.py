"""One shard as the bytes of a file, and back. Nothing in such a file is ever run.

| shard | file |
| --- | --- |
| pandas DataFrame, Series | Parquet, with index and dtypes |
| arrays; lists, tuples and dicts of them, with numbers and text between | `.npz` without pickles |

Lists in cells of a DataFrame come back as arrays.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError

__all__ = ["decode_shard", "encode_shard"]

_LAYOUT = b"zoo.shard"
_STRUCTURE = "structure"
# Booleans, numbers, times and text; no objects, which only pickles can hold.
_PLAIN_KINDS = "biufcmMSU"
_SCALARS = (bool, int, float, str, type(None))


def encode_shard(shard: Any) -> tuple[str, bytes]:
    """Turn a shard into a file.

    Returns:
        The suffix and the content of the file.

    Raises:
        InputError: The shard holds something that only a pickle can hold.
    """
    if isinstance(shard, pd.DataFrame | pd.Series):
        return "parquet", _encode_frame(shard)
    arrays: list[np.ndarray] = []
    structure = _structure(shard, arrays)
    sink = io.BytesIO()
    text = np.frombuffer(json.dumps(structure).encode(), dtype=np.uint8)
    named: dict[str, Any] = {f"array_{i}": array for i, array in enumerate(arrays)}
    np.savez(sink, **{_STRUCTURE: text, **named})
    return "npz", sink.getvalue()


def decode_shard(suffix: str, content: bytes) -> Any:
    """Turn a file that `encode_shard` made into the shard that it was.

    Raises:
        InputError: The content is not what `encode_shard` makes.
    """
    try:
        return _decode_frame(content) if suffix == "parquet" else _decode_nested(content)
    except (
        pa.ArrowException,
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        IndexError,
        OSError,
        TypeError,
        ValueError,
    ) as exc:
        raise InputError(
            "a file that SparkXShards.save wrote",
            f"other content ({type(exc).__name__}: {exc})",
            "Save the shards again.",
        ) from exc


def _encode_frame(shard: pd.DataFrame | pd.Series[Any]) -> bytes:
    series = isinstance(shard, pd.Series)
    named = not isinstance(shard, pd.Series) or shard.name is not None
    frame: pd.DataFrame = (
        shard if isinstance(shard, pd.DataFrame) else shard.to_frame(shard.name if named else "0")
    )
    if len({type(label) for label in frame.columns}) > 1:
        raise _only_pickle(f"labels of several types ({list(frame.columns)[:8]})")
    try:
        table = pa.Table.from_pandas(frame)
        again = table.slice(0, 0).to_pandas()
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as exc:
        raise _only_pickle(f"a DataFrame that Parquet cannot hold ({exc})") from exc
    if not again.columns.equals(frame.columns) or again.index.names != frame.index.names:
        raise _only_pickle(f"labels that Parquet cannot hold ({list(frame.columns)[:8]})")
    layout = {
        "series": series,
        "named": named,
        # Objects that look like numbers to Arrow come back as such, without this.
        "objects": [i for i, dtype in enumerate(list(frame.dtypes)) if dtype == np.dtype(object)],
    }
    metadata = {**(table.schema.metadata or {}), _LAYOUT: json.dumps(layout).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return bytes(sink.getvalue())


def _decode_frame(content: bytes) -> pd.DataFrame | pd.Series[Any]:
    table = pq.read_table(pa.BufferReader(content))
    layout = json.loads(table.schema.metadata[_LAYOUT])
    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True, split_blocks=False)
    for i in layout["objects"]:
        if frame.dtypes.iloc[i] != np.dtype(object):
            frame.isetitem(i, frame.iloc[:, i].astype(object))
    if not layout["series"]:
        return frame
    series: pd.Series[Any] = frame.iloc[:, 0]
    return series if layout["named"] else series.rename(None)


def _structure(part: Any, arrays: list[np.ndarray]) -> list[Any]:
    """Describe a nesting; its arrays go to a list, and are referred to by their positions."""
    kind = type(part)
    if kind is dict:
        return ["dict", [[_key(key), _structure(value, arrays)] for key, value in part.items()]]
    if kind in (list, tuple):
        return [kind.__name__, [_structure(value, arrays) for value in part]]
    if kind in _SCALARS:
        return ["value", part]
    if kind is bytes:
        arrays.append(np.frombuffer(part, dtype=np.uint8))
        return ["bytes", len(arrays) - 1]
    if kind is np.ndarray or isinstance(part, np.generic):
        array = np.asarray(part)
        if array.dtype.kind not in _PLAIN_KINDS:
            raise _only_pickle(f"an array of {array.dtype}")
        arrays.append(array)
        return ["array" if kind is np.ndarray else "scalar", len(arrays) - 1]
    raise _only_pickle(f"{kind.__module__}.{kind.__qualname__}")


def _key(key: Any) -> list[Any]:
    if type(key) in _SCALARS:
        return ["value", key]
    if type(key) is tuple:
        return ["tuple", [_key(part) for part in key]]
    raise _only_pickle(f"a dict with a key of {type(key).__qualname__}")


def _decode_nested(content: bytes) -> Any:
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        structure = json.loads(held[_STRUCTURE].tobytes())
        return _nested(structure, held)


def _nested(structure: list[Any], held: Any) -> Any:
    kind, content = structure
    if kind == "dict":
        return {_nested(key, held): _nested(value, held) for key, value in content}
    if kind in ("list", "tuple"):
        parts = [_nested(value, held) for value in content]
        return parts if kind == "list" else tuple(parts)
    if kind == "value":
        return content
    array = held[f"array_{content}"]
    if kind == "bytes":
        return array.tobytes()
    return array if kind == "array" else array[()]


def _only_pickle(received: str) -> InputError:
    return InputError(
        "shards that are DataFrames, Series, arrays of numbers or text, or lists, tuples and "
        "dicts of them",
        received,
        "Use transform_shard to make them so, or save_pickle.",
    )
