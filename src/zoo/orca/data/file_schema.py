"""The schema that files give a Spark DataFrame, without classes that the files name.

Spark writes its types into the metadata of Parquet files, with the Python class of each
user-defined one. PySpark imports that module when it reads such a schema, and some versions
unpickle the class from the file. So the text of the schema is looked at before PySpark sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame

from zoo.errors import InputError

__all__ = ["without_foreign_classes"]

# The types of ML vectors: PySpark's own, which import nothing new.
_KNOWN = frozenset(
    f"pyspark.{package}.linalg.{name}"
    for package in ("ml", "mllib")
    for name in ("VectorUDT", "MatrixUDT")
)


def without_foreign_classes(frame: DataFrame) -> DataFrame:
    """Return a DataFrame of files, of which PySpark has not yet seen the schema.

    Raises:
        InputError: The files name a Python class for a column.
    """
    schema = json.loads(frame._jdf.schema().json())
    foreign = sorted({name for name in _classes(schema) if name not in _KNOWN})
    if foreign:
        raise InputError(
            "columns of Spark's own types",
            f"columns whose Python class the files name ({', '.join(foreign)})",
            "Set OrcaContext.pandas_read_backend = 'pandas', which reads what such columns hold "
            "and no class, or write the files anew without that type.",
        )
    return frame


def _classes(kind: Any) -> Iterator[str]:
    """The Python classes of user-defined types, wherever in a type."""
    if isinstance(kind, list):
        for part in kind:
            yield from _classes(part)
    elif isinstance(kind, dict):
        if kind.get("type") == "udt":
            yield str(kind.get("pyClass"))
        for part in kind.values():
            yield from _classes(part)
