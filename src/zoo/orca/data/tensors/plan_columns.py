"""From the schema of a frame to the layout of its tensors, before any task starts.

How a column becomes numbers:

| column type | array of one row | dtype |
| --- | --- | --- |
| byte, short, int, long | scalar | int64 |
| float, double, decimal | scalar | the float type of the plan |
| boolean | scalar, 0 or 1 | the float type of the plan |
| date | scalar, days since 1970-01-01 | int64 |
| timestamp, with or without zone | scalar, seconds since 1970-01-01 UTC | float64 |
| array of numbers, nested or not | one shape in the whole frame | the float type of the plan |
| ML vector, dense or sparse | 1-D | the float type of the plan |
| binary | what its decoder returns | what its decoder returns |
| string, array of strings | scalar, or one shape in the whole frame | texts, where they are taken |

A decoder that says `live = True`, as an `ImagePipeline` with random steps does, is left for the
training itself: the bytes are kept, and each epoch decodes them anew, with
`decoder(data, key=...)`.

The float type is float32 unless the model is in double precision. Columns side by side make a
matrix: of int64 if all are whole, else of the float type. Whole numbers that become floats, in a
matrix or inside an array, must be exact in it, because a rounded identifier is another one.
`decoders={"ids": "int64"}` asks for another dtype for any column of numbers.

Texts are features of models that look them up themselves, as Keras on TensorFlow does. They lie
beside no numbers, and other frameworks refuse them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pyspark.sql import types as T

from zoo.errors import ColumnError, ContractError
from zoo.orca.data.tensors.plan import (
    TEXT,
    ColumnPlan,
    Columns,
    Decoder,
    TensorPlan,
    TensorSpec,
    Use,
)

__all__ = ["plan_columns", "quoted", "require_weight_column"]

_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)
_REAL = (T.FloatType, T.DoubleType, T.DecimalType, T.BooleanType)


def quoted(name: str) -> str:
    """The name of a column in a form that Spark takes as one name, whatever is in it.

    Example:
        >>> quoted("petal.length")
        '`petal.length`'
    """
    return "`" + name.replace("`", "``") + "`"


def plan_columns(  # noqa: PLR0913 - what the model takes is told one by one
    schema: T.StructType,
    feature_cols: Columns | None,
    label_cols: Columns | None,
    *,
    float_dtype: str = "float32",
    decoders: Mapping[str, Decoder] | None = None,
    assemble: bool = False,
    need_labels: bool = True,
    use: Use = "score",
    text: bool = False,
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
        use: What for. To "score", every decoder is applied as rows come. To "train" and to
            "validate", live ones are left for the batches. Random steps are for training alone:
            otherwise a decoder that has `for_evaluation()` is asked for its form without them.
        text: Columns of strings may be features.

    Raises:
        ContractError: `feature_cols` or `label_cols` is missing.
        ColumnError: A column is missing, has a namesake, or has a type that no tensor can hold.
    """
    features = _entries(feature_cols, "feature_cols")
    labels = _entries(label_cols, "label_cols") if need_labels or label_cols else []
    fields = _fields(schema, [n for entry in features + labels for n in _names(entry)])
    known = dict(decoders or {})
    if use != "train":
        known = {name: _without_chance(decoder) for name, decoder in known.items()}

    def spec(entry: str | list[str], text: bool = False) -> TensorSpec:
        columns = [_column(fields[n], float_dtype, known.get(n), use, text) for n in _names(entry)]
        if len(columns) == 1 and (isinstance(entry, str) or columns[0].shaped):
            return _alone(columns[0], _width(fields[columns[0].name]))
        widths = [
            _width(fields[n]) if c.shaped else 1
            for n, c in zip(_names(entry), columns, strict=True)
        ]
        return _matrix(columns, float_dtype, known, widths)

    planned = [spec(entry, text) for entry in features]
    numbers = not any(c.is_bytes or c.is_text for t in planned for c in t.columns)
    if assemble and len(planned) > 1 and numbers:
        names = [n for entry in features for n in _names(entry)]
        planned = [spec(names)]
    return TensorPlan(tuple(planned), tuple(spec(entry) for entry in labels))


