"""The schema of an image dataset, and its one-line JSON form on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from zoo.errors import InputError

__all__ = ["DType", "FeatureType", "Schema", "SchemaField", "check_schema", "decode", "encode"]


class FeatureType(Enum):
    """How a column's values are stored."""

    IMAGE = 1
    """The raw bytes of an image file."""
    NDARRAY = 2
    """A compressed NumPy archive with the array under the key `arr`."""
    SCALAR = 3
    """A number, text or bytes, as it is."""


class DType(Enum):
    """The type of a column's values."""

    STRING = 1
    BYTES = 2
    INT32 = 3
    FLOAT32 = 4
    UINT8 = 5


class SchemaField(NamedTuple):
    """One column: how it is stored, and the type and shape of a value (-1: any length)."""

    feature_type: FeatureType
    dtype: DType
    shape: Sequence[int]


Schema = Mapping[str, SchemaField]
"""The columns of a dataset, in order."""

_ENUMS: dict[str, type[Enum]] = {"FeatureType": FeatureType, "DType": DType}


def check_schema(schema: Schema) -> None:
    """Refuse a schema that cannot be written.

    Raises:
        InputError: It is empty, a name cannot be a column, or a value is no `SchemaField`.
    """
    if not schema:
        raise InputError("a schema with at least one column", "an empty schema", "Name columns.")
    for name, field in schema.items():
        # Spark would read the folder names chunk=0, chunk=1, ... into a column of this name.
        if not isinstance(name, str) or not name or name.lower() == "chunk":
            raise InputError(
                "column names that are texts other than 'chunk'", repr(name), "Rename the column."
            )
        if not (
            isinstance(field, SchemaField)
            and isinstance(field.feature_type, FeatureType)
            and isinstance(field.dtype, DType)
        ):
            raise InputError(
                f"column {name!r} as SchemaField(FeatureType, DType, shape)",
                repr(field),
                "Build it with zoo.orca.data.image.SchemaField.",
            )


def encode(schema: Schema) -> str:
    """Return the schema as one line of JSON."""
    return json.dumps({name: _field_to_json(field) for name, field in schema.items()})


def _field_to_json(field: SchemaField) -> dict[str, Any]:
    return {
        "feature_type": {"__enum__": str(field.feature_type)},
        "dtype": {"__enum__": str(field.dtype)},
        "shape": [int(length) for length in field.shape],
    }


def decode(line: str) -> dict[str, SchemaField]:
    """Read a schema back from its line of JSON.

    Raises:
        InputError: The text is not such a line.
    """
    try:
        return {name: _field_from_json(field) for name, field in json.loads(line).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(
            "a dataset's schema as one line of JSON",
            f"{line[:80]!r} ({type(exc).__name__}: {exc})",
            "Point at a folder that write_parquet wrote.",
        ) from exc


def _field_from_json(field: Mapping[str, Any]) -> SchemaField:
    feature_type, dtype = _member(field["feature_type"]), _member(field["dtype"])
    if not isinstance(feature_type, FeatureType) or not isinstance(dtype, DType):
        raise ValueError(f"{feature_type} and {dtype} are in each other's place")
    return SchemaField(feature_type, dtype, tuple(int(length) for length in field["shape"]))


def _member(value: Mapping[str, str]) -> Enum:
    kind, member = value["__enum__"].split(".")
    return _ENUMS[kind][member]
