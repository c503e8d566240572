"""Shards in a folder: a file for each, and a manifest that is written last.

The files of every save have names of their own, and only the manifest says which count. So a save
that is stopped changes nothing for readers, and to replace saved shards is to replace one file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pyspark import RDD, SparkContext, TaskContext

from zoo.errors import InputError
from zoo.orca.data.storage import Location, is_local
from zoo.orca.data.xshards.file_format import decode_shard, encode_shard
from zoo.orca.data.xshards.jobs import map_shards, run_job

__all__ = ["MANIFEST", "hadoop_path", "load_rdd", "save_rdd"]

_log = logging.getLogger(__name__)

MANIFEST = "_zoo_shards.json"
_VERSION = 1
_PART = re.compile(r"part-\d{5,}-[0-9a-f]{32}-[0-9a-f]{32}\.(parquet|npz)")
_DRAFT = re.compile(r"_zoo_shards\.json\.[0-9a-f]{32}")

_Entry = dict[str, Any]


def hadoop_path(place: Location) -> str:
    """The text by which Hadoop writes to a place; for reading, stars in it would be patterns."""
    if is_local(place):
        return f"file://{place}"
    return re.sub(r"^s3://", "s3a://", str(place))


def save_rdd(rdd: RDD[Any], folder: Location, *, overwrite: bool = False) -> None:
    """Write each shard of an RDD as a file of a folder.

    Args:
        rdd: The shards.
        folder: Where; tasks and driver must reach it.
        overwrite: Replace shards that are there.

    Raises:
        InputError: The folder holds something, or a shard holds what only a pickle can.
        OSError: A file cannot be written.
    """
    before = _names_before(folder, overwrite)
    save = uuid.uuid4().hex

    def numbered(partition: int, entries: Iterable[_Entry]) -> Iterator[tuple[int, _Entry]]:
        return ((partition, entry) for entry in entries)

    written = map_shards(rdd, _write, folder, save).mapPartitionsWithIndex(numbered)
    partitions: list[list[_Entry]] = [[] for _ in range(rdd.getNumPartitions())]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partition, entry in run_job(rdd.ctx, written.collect):
            partitions[partition].append(entry)
        _publish(folder, {"version": _VERSION, "partitions": partitions}, save)
    except BaseException:
        _remove(folder, lambda name: save in name)
        raise
    kept = {MANIFEST, *(entry["file"] for entries in partitions for entry in entries)}
    # What was here before, and what attempts wrote whose results were not taken.
    _remove(folder, lambda name: name not in kept and (name in before or save in name))


def _write(shard: Any, folder: Location, save: str) -> _Entry:
    """The task; each attempt writes a file of its own."""
    task = TaskContext.get()
    suffix, content = encode_shard(shard)
    partition = task.partitionId() if task else 0
    name = f"part-{partition:05d}-{save}-{uuid.uuid4().hex}.{suffix}"
    (folder / name).write_bytes(content)
    return {"file": name, "bytes": len(content), "crc32": zlib.crc32(content)}


def _names_before(folder: Location, overwrite: bool) -> set[str]:
    """What is in the folder already, when it may be replaced."""
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise InputError("a folder for shards", f"the file {folder}", "Name a folder.")
    names = {entry.name for entry in folder.iterdir()}
    if names and not overwrite:
        raise InputError(
            "a folder that is new or empty", str(folder), "Name another, or pass overwrite=True."
        )
    foreign = sorted(name for name in names if not _is_ours(name))
    if foreign:
        raise InputError(
            "a folder with nothing but saved shards",
            f"{folder}, which also holds {foreign[0]!r}",
            "Name another folder; this file is none of ours.",
        )
    return names


def _is_ours(name: str) -> bool:
    return name == MANIFEST or bool(_PART.fullmatch(name) or _DRAFT.fullmatch(name))


def _publish(folder: Location, manifest: dict[str, Any], save: str) -> None:
    text = json.dumps(manifest)
    if not isinstance(folder, Path):
        # A store of objects shows an object when it is whole.
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        return
    draft = folder / f"{MANIFEST}.{save}"
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / MANIFEST)


def _remove(folder: Location, unwanted: Callable[[str], bool]) -> None:
    """Remove files that no manifest names. What cannot be removed does no harm."""
    try:
        entries: list[Any] = list(folder.iterdir())
        for entry in entries:
            if unwanted(entry.name) and _is_ours(entry.name):
                entry.unlink(missing_ok=True)
    except OSError as exc:
        _log.warning("files that no manifest names stay in %s: %s", folder, exc)


def load_rdd(context: SparkContext, folder: Location) -> RDD[Any]:
    """The shards that `save_rdd` wrote, in the same partitions.

    Args:
        context: The Spark that reads.
        folder: Where.

    Raises:
        InputError: There is nothing whole in the folder. Tasks raise it for a damaged file.
    """
    partitions = _manifest(folder)
    present = {entry.name for entry in folder.iterdir()}
    for entry in (entry for entries in partitions for entry in entries):
        if entry["file"] not in present:
            raise _damaged(folder / entry["file"], "no such file")
    if not partitions:
        return context.emptyRDD()
    entries = context.parallelize(partitions, len(partitions)).flatMap(list)
    return map_shards(entries, _read, folder)


def _manifest(folder: Location) -> list[list[_Entry]]:
    place = folder / MANIFEST
    try:
        content = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            "a folder of shards that SparkXShards.save has finished",
            f"{folder} without {MANIFEST}",
            "It is unfinished, or another folder; save the shards again with overwrite=True, or "
            "use load_pickle for what save_pickle wrote.",
        ) from None
    try:
        held = json.loads(content)
        version, partitions = held["version"], held["partitions"]
        sound = all(
            _PART.fullmatch(e["file"]) and {"bytes", "crc32"} <= e.keys()
            for entries in partitions
            for e in entries
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise _damaged(place, f"{type(exc).__name__}: {exc}") from exc
    if version != _VERSION:
        raise InputError(
            f"shards of version {_VERSION}", f"version {version} in {place}", "Update zoo."
        )
    if not sound:
        raise _damaged(place, "names of files that save does not give")
    return list(partitions)


def _read(entry: _Entry, folder: Location) -> Any:
    """The task: a file, when it is what was written."""
    place = folder / entry["file"]
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        raise _damaged(place, "no such file here") from None
    if len(content) != entry["bytes"]:
        raise _damaged(place, f"{len(content)} bytes instead of {entry['bytes']}")
    if zlib.crc32(content) != entry["crc32"]:
        raise _damaged(place, "other bytes than were written")
    return decode_shard(place.suffix[1:], content)


def _damaged(place: Location, what: str) -> InputError:
    return InputError(
        "saved shards as they were written",
        f"{place}: {what}",
        "Save the shards again, on storage that all executors reach.",
    )
