"""The list of a dataset's files, with what is needed to notice a lost or damaged one."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.errors import InputError

__all__ = ["MANIFEST", "DatasetFile", "Manifest"]

MANIFEST = "_zoo_files.json"
"""The name of the list in the dataset's folder."""

_VERSION = 1
_PATH = re.compile(r"^chunk=(0|[1-9][0-9]*)/[^/]+$")


class DatasetFile(NamedTuple):
    """A chunk file: its path in the dataset, rows, bytes, and the crc32 of its footer.

    The footer is the file's end: the metadata, its length in four bytes, and `PAR1`.
    """

    path: str
    rows: int
    bytes: int
    footer_crc: int


@dataclass(frozen=True)
class Manifest:
    """The files of a dataset in the order of its records.

    Args:
        files: The chunk files.
        fingerprint: Names the write: the same input and settings give the same one.
        skipped: Bad input files that were left out without a word on which.
        quarantined: Bad input files that are listed in the dataset's `_quarantine`.
    """

    files: tuple[DatasetFile, ...]
    fingerprint: str = ""
    skipped: int = 0
    quarantined: int = 0

    @property
    def rows(self) -> int:
        """The number of records."""
        return sum(file.rows for file in self.files)

    def encode(self) -> str:
        """Return the list as JSON, with a checksum over itself."""
        content = {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "rows": self.rows,
            "skipped": self.skipped,
            "quarantined": self.quarantined,
            "files": [file._asdict() for file in self.files],
        }
        return json.dumps({**content, "crc": _crc(content)}, indent=1) + "\n"

    @classmethod
    def decode(cls, text: str | bytes) -> Manifest:
        """Read the list back.

        Raises:
            InputError: The text is no such list, or has changed since it was written.
        """
        try:
            content = json.loads(text)
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']!r}")
            crc = content.pop("crc")
            if crc != _crc(content):
                raise ValueError("its checksum does not fit")
            return cls(
                tuple(_file(file) for file in content["files"]),
                content["fingerprint"],
                content["skipped"],
                content["quarantined"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise InputError(
                f"the list of a dataset's files, version {_VERSION}",
                f"another text ({type(exc).__name__}: {exc})",
                f"Write the dataset again, or delete {MANIFEST} to read without these checks.",
            ) from exc


def _crc(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _file(entry: Mapping[str, Any]) -> DatasetFile:
    file = DatasetFile(*(entry[name] for name in DatasetFile._fields))
    if not isinstance(file.path, str) or not _PATH.match(file.path):
        raise ValueError(f"the path {file.path!r}")
    if not all(isinstance(number, int) and number >= 0 for number in file[1:]):
        raise ValueError(f"numbers that cannot be: {file}")
    return file
