"""How fast small image files become a dataset, are read, and are looked up by number.

Every contender does the same work in a process of its own, one after the other. mosaicml-streaming
and Lance (the package pylance) take part where they are installed. `--help` shows what can be
chosen; docs/benchmarks.md tells how the figures are made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from contest import contend, leave_on_terminate, show_machine
from image_data.__main__ import CONTENDERS
from image_data.job import Figure, Job, drop_page_cache
from image_data.pictures import make_pictures, mean_kib
from image_data.report import access_table, claims, read_table, write_table
from tabular.report import claim_table

_FILES = {32: 50_000, 224: 6_000, 500: 3_000}
_RECORDS = 1_000_000
_FEWEST = 256
_PEERS = ("ours", "limit", "folder", "scan", "mosaicml", "lance")
_PARTS = ("write", "read", "access")
# Random access holds two datasets of all records at a time.
_HELD_AT_ONCE = 2.2


def _names(known: tuple[str, ...], text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(known):
        message = f"{', '.join(sorted(unknown))} is none of {', '.join(known)}"
        raise argparse.ArgumentTypeError(message)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scale", type=float, default=1.0,
        help="times the files of each size (50,000 of 32 pixels, 6,000 of 224, 3,000 of 500) and "
        "the million records of random access",
    )  # fmt: skip
    parser.add_argument("--pixels", type=int, nargs="+", default=list(_FILES), choices=_FILES)
    parser.add_argument("--rounds", type=int, default=3, help="of warm measurements (default 3)")
    parser.add_argument(
        "--warm-only", action="store_true",
        help="do not empty the page cache of the machine, which only root may",
    )  # fmt: skip
    parser.add_argument(
        "--parts", type=lambda text: _names(_PARTS, text), default=list(_PARTS),
        help=f"some of {','.join(_PARTS)}; reading also writes what it reads",
    )  # fmt: skip
    parser.add_argument(
        "--only", type=lambda text: _names(_PEERS, text), default=list(_PEERS),
        help=f"some of {','.join(_PEERS)}",
    )  # fmt: skip
    parser.add_argument("--folder", help="where files lie for a while (default: the system's)")
    parser.add_argument("--json", type=Path, help="a file for all numbers")
    return parser.parse_args()


def run(part: str, job: Job, chosen: argparse.Namespace) -> list[Figure]:
    """Let every contender of a part do the job."""
    figures = []
    for contender in CONTENDERS:
        kind, _, who = contender.partition("-")
        # The scan reads what ours has written.
        if kind != part or who not in chosen.only:
            continue
        if part == "read" and not _has_data(job, who):
            continue
        print(f"running {contender}, {job.pixels or job.files} ...", flush=True)
        answer = contend("image_data", contender, asdict(job), job.folder)
        figures += [Figure(**figure) for figure in answer or []]
    return figures


def _has_data(job: Job, who: str) -> bool:
    return who in ("limit", "folder") or Path(job.dataset(who)).exists()


def with_pictures(pixels: int, chosen: argparse.Namespace, cold: bool) -> list[Figure]:
    """Make pictures of a size, write datasets of them and read those."""
    with tempfile.TemporaryDirectory(prefix="zoo-benchmark-", dir=chosen.folder) as folder:
        files = max(_FEWEST, round(_FILES[pixels] * chosen.scale))
        job = Job(folder, pixels, files, chosen.rounds, cold)
        make_pictures(job)
        print(f"{files:,} pictures of {pixels} pixels, {mean_kib(job):.1f} KiB on average")
        figures = run("write", job, chosen)
        if "read" in chosen.parts:
            figures += run("read", job, chosen)
    return figures


def with_records(chosen: argparse.Namespace, cold: bool) -> list[Figure]:
    """Write and look up records."""
    with tempfile.TemporaryDirectory(prefix="zoo-benchmark-", dir=chosen.folder) as folder:
        job = Job(folder, 0, max(_FEWEST, round(_RECORDS * chosen.scale)), chosen.rounds, cold)
        needed, free = _HELD_AT_ONCE * job.files * job.record_bytes, shutil.disk_usage(folder).free
        if free < needed:
            print(f"random access is left out: {free / 1e9:.0f} GB free of {needed / 1e9:.0f} GB")
            return []
        return run("access", job, chosen)


def main() -> None:
    chosen = arguments()
    leave_on_terminate()
    facts = show_machine()
    cold = not chosen.warm_only and drop_page_cache()
    if not cold:
        print("warm only: the page cache is not emptied")
    figures: list[Figure] = []
    if {"write", "read"} & set(chosen.parts):
        for pixels in chosen.pixels:
            figures += with_pictures(pixels, chosen, cold)
    if "access" in chosen.parts:
        figures += with_records(chosen, cold)
    found = claims(figures)
    tables = [write_table(figures), read_table(figures), access_table(figures), claim_table(found)]
    print("\n" + "\n\n".join(filter(None, tables)))
    if chosen.json:
        options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(chosen).items()}
        numbers = {
            "machine": facts,
            "options": options,
            "figures": [asdict(figure) for figure in figures],
            "claims": [asdict(claim) | {"holds": claim.holds} for claim in found],
        }
        chosen.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
