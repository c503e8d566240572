"""A dataset appears whole or not at all.

On local file systems it is written beside its place, then renamed into it. Elsewhere, where no
rename is atomic, it is written in its place, and the file that makes it a dataset comes last.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upath import UPath

from zoo.errors import ClusterError, InputError, NotYetError
from zoo.orca.data.image.layout.dataset_folder import (
    METADATA,
    QUARANTINE,
    WRITING,
    entry_names,
    is_dataset_entry,
)
from zoo.orca.data.image.writing.draft import claim_draft, remove_abandoned, remove_folder
from zoo.orca.data.storage import Location, is_local

__all__ = ["published", "should_write"]

_log = logging.getLogger(__name__)

_MODES = ("overwrite", "error", "errorifexists", "ignore")


def should_write(target: Location, write_mode: str) -> bool:
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
    if not _is_taken(target):
        return True
    if write_mode == "ignore":
        _log.info("%s exists: nothing is written", target)
        return False
    if write_mode != "overwrite":
        raise _exists(target)
    _check_replaceable(target)
    return True


def _is_taken(target: Location) -> bool:
    if is_local(target):
        return os.path.lexists(str(target))
    # What an unfinished write left in its place is nobody's dataset.
    return target.exists() and not (
        (target / WRITING).exists() and not (target / METADATA).exists()
    )


def _exists(target: Location) -> InputError:
    return InputError(
        "an output folder that does not exist yet",
        str(target),
        "Name another, or pass write_mode='overwrite'.",
    )


def _check_replaceable(target: Location) -> None:
    """Refuse to replace anything but a dataset: a mistyped path must not delete a home folder."""
    if not target.is_dir():
        raise InputError("an output folder", f"the file {target}", "Name a folder.")
    foreign = next((entry for entry in entry_names(target) if not is_dataset_entry(entry)), None)
    if foreign is not None:
        raise InputError(
            "an output folder that is new, empty or a dataset",
            f"{target}, which also holds {foreign!r}",
            "Name another folder; overwriting would delete that file.",
        )


@contextmanager
def published(
    target: Location, write_mode: str, metadata: str, name: str | None = None
) -> Iterator[Location]:
    """Give a folder to write into, and make it the dataset when the block ends well.

    On local file systems the old dataset stays in its place until the new one is whole, and the
    folder is a hidden one beside it. An error of the input removes the folder. After any other
    error, or when the process is killed, it stays, and a write of the same name goes on in it: it
    lacks the metadata file, so it never reads as a dataset. Elsewhere the folder is the target
    itself, and the old dataset is gone when the write starts.

    Args:
        target: The folder that the dataset will be.
        write_mode: As in `should_write`; looked at again, others may have written meanwhile.
        metadata: The content of the metadata file, the last file to be written.
        name: 32 hexadecimal digits that tell the work, the same for the same input; None when
            nothing can go on with it.
    """
    if isinstance(target, Path):
        # A link keeps pointing at the dataset, and the renames stay within one file system.
        inner = _beside(Path(os.path.realpath(target)), write_mode, metadata, name)
    else:
        inner = _in_place(target, metadata, name)
    with inner as folder:
        yield folder


@contextmanager
def _beside(place: Path, write_mode: str, metadata: str, name: str | None) -> Iterator[Location]:
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place, name)
    claim = claim_draft(place, name)
    draft = claim.folder
    try:
        yield draft
        (draft / METADATA).write_text(metadata, encoding="utf-8")
        _swap_in(draft, place, replace=write_mode == "overwrite")
        (place / WRITING).unlink(missing_ok=True)
    except BaseException as exc:
        if name is None or isinstance(exc, InputError):
            remove_folder(draft)
        else:
            _say_kept(exc, draft)
        raise
    finally:
        claim.release()


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
    remove_folder(old)


@contextmanager
def _in_place(place: UPath, metadata: str, name: str | None) -> Iterator[Location]:
    token = f"{name or 'once'} {uuid.uuid4().hex}"
    _make_unfinished(place, name)
    (place / WRITING).write_text(token, encoding="utf-8")
    try:
        yield place
        if (place / WRITING).read_text(encoding="utf-8") != token:
            raise ClusterError(
                "one writer", f"{place}, which another one has begun to write", "Write it again."
            )
        (place / METADATA).write_text(metadata, encoding="utf-8")
        (place / WRITING).unlink()
    except BaseException as exc:
        if name is None or isinstance(exc, InputError):
            _remove_entries(place, entry_names(place))
        else:
            _say_kept(exc, place)
        raise


def _make_unfinished(place: UPath, name: str | None) -> None:
    """Take away what makes a folder a dataset, then all that is not of the same work."""
    place.mkdir(parents=True, exist_ok=True)
    names = entry_names(place)
    if METADATA in names:
        (place / METADATA).unlink()
    before = (place / WRITING).read_text(encoding="utf-8") if WRITING in names else ""
    same = name is not None and before.split(" ")[0] == name
    done = {METADATA} if not same else {METADATA, WRITING, QUARANTINE}
    _remove_entries(
        place, [n for n in names if n not in done and not (same and n.startswith("chunk="))]
    )


def _remove_entries(place: UPath, names: list[str]) -> None:
    for name in names:
        if is_dataset_entry(name):
            entry = place / name
            entry.fs.rm(entry.path, recursive=True)


def _say_kept(exc: BaseException, folder: Location) -> None:
    said = f"What is written stays in {folder}; the same call again goes on from there."
    exc.add_note(said)
    _log.warning("%s", said)
