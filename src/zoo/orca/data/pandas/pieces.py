"""Files as pieces of bytes in tasks, in the order of the files: what text readers parse.

Small neighbours share a task. A file that is larger than a task may be is cut where one of its
records ends; where that cannot be told, it is one piece. Local files are opened by the tasks
themselves, those of Hadoop's file systems come through Spark's readers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import pandas as pd
from pyspark import RDD
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from zoo.cluster.session.lifecycle import active_session
from zoo.orca.data.pandas.hadoop_place import HadoopPlace, head_bytes
from zoo.orca.data.pandas.ordered_scan import group_files, ordered_shards, task_bytes
from zoo.orca.data.xshards.jobs import map_shards, run_job

__all__ = ["Lead", "Piece", "Records", "edge_of", "file_pieces", "starts_of"]

_HEADS = (64 << 10, 16 << 20)


class Lead(NamedTuple):
    """The first lines of a file, which every piece of it needs to be understood.

    Attributes:
        data: The lines.
        rows: How many rows of values are among them.
    """

    data: bytes = b""
    rows: int = 0


class Records(Protocol):
    """Where the records of a kind of text begin and end. A cut is made after a line only."""

    def lead(self, head: bytes) -> Lead | None:
        """What to put before each piece, from the first bytes; None if they do not tell."""

    def open_at_end(self, data: bytes, inside: bool) -> bool | None:
        """Whether the last record goes on after the lines of `data`; None if nobody can tell.

        `inside` says that quotes are open before the first byte.
        """

    def first_end(self, data: bytes) -> int | None:
        """Where the record ends in which `data` begins with quotes open; None if not in here."""


@dataclass(frozen=True)
class Piece:
    """A file, or a part of one that holds whole records.

    Args:
        file: Its name.
        start: The first byte.
        stop: The byte after the last one; None for the end of the file.
        lead: The first lines of the file, where the piece does not begin with them.
        data: The bytes, when they are here already.
    """

    file: str
    start: int = 0
    stop: int | None = None
    lead: Lead = Lead()
    data: bytes | None = None

    def head(self, count: int) -> bytes:
        """The first bytes."""
        with self.open(head=True) as stream:
            return stream.read(count)

    def open(self, *, head: bool = False) -> BinaryIO:
        """Open the piece, its lead before it; `head` for what will read the first lines only."""
        if head and self.lead.data:
            return io.BytesIO(self.lead.data)
        if self.data is not None:
            return io.BytesIO(self.lead.data + self.data)
        if self.stop is None or (head and not self.start):
            return Path(self.file).open("rb")
        with Path(self.file).open("rb") as stream:
            stream.seek(self.start)
            return io.BytesIO(self.lead.data + stream.read(self.stop - self.start))


class _Edge(NamedTuple):
    """How the records lie in a range of bytes, for both states in which it may begin.

    Attributes:
        start: Where its first line begins; None if none does.
        inner: Where its first record begins, if quotes are open before it.
        left: Whether its last record goes on after it.
        inner_left: The same, if quotes are open before it.
    """

    start: int | None
    inner: int | None = None
    left: bool | None = False
    inner_left: bool | None = True


def file_pieces(
    files: Sequence[Path | HadoopPlace], records: Callable[[str], Records | None]
) -> RDD[Any]:
    """Cut files into pieces: one list of them for each partition.

    Args:
        files: The files; those without a byte are left out.
        records: From the name of a file to what tells its records; None for a file that cannot
            be cut.
    """
    held = [(file, int(file.stat().st_size)) for file in files]
    held = [(file, size) for file, size in held if size] or held
    target, open_cost = task_bytes([size for _, size in held])
    groups = group_files([size for _, size in held], target, open_cost)
    parts: list[RDD[Any]] = []
    for remote, run in groupby(groups, lambda group: isinstance(held[group[0]][0], HadoopPlace)):
        grouped = [[held[at] for at in group] for group in run]
        parts += (_remote if remote else _local)(grouped, target, records)
    return parts[0] if len(parts) == 1 else active_session().sparkContext.union(parts)


_Groups = Sequence[Sequence[tuple[Any, int]]]


def _local(
    groups: _Groups, target: int, records: Callable[[str], Records | None]
) -> list[RDD[Any]]:
    rules = {
        group[0][0]: found
        for group in groups
        if group[0][1] > target and (found := _cuttable(group[0][0], target, records))
    }
    cut = _cut([(file, file.stat().st_size, *rule) for file, rule in rules.items()], target)
    tasks: list[list[Piece]] = []
    for group in groups:
        tasks += cut.get(str(group[0][0])) or [[Piece(str(file)) for file, _ in group]]
    return [active_session().sparkContext.parallelize(tasks, len(tasks))]


def _cuttable(
    file: Path | HadoopPlace, target: int, records: Callable[[str], Records | None]
) -> tuple[Records, Lead] | None:
    """What tells the records of a file, and its lead, which the first piece must hold whole."""
    rules = records(file.name)
    for size in _HEADS if rules else ():
        head = head_bytes(file, size)
        lead = rules.lead(head) if rules else None
        if rules and lead is not None:
            return (rules, lead) if len(lead.data) <= target else None
    return None


def _cut(
    files: Sequence[tuple[Path, int, Records, Lead]], target: int
) -> dict[str, list[list[Piece]]]:
    """Cut local files at ends of records; those for which nobody can tell are left out."""
    ranges = [
        (str(file), start, min(start + target, size), rules)
        for file, size, rules, _ in files
        for start in range(0, size, target)
    ]
    if not ranges:
        return {}
    rdd = active_session().sparkContext.parallelize(ranges, len(ranges))
    edges = iter(run_job(rdd.ctx, map_shards(rdd, edge_of).collect))
    cut = {}
    for file, size, _, lead in files:
        starts = starts_of([next(edges) for _ in range(0, size, target)])
        if starts is not None:
            pieces = [Piece(str(file), *pair, lead) for pair in pairwise([*starts, size])]
            cut[str(file)] = [[replace(pieces[0], lead=Lead())], *([one] for one in pieces[1:])]
    return cut


def edge_of(task: tuple[str, int, int, Records]) -> _Edge:
    """See how records lie in a range of bytes: of which file, from where, up to where."""
    file, start, stop, records = task
    with Path(file).open("rb") as stream:
        stream.seek(max(start - 1, 0))
        skipped = stream.readline() if start else b""
        first = max(start - 1, 0) + len(skipped)
        if first >= stop:
            return _Edge(None)
        # The last line of the range may end after it.
        data = stream.read(stop - first)
        data += b"" if data.endswith(b"\n") else stream.readline()
    left = records.open_at_end(data, False)
    if not start:
        return _Edge(first, None, left)
    inner = records.first_end(data)
    rest = True if inner is None else records.open_at_end(data[inner:], False)
    return _Edge(first, None if inner is None else first + inner, left, rest)


def starts_of(edges: Sequence[_Edge]) -> list[int] | None:
    """Where the pieces of a file begin, from range to range; None if it must stay whole."""
    starts: list[int] = []
    inside: bool | None = False
    for edge in edges:
        if edge.start is None:
            continue
        begin = edge.inner if inside else edge.start
        inside = edge.inner_left if inside else edge.left
        if inside is None:
            return None
        if begin is not None:
            starts.append(begin)
    return starts


def _remote(
    groups: _Groups, target: int, records: Callable[[str], Records | None]
) -> list[RDD[Any]]:
    """Files of Hadoop's file systems: large ones in lines, if no record has a line break."""
    parts: list[RDD[Any]] = []
    whole: list[Any] = []
    for group in groups:
        rules = _cuttable(group[0][0], target, records) if group[0][1] > target else None
        lines = _lines(group[0][0], *rules) if rules else None
        if lines is None:
            whole += [file for file, _ in group]
            continue
        parts += [*([_contents(whole)] if whole else []), lines]
        whole = []
    return [*parts, *([_contents(whole)] if whole else [])]


