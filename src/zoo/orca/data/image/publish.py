"""A dataset appears whole or not at all: it is written beside its place, then renamed into it."""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import InputError, NotYetError
from zoo.orca.data.image.dataset_folder import METADATA, is_dataset_entry

__all__ = ["published", "should_write"]

logger = logging.getLogger(__name__)

_MODES = ("overwrite", "error", "errorifexists", "ignore")


def should_write(target: Path, write_mode: str) -> bool:
    """Say whether a write may go on, before any work is done.

    Args:
        target: The folder that the dataset will be.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore", as in PySpark.

    Returns:
        False when the folder exists and the mode is "ignore".

    Raises:
        InputError: The mode is unknown, the folder exists and must not, or overwriting it would
            delete files that belong to no dataset.
        NotYetError: The mode is "append".
    """
    if write_mode == "append":
        raise NotYetError(f"write_mode as one of {_MODES}", "'append'", "Write a second dataset.")
    if write_mode not in _MODES:
        raise InputError(f"write_mode as one of {_MODES}", repr(write_mode), "Choose one of them.")
    if not os.path.lexists(target):
        return True
    if write_mode == "ignore":
        logger.info("%s exists: nothing is written", target)
        return False
    if write_mode != "overwrite":
        raise _exists(target)
    _check_replaceable(target)
    return True


def _exists(target: Path) -> InputError:
    return InputError(
        "an output folder that does not exist yet",
        str(target),
        "Name another, or pass write_mode='overwrite'.",
    )


def _check_replaceable(target: Path) -> None:
    """Refuse to replace anything but a dataset: a mistyped path must not delete a home folder."""
    if not target.is_dir():
        raise InputError("an output folder", f"the file {target}", "Name a folder.")
    foreign = next((entry for entry in os.listdir(target) if not is_dataset_entry(entry)), None)
    if foreign is not None:
        raise InputError(
            "an output folder that is new, empty or a dataset",
            f"{target}, which also holds {foreign!r}",
            "Name another folder; overwriting would delete that file.",
        )


@contextmanager
def published(target: Path, write_mode: str, metadata: str) -> Iterator[Path]:
    """Give a hidden folder to write into, and make it the dataset when the block ends well.

    The old dataset stays in its place until the new one is whole. An error in the block removes
    the hidden folder. A killed process leaves it behind, beside an untouched target: it lacks the
    metadata file, so it never reads as a dataset.

    Args:
        target: The folder that the dataset will be.
        write_mode: As in `should_write`; looked at again, others may have written meanwhile.
        metadata: The content of the metadata file, the last file to be written.
    """
    # A link keeps pointing at the dataset, and the renames stay within one file system.
    place = Path(os.path.realpath(target))
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.writing-{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        yield draft
        (draft / METADATA).write_text(metadata, encoding="utf-8")
        _swap_in(draft, place, replace=write_mode == "overwrite")
    except BaseException:
        _remove(draft)
        raise


def _swap_in(draft: Path, place: Path, *, replace: bool) -> None:
    if not os.path.lexists(place):
        draft.rename(place)
        return
    if not replace:
        raise _exists(place)
    _check_replaceable(place)
    old = place.with_name(f".{place.name}.replaced-{uuid.uuid4().hex}")
    place.rename(old)
    try:
        draft.rename(place)
    except BaseException:
        old.rename(place)
        raise
    _remove(old)


def _remove(folder: Path) -> None:
    # A Spark task of a failed job may still drop a last file in while the folder is emptied.
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)
    logger.warning("%s could not be removed; delete it when nobody writes into it", folder)
