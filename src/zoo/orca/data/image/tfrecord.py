"""ImageNet as TFRecord files."""

from __future__ import annotations

from typing import Any

from zoo.errors import NotYetError

__all__ = ["read_tfrecord", "write_tfrecord"]

_INSTEAD = "Use write_parquet and read_parquet."


def write_tfrecord(format: str, output_path: str, *args: Any, **kwargs: Any) -> None:
    """Write a dataset as TFRecord files.

    Raises:
        NotYetError: Always, in this version.
    """
    raise NotYetError("a parquet dataset", f"TFRecord format {format!r}", _INSTEAD)


def read_tfrecord(format: str, path: str, *args: Any, **kwargs: Any) -> Any:
    """Read TFRecord files as a `tf.data.Dataset`.

    Raises:
        NotYetError: Always, in this version.
    """
    raise NotYetError("a parquet dataset", f"TFRecord format {format!r}", _INSTEAD)
