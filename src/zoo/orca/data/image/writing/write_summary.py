"""What a write has done: seen by the driver, listed in the manifest, told in the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from upath import UPath

from zoo.errors import ClusterError, InputError
from zoo.orca.data.image.layout.dataset_folder import QUARANTINE
from zoo.orca.data.image.layout.manifest import MANIFEST, Manifest
from zoo.orca.data.image.writing.chunk_file import ChunkResult
from zoo.orca.data.image.writing.verify import Screening
from zoo.orca.data.storage import Location

__all__ = ["not_shared", "write_manifest"]

_log = logging.getLogger(__name__)


def write_manifest(
    folder: Location, chunks: Sequence[ChunkResult], screening: Screening, name: str | None
) -> None:
    """Check that all chunks are in a folder, and list them there.

    Args:
        folder: Where the dataset is written.
        chunks: Its chunks, in order.
        screening: What became of bad files.
        name: Tells the work, None when it has no name.

    Raises:
        InputError: Every record was bad.
        ClusterError: A chunk is not where the driver looks.
    """
    bad = sum(chunk.bad for chunk in chunks)
    listed = screening.on_error == "quarantine"
    manifest = Manifest(
        tuple(chunk.file for chunk in chunks),
        fingerprint=name or "",
        skipped=0 if listed else bad,
        quarantined=bad if listed else 0,
    )
    if not manifest.rows:
        raise InputError(
            "at least one record that can be written",
            f"{bad} bad ones",
            "Look at the reasons with on_error='fail', and at the path; on a cluster, use shared "
            "storage.",
        )
    _check_sizes(folder, manifest)
    (folder / MANIFEST).write_text(manifest.encode(), encoding="utf-8")
    _log.info("wrote %d records in %d chunks", manifest.rows, len(chunks))
    if bad:
        where = f"listed in {QUARANTINE}" if listed else "skipped"
        _log.warning("%d bad files were left out, %s", bad, where)


def not_shared(received: str) -> ClusterError:
    """Return the error of tasks and driver that see different storage."""
    return ClusterError(
        "an output folder on storage that all hosts share",
        received,
        "Write to a folder that every host mounts, or to a file system that they all reach.",
    )


def _check_sizes(folder: Location, manifest: Manifest) -> None:
    found = _sizes_here(folder, manifest) if isinstance(folder, Path) else _sizes_there(folder)
    for file in manifest.files:
        if found.get(file.path) != file.bytes:
            raise not_shared(f"{file.path} written where the driver does not see it")


def _sizes_here(folder: Path, manifest: Manifest) -> dict[str, int]:
    sizes = {}
    for file in manifest.files:
        try:
            sizes[file.path] = os.stat(folder / file.path).st_size
        except FileNotFoundError:
            continue
    return sizes


def _sizes_there(folder: UPath) -> dict[str, int]:
    """Ask for all sizes at once: one request for each file would take minutes."""
    folder.fs.invalidate_cache()
    found = folder.fs.find(folder.path, detail=True)
    return {"/".join(path.split("/")[-2:]): facts["size"] for path, facts in found.items()}