def require_weight_column(schema: T.StructType, name: str) -> None:
    """Refuse a column whose cells cannot be the weights of rows.

    Raises:
        ColumnError: It is missing, has a namesake, or is of another type than numbers.
    """
    if not isinstance(name, str):
        raise ColumnError("sample_weight_col as a name", repr(name), "Pass sample_weight_col='w'.")
    kind = _fields(schema, [name], "sample_weight_col")[name].dataType
    if not isinstance(kind, _WHOLE + _REAL):
        raise ColumnError(
            f"numbers in the column '{name}', to weigh rows with", kind.simpleString(),
            "Name a column of numbers for sample_weight_col.",
        )  # fmt: skip


def _without_chance(decoder: Decoder) -> Decoder:
    plain: Decoder = getattr(decoder, "for_evaluation", lambda: decoder)()
    return plain


def _entries(cols: Columns | None, argument: str) -> list[str | list[str]]:
    try:
        entries: list[Any] = [cols] if isinstance(cols, str) else list(() if cols is None else cols)
    except TypeError:  # a number, or a Column, which refuses to be listed
        entries = [cols]
    if not entries:
        raise ContractError(
            f"column names ({argument} must be provided for a DataFrame)",
            repr(cols),
            f"Pass {argument}=['...'].",
        )
    entries = [list(e) if isinstance(e, list | tuple) else e for e in entries]
    if not all(_names(e) and all(isinstance(n, str) for n in _names(e)) for e in entries):
        raise ContractError(
            f"{argument} as names, or lists of names to put side by side",
            repr(entries),
            "Use the names of the columns, not Column objects or numbers.",
        )
    return entries


def _names(entry: str | list[str]) -> list[str]:
    return entry if isinstance(entry, list) else [entry]


def _fields(
    schema: T.StructType, names: Sequence[str], given: str = "feature_cols or label_cols"
) -> dict[str, T.StructField]:
    """The fields of a schema by name, all of these names among them and each once."""
    fields = {field.name: field for field in schema.fields}
    if missing := [n for n in names if n not in fields]:
        raise ColumnError(
            f"columns of the frame, which has {_shown(list(fields))}",
            ", ".join(map(repr, missing)),
            f"Correct {given}; names are case-sensitive here.",
        )
    count = Counter(schema.fieldNames())
    if twin := next((n for n in names if count[n] > 1), None):
        raise ColumnError(
            f"one column '{twin}' in the frame",
            f"{count[twin]} of that name",
            "Rename or drop the others, before or after the join that brought them.",
        )
    return fields


def _shown(names: Sequence[str]) -> str:
    rest = len(names) - 20
    return ", ".join(names[:20]) + (f" and {rest} more" if rest > 0 else "") or "none"


def _column(
    field: T.StructField, float_dtype: str, decoder: Decoder | None, use: Use, text: bool
) -> ColumnPlan:
    wanted = decoder if isinstance(decoder, str) else None
    if isinstance(field.dataType, T.BinaryType):
        if decoder is None or isinstance(decoder, str):
            raise ColumnError(
                f"a decoder for the binary column '{field.name}'",
                "none" if decoder is None else repr(decoder),
                f"Pass decoders={{'{field.name}': ImageDecoder(...)}} of zoo.orca.data.image, or a "
                "function from bytes to a numpy array.",
            )
        live = use != "score" and getattr(decoder, "live", False)
        kind = "live" if live else "bytes"
        return ColumnPlan(field.name, kind, None, decode=decoder)
    if callable(decoder):
        raise ColumnError(
            f"a binary column for the decoder of '{field.name}'",
            field.dataType.simpleString(),
            "Give a dtype name for a column of numbers, or drop its decoder.",
        )
    if text and wanted is None and (kind_of_texts := _text_kind(field.dataType)):
        return ColumnPlan(field.name, kind_of_texts, TEXT)
    kind, dtype, exact = _kind(field.dataType, float_dtype, field.name)
    if wanted is not None:
        dtype = _checked_dtype(field.name, wanted)
        return ColumnPlan(field.name, kind, dtype, exact=np.dtype(dtype).kind != "f")
    return ColumnPlan(field.name, kind, dtype, exact=exact)


