"""From the schema of a frame to the layout of its tensors, before any task starts.

How a column becomes numbers:

| column type | array of one row | dtype |
| --- | --- | --- |
| byte, short, int, long | scalar | int64 |
| float, double, decimal | scalar | the float type of the plan |
| boolean | scalar, 0 or 1 | the float type of the plan |
| date | scalar, days since 1970-01-01 | int64 |
| timestamp, with or without zone | scalar, seconds since 1970-01-01 UTC | float64 |
| array of numbers, nested or not | one fixed shape in the whole frame | the float type of the plan |
| ML vector, dense or sparse | 1-D | the float type of the plan |
| binary | what its decoder returns | what its decoder returns |

The float type is float32 unless the model is in double precision. Whole numbers inside an array
must be exact in it; `decoders={"ids": "int64"}` asks for another dtype for any column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyspark.sql import types as T

from zoo.errors import ColumnError, ContractError

__all__ = ["ColumnPlan", "Columns", "Decoder", "TensorPlan", "TensorSpec", "plan_columns"]

Decoder = Callable[[bytes], np.ndarray] | str
Columns = Sequence[str | Sequence[str]]

_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_REAL = (T.FloatType, T.DoubleType, T.DecimalType, T.BooleanType)


@dataclass(frozen=True)
class ColumnPlan:
    """How one column is decoded.

    Attributes:
        name: The column.
        kind: `scalar`, `date`, `timestamp`, `array`, `vector` or `bytes`.
        dtype: The numpy dtype it becomes; None when the decoder decides.
        decode: Turns one binary cell into an array.
        exact: Refuse whole numbers that the dtype cannot hold.
    """

    name: str
    kind: str
    dtype: str | None
    decode: Callable[[bytes], np.ndarray] | None = None
    exact: bool = False


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that the model or the loss receives.

    Attributes:
        columns: The columns it is made of, side by side.
        dtype: Its dtype; None until the first row is decoded.
        shape: The shape of one row; None until the first row is decoded.
    """

    columns: tuple[ColumnPlan, ...]
    dtype: str | None
    shape: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """The column, or the first of them and how many follow."""
        extra = len(self.columns) - 1
        return self.columns[0].name + (f" and {extra} more" if extra else "")