def _contents(files: Sequence[HadoopPlace]) -> RDD[Any]:
    def read(texts: list[str]) -> DataFrame:
        return active_session().read.format("binaryFile").load(texts)

    shards = ordered_shards(files, read, ["path", "content"])
    return shards.map(
        lambda frame: [
            Piece(file, data=data)
            for file, data in zip(frame["path"], frame["content"], strict=True)
        ]
    )


def _lines(file: HadoopPlace, records: Records, lead: Lead) -> RDD[Any] | None:
    def read(texts: list[str]) -> DataFrame:
        lines = active_session().read.text(texts, lineSep="\n")
        return lines.select(F.col("value").cast("binary"))

    def piece(partition: int, frames: Iterable[pd.DataFrame]) -> Iterator[list[Piece]]:
        for frame in frames:
            data = b"".join(line + b"\n" for line in frame["value"])
            yield [Piece(name, lead=lead if partition else Lead(), data=data)] if data else []

    name = str(file)
    pieces = ordered_shards([file], read, ["value"]).mapPartitionsWithIndex(piece)

    def left(found: list[Piece]) -> bool | None:
        return records.open_at_end(found[0].data or b"", False) if found else False

    said = run_job(pieces.ctx, map_shards(pieces, left).collect)
    return None if any(one is not False for one in said) else pieces