def _checked_dtype(name: str, wanted: str) -> str:
    try:
        dtype = np.dtype(wanted)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise ColumnError(f"a numeric dtype for column '{name}'", repr(wanted), "Use 'int64' say.")
    return dtype.name


def _text_kind(data_type: Any) -> str | None:
    """How a column of texts is decoded; None for one of others."""
    inside = data_type
    while isinstance(inside, T.ArrayType):
        inside = inside.elementType
    if not isinstance(inside, T.StringType):
        return None
    return "scalar" if inside is data_type else "array"


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
        return (
            f"Turn '{name}' into numbers first, with preprocess=encode(index=['{name}']) of "
            "zoo.orca.learn.preprocess or pyspark.ml.feature.StringIndexer. Keras on TensorFlow "
            "takes texts as features."
        )
    if isinstance(data_type, T.StructType):
        return f"Select its fields: df.select('{name}.*')."
    if isinstance(data_type, T.MapType):
        return f"Select its values by key: df.select(df['{name}']['key'].alias('key'))."
    return f"Cast or drop '{name}' with Spark SQL."


def _width(field: T.StructField) -> int | None:
    """The size of the vectors of a column, where the stage of `pyspark.ml` that made it tells."""
    known = (field.metadata or {}).get("ml_attr", {}).get("num_attrs")
    is_vector = isinstance(field.dataType, T.UserDefinedType)
    return known if is_vector and isinstance(known, int) else None


def _alone(column: ColumnPlan, width: int | None) -> TensorSpec:
    shape = None if width is None else (width,)
    return TensorSpec((column,), column.dtype, shape if column.shaped else ())


def _matrix(
    columns: Sequence[ColumnPlan],
    float_dtype: str,
    known: Mapping[str, Decoder],
    widths: Sequence[int | None],
) -> TensorSpec:
    """Columns side by side, of one dtype: whole if all are, else floats."""
    if any(c.is_bytes for c in columns):
        raise ColumnError(
            "columns of numbers to put side by side",
            f"a binary column among {', '.join(c.name for c in columns)}",
            "Give the image its own entry in feature_cols.",
        )
    texts = [c for c in columns if c.is_text]
    if texts and len(texts) < len(columns):
        raise ColumnError(
            "columns of numbers, or columns of texts, to put side by side",
            f"both among {', '.join(c.name for c in columns)}",
            f"Give '{texts[0].name}' its own entry in feature_cols.",
        )
    if texts:
        flat = not any(c.shaped for c in columns)
        return TensorSpec(tuple(columns), TEXT, (len(columns),) if flat else None)
    whole = [c for c in columns if np.dtype(c.dtype).kind in "iub"]
    moments = [c for c in columns if c.kind == "timestamp" and c.name not in known]
    if len(whole) == len(columns):
        dtype = np.result_type(*(str(c.dtype) for c in columns))
    else:
        floats = [str(c.dtype) for c in columns if c not in whole and c not in moments]
        dtype = np.result_type(*floats or [float_dtype])
    if moments and dtype.itemsize < 8:
        raise ColumnError(
            f"timestamp column '{moments[0].name}' in double precision",
            f"a matrix of {dtype.name}, which would round it to minutes",
            "Subtract a start in Spark and cast the seconds to double, or give the column its own "
            "entry in feature_cols.",
        )
    plans = [
        replace(c, dtype=dtype.name, exact=c.exact or (c in whole and c.name not in known))
        for c in columns
    ]
    sizes = [width for width in widths if width is not None]
    shape = (sum(sizes),) if len(sizes) == len(columns) else None
    return TensorSpec(tuple(plans), dtype.name, shape)