@dataclass(frozen=True)
class TensorPlan:
    """The tensors of a frame: what the model is called with, and what the loss compares with."""

    features: tuple[TensorSpec, ...]
    labels: tuple[TensorSpec, ...]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Features, then labels."""
        return self.features + self.labels

    @property
    def columns(self) -> list[str]:
        """Every column needed, once, in the order of first use."""
        return list(dict.fromkeys(c.name for t in self.tensors for c in t.columns))

    def resolved(self, layout: Sequence[tuple[str, tuple[int, ...]]]) -> TensorPlan:
        """The plan with the dtypes and shapes that were found in the data."""
        specs = [replace(t, dtype=d, shape=tuple(s)) for t, (d, s) in zip(self.tensors, layout, strict=True)]
        cut = len(self.features)
        return TensorPlan(tuple(specs[:cut]), tuple(specs[cut:]))


def plan_columns(
    schema: T.StructType,
    feature_cols: Columns | None,
    label_cols: Columns | None,
    *,
    float_dtype: str = "float32",
    decoders: Mapping[str, Decoder] | None = None,
    assemble: bool = False,
    need_labels: bool = True,
) -> TensorPlan:
    """Lay out the tensors of a frame.

    Args:
        schema: The frame's schema.
        feature_cols: Names; each becomes one input of the model. A list inside the list puts its
            columns side by side in one matrix.
        label_cols: The same for the targets.
        float_dtype: What floating-point columns become.
        decoders: For a column, a function from the bytes of a cell to an array, or a dtype.
        assemble: Put several flat feature columns side by side in one matrix, because the model
            takes one input.
        need_labels: False when predicting: the label columns may be absent.

    Raises:
        ContractError: `feature_cols` or `label_cols` is missing.
        ColumnError: A column is missing or has a type that no tensor can hold.
    """
    features = _groups(feature_cols, "feature_col")
    labels = _groups(label_cols, "label_cols") if need_labels or label_cols else []
    fields = {field.name: field for field in schema.fields}
    missing = [n for group in features + labels for n in group if n not in fields]
    if missing:
        raise ColumnError(
            f"columns of the frame, which has {', '.join(fields) or 'none'}",
            ", ".join(map(repr, missing)),
            "Correct feature_cols or label_cols; names are case-sensitive here.",
        )
    known = dict(decoders or {})

    def spec(group: Sequence[str]) -> TensorSpec:
        return _tensor([_column(fields[n], float_dtype, known.get(n)) for n in group], float_dtype)

    planned = [spec(g) for g in features]
    if assemble and len(planned) > 1 and all(c.kind != "bytes" for t in planned for c in t.columns):
        planned = [_tensor([c for t in planned for c in t.columns], float_dtype)]
    return TensorPlan(tuple(planned), tuple(spec(g) for g in labels))


def _groups(cols: Columns | None, argument: str) -> list[list[str]]:
    if isinstance(cols, str):
        cols = [cols]
    if not cols:
        raise ContractError(
            f"column names ({argument} must be provided for a DataFrame)",
            repr(cols),
            f"Pass {argument.removesuffix('s')}s=['...'].",
        )
    groups = [[c] if isinstance(c, str) else list(c) for c in cols]
    wrong = [c for g in groups for c in g if not isinstance(c, str)]
    if wrong or not all(groups):
        raise ContractError(
            f"{argument.removesuffix('s')}s as names, or lists of names to put side by side",
            repr(list(cols)),
            "Use the names of the columns, not Column objects or numbers.",
        )
    return groups


def _column(field: T.StructField, float_dtype: str, decoder: Decoder | None) -> ColumnPlan:
    wanted = decoder if isinstance(decoder, str) else None
    if isinstance(field.dataType, T.BinaryType):
        if decoder is None or isinstance(decoder, str):
            raise ColumnError(
                f"a decoder for the binary column '{field.name}'",
                "none" if decoder is None else repr(decoder),
                f"Pass decoders={{'{field.name}': ImageDecoder(...)}} of zoo.orca.data.image, or a "
                "function from bytes to a numpy array.",
            )
        return ColumnPlan(field.name, "bytes", None, decode=decoder)
    if callable(decoder):
        raise ColumnError(
            f"a binary column for the decoder of '{field.name}'",
            field.dataType.simpleString(),
            "Give a dtype name for a column of numbers, or drop its decoder.",
        )
    kind, dtype, exact = _kind(field.dataType, float_dtype, field.name)
    if wanted is not None:
        return ColumnPlan(field.name, kind, _checked_dtype(field.name, wanted))
    return ColumnPlan(field.name, kind, dtype, exact=exact)


def _checked_dtype(name: str, wanted: str) -> str:
    try:
        dtype = np.dtype(wanted)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "iufb":
        raise ColumnError(f"a numeric dtype for column '{name}'", repr(wanted), "Use 'int64' say.")
    return dtype.name


def _kind(data_type: Any, float_dtype: str, name: str) -> tuple[str, str, bool]:
    if isinstance(data_type, _WHOLE):
        return "scalar", "int64", False
    if isinstance(data_type, _REAL):
        return "scalar", float_dtype, False
    if isinstance(data_type, T.DateType):
        return "date", "int64", False
    if isinstance(data_type, T.TimestampType | T.TimestampNTZType):
        return "timestamp", "float64", False
    if isinstance(data_type, T.ArrayType):
        element = data_type.elementType
        while isinstance(element, T.ArrayType):
            element = element.elementType
        if isinstance(element, _WHOLE + _REAL):
            return "array", float_dtype, isinstance(element, _WHOLE)
    if isinstance(data_type, T.UserDefinedType) and data_type.typeName() == "vectorudt":
        return "vector", float_dtype, False
    raise ColumnError(
        f"column '{name}' as numbers, booleans, dates, timestamps, arrays of numbers, ML vectors "
        "or images (unsupported field)",
        data_type.simpleString(),
        _remedy(data_type, name),
    )


def _remedy(data_type: Any, name: str) -> str:
    if isinstance(data_type, T.StringType):
        return f"Turn '{name}' into numbers first, with pyspark.ml.feature.StringIndexer for example."
    if isinstance(data_type, T.StructType):
        return f"Select its fields: df.select('{name}.*')."
    if isinstance(data_type, T.MapType):
        return f"Select its values by key: df.select(df['{name}']['key'].alias('key'))."
    return f"Cast or drop '{name}' with Spark SQL."


def _tensor(columns: Sequence[ColumnPlan], float_dtype: str) -> TensorSpec:
    """One column keeps its own dtype and shape; several become a matrix of one dtype."""
    if len(columns) == 1:
        only = columns[0]
        return TensorSpec((only,), only.dtype, None if only.kind in _SHAPED else ())
    if any(c.kind == "bytes" for c in columns):
        names = ", ".join(c.name for c in columns)
        raise ColumnError(
            "columns of numbers to put side by side", f"a binary column among {names}",
            "Give the image its own entry in feature_cols.",
        )
    whole = all(np.dtype(c.dtype).kind in "iu" for c in columns)
    dtype = "int64" if whole else float_dtype
    known = all(c.kind not in _SHAPED for c in columns)
    return TensorSpec(tuple(columns), dtype, (len(columns),) if known else None)


_SHAPED = ("array", "vector", "bytes")
