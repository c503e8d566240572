"""Pascal VOC folders as a parquet dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.errors import NotYetError

__all__ = ["write_voc"]


def write_voc(
    voc_root_path: str, splits_names: Sequence[tuple[int, str]], output_path: str, **kwargs: Any
) -> None:
    """Write annotated VOC images as a parquet dataset.

    Raises:
        NotYetError: Always, in this version.
    """
    raise NotYetError(
        "a format with a writer: 'image_folder' or 'mnist'",
        "'voc'",
        "Pass your own records to ParquetDataset.write until this writer is here.",
    )
