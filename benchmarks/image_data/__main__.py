"""One contender, in a process of its own: `python -m image_data NAME JOB.json FIGURES.json`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from contest import NOT_INSTALLED

from image_data.job import Figure, Job

CONTENDERS = {
    "write-limit": "image_data.plain:read_files",
    "write-ours": "image_data.ours:write",
    "write-mosaicml": "image_data.mosaic:write",
    "write-lance": "image_data.lance_peer:write",
    "read-limit": "image_data.plain:decode",
    "read-ours": "image_data.ours:read",
    "read-folder": "image_data.plain:read_folder",
    "read-mosaicml": "image_data.mosaic:read",
    "read-lance": "image_data.lance_peer:read",
    "access-ours": "image_data.ours:access",
    "access-scan": "image_data.plain:scan",
    "access-mosaicml": "image_data.mosaic:access",
    "access-lance": "image_data.lance_peer:access",
}
_PEERS = ("lance", "streaming")


def main(name: str, order: str, answer: str) -> None:
    job = Job(**json.loads(Path(order).read_text()))
    module, _, function = CONTENDERS[name].partition(":")
    try:
        figures: list[Figure] = getattr(importlib.import_module(module), function)(job)
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] not in _PEERS:
            raise
        print(exc, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
    Path(answer).write_text(json.dumps([asdict(figure) for figure in figures]))


if __name__ == "__main__":
    main(*sys.argv[1:])
