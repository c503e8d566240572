"""Snapshots, with real faults: bits, cuts, full disks, dead writers."""

import errno
import io
import os
import pickle
import random
import re
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch

from zoo.errors import ContractError, InputError
from zoo.orca.data.storage import Location, locate
from zoo.orca.learn.driver.snapshots import (
    Snapshot,
    SnapshotError,
    SnapshotStore,
    find_checkpoint,
    seal,
    unseal,
)

RUN = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d{3})?")
WRITE_AGAIN_AND_AGAIN = """
import itertools, sys
from pathlib import Path
from zoo.orca.learn.driver.snapshots import SnapshotStore
store, payload = SnapshotStore(sys.argv[1], run=sys.argv[3]), Path(sys.argv[2]).read_bytes()
for iteration in itertools.count(2):
    store.write(iteration, payload)
"""


def saved(numbers: int = 5000, seed: int = 0) -> bytes:
    """What torch.save makes of a state: 20 kB, and 1 kB of names."""
    buffer = io.BytesIO()
    weights = torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
    torch.save({"model": {"weight": weights}, "epoch": 1}, buffer)
    return buffer.getvalue()


def small_zip(text: str = "a") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", text)
    return buffer.getvalue()


PAYLOAD, SMALL = saved(), small_zip()


@pytest.fixture(params=["plain", "memory", "local"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An odd name, on each kind of file system."""
    places = {"memory": f"memory://{uuid.uuid4().hex}", "local": f"local://{tmp_path}"}
    return locate(places.get(request.param, str(tmp_path))) / "a [1] é\nb"


def iterations(store: SnapshotStore) -> list[int]:
    return [one.iteration for one in store.candidates()]


def names(folder: Location) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def newest_iteration(folder: Location) -> int:
    newest = SnapshotStore(folder).newest()
    assert newest is not None
    return newest[0].iteration


# Seals


def test_sealed_is_checked_and_the_payload_is_inside() -> None:
    sealed = seal(PAYLOAD)
    assert unseal(sealed) == sealed
    assert sealed.startswith(PAYLOAD[:-2])
    assert zipfile.ZipFile(io.BytesIO(sealed)).comment.startswith(b"zoo-snapshot-3 crc32:")


def test_sealing_again_changes_nothing() -> None:
    assert seal(seal(PAYLOAD)) == seal(PAYLOAD)


@pytest.mark.parametrize("numbers", [10, 5000, 26_000_000], ids=["small", "20kB", "104MB"])
def test_torch_opens_a_sealed_file(tmp_path: Path, numbers: int) -> None:
    payload, file = saved(numbers), tmp_path / "model.1"
    file.write_bytes(seal(payload))
    wanted = torch.load(io.BytesIO(payload), weights_only=True)
    for mmap in (False, True):
        state = torch.load(file, weights_only=True, mmap=mmap)
        assert torch.equal(state["model"]["weight"], wanted["model"]["weight"])


def test_each_cut_is_refused() -> None:
    sealed = seal(PAYLOAD)
    tail = range(len(sealed) - 10, len(sealed))
    cuts = [*range(0, len(sealed), len(sealed) // 25), 1, 3, 4, 22, *tail, len(PAYLOAD)]
    for cut in cuts:
        with pytest.raises(SnapshotError, match=f"{cut} bytes"):
            unseal(sealed[:cut])


def test_each_flipped_bit_is_refused() -> None:
    sealed, chance = bytearray(seal(PAYLOAD)), random.Random(0)
    anywhere = [chance.randrange(8 * len(sealed)) for _ in range(200)]
    in_the_comment = range(8 * (len(sealed) - 120), 8 * len(sealed))
    for bit in [*anywhere, *in_the_comment]:
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SnapshotError):
            unseal(bytes(sealed))
        sealed[bit // 8] ^= 1 << bit % 8
    assert unseal(bytes(sealed))


def test_more_bytes_are_refused() -> None:
    with pytest.raises(SnapshotError, match="cut off or damaged"):
        unseal(seal(PAYLOAD) + b"\0")


@pytest.mark.parametrize("blob", [b"", b"PK", b"\x80\x02 a pickle of long ago", bytes(200)])
def test_no_zip_is_refused(blob: bytes) -> None:
    with pytest.raises(SnapshotError, match=f"{len(blob)} bytes that are not a zip"):
        unseal(blob)
    with pytest.raises(SnapshotError, match="the payload"):
        seal(blob)


def test_unsealed_files_are_refused_with_a_way_out() -> None:
    commented = io.BytesIO(SMALL)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"zoo-snapshot-1"
    for blob in [PAYLOAD, SMALL, commented.getvalue()]:
        with pytest.raises(SnapshotError, match=r"older version or another program.*`load\(\)`"):
            unseal(blob)


def test_errors_and_snapshots_survive_pickling(folder: Location) -> None:
    snapshot = SnapshotStore(folder).write(1, SMALL)
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot
    with pytest.raises(SnapshotError) as caught:
        unseal(b"")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# A store


def test_write_and_newest(folder: Location) -> None:
    store = SnapshotStore(folder)
    assert store.run is None
    snapshot = store.write(7, PAYLOAD)
    assert RUN.fullmatch(snapshot.run)
    assert snapshot == Snapshot(folder / snapshot.run / "model.7", 7, str(store.run))
    assert SnapshotStore(folder).newest() == (snapshot, seal(PAYLOAD))


def test_nothing_there(folder: Location) -> None:
    assert SnapshotStore(folder).newest() is None
    folder.mkdir(parents=True)
    assert SnapshotStore(folder).newest() is None


def test_nothing_is_made_before_the_first_write(folder: Location) -> None:
    SnapshotStore(folder).newest()
    assert not folder.exists()


def test_iterations_are_numbers(folder: Location) -> None:
    store = SnapshotStore(folder)
    for iteration in (9, 10, 8):
        store.write(iteration, SMALL)
    assert iterations(SnapshotStore(folder)) == [10, 9, 8]


def test_last_ones_are_kept(folder: Location) -> None:
    store = SnapshotStore(folder, keep=2)
    for iteration in range(8, 13):
        store.write(iteration, SMALL)
    assert names(folder / str(store.run)) == ["model.11", "model.12"]


@pytest.mark.parametrize("keep", [0, None])
def test_all_are_kept(tmp_path: Path, keep: int | None) -> None:
    store = SnapshotStore(tmp_path, keep=keep)
    for iteration in range(5):
        store.write(iteration, SMALL)
    assert iterations(store) == [4, 3, 2, 1, 0]


def test_same_iteration_again_replaces(folder: Location) -> None:
    store = SnapshotStore(folder)
    store.write(1, SMALL)
    store.write(1, PAYLOAD)
    newest = store.newest()
    assert newest is not None
    assert newest[1] == seal(PAYLOAD)
    assert names(folder / str(store.run)) == ["model.1"]


def test_two_stores_on_one_folder(folder: Location) -> None:
    first, second = SnapshotStore(folder, keep=1), SnapshotStore(folder, keep=1)
    for iteration in (1, 2):
        first.write(iteration, SMALL)
    second.write(1, PAYLOAD)
    first.write(3, SMALL)
    found = list(SnapshotStore(folder).candidates())
    assert [(one.run, one.iteration) for one in found] == [(second.run, 1), (first.run, 3)]


def test_runs_of_one_second_sort_by_age(folder: Location) -> None:
    stores = [SnapshotStore(folder) for _ in range(12)]
    for number, store in enumerate(stores):
        store.write(number, SMALL)
    assert iterations(SnapshotStore(folder)) == list(reversed(range(12)))
    assert names(folder) == [store.run for store in stores]


def test_a_clock_that_went_back_changes_no_order(tmp_path: Path) -> None:
    later = (datetime.now() + timedelta(hours=1)).strftime("%Y-%m-%d_%H-%M-%S")
    SnapshotStore(tmp_path, run=later).write(100, SMALL)
    assert SnapshotStore(tmp_path).write(5, SMALL).run == f"{later}-002"
    assert newest_iteration(tmp_path) == 5


def test_a_run_goes_on(folder: Location) -> None:
    first = SnapshotStore(folder)
    first.write(1, SMALL)
    SnapshotStore(folder, keep=2, run=first.run).write(2, SMALL)
    SnapshotStore(folder, keep=2, run=first.run).write(3, SMALL)
    assert names(folder / str(first.run)) == ["model.2", "model.3"]


def test_what_a_fit_writes_after_it_went_back_is_kept(tmp_path: Path) -> None:
    first = SnapshotStore(tmp_path)
    for iteration in (40, 50, 60):
        first.write(iteration, SMALL)
    again = SnapshotStore(tmp_path, keep=2, run=first.run)
    again.write(45, SMALL)
    again.write(46, SMALL)
    assert iterations(again) == [46, 45]


def test_other_names_are_left_alone(folder: Location) -> None:
    store = SnapshotStore(folder, keep=1)
    run = folder / store.write(1, SMALL).run
    others = [".model.9.0123abcd.writing", "model.02", "model.x", "optimMethod-A.9", "model.-1"]
    for name in others:
        (run / name).write_bytes(b"")
    (folder / "2999-01-01").mkdir()
    (folder / "2999-01-01_00-00-00").write_bytes(b"a file")
    store.write(2, SMALL)
    assert iterations(SnapshotStore(folder)) == [2]
    assert names(run) == sorted(["model.2", *others])


def test_a_name_is_no_pattern_when_old_ones_are_removed() -> None:
    top = locate(f"memory://{uuid.uuid4().hex}")
    SnapshotStore(top / "model-a", run="2026-01-01_00-00-00").write(1, SMALL)
    store = SnapshotStore(top / "model-*", keep=1, run="2026-01-01_00-00-00")
    for iteration in (1, 2):
        store.write(iteration, SMALL)
    assert newest_iteration(top / "model-a") == 1


def test_drafts_of_dead_writers_are_removed(tmp_path: Path) -> None:
    run = "2026-01-01_00-00-00"
    (tmp_path / run).mkdir()
    old, new, other = ".model.1.0123abcd.writing", ".model.1.4567abcd.writing", ".model.1.txt"
    for name in (old, new, other):
        (tmp_path / run / name).write_bytes(b"x")
    for name in (old, other):
        os.utime(tmp_path / run / name, (time.time() - 3700,) * 2)
    SnapshotStore(tmp_path, run=run).write(2, SMALL)
    assert names(tmp_path / run) == sorted([new, other, "model.2"])


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    file = SnapshotStore(tmp_path / "models").write(1, SMALL).place
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("keep", [-1, 1.5, True, "3"])
def test_keep_is_checked(keep: object) -> None:
    with pytest.raises(InputError, match="keep to be a whole number"):
        SnapshotStore("anywhere", keep=keep)  # type: ignore[arg-type]


def test_run_and_iteration_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2026-01-31_18-00-00"):
        SnapshotStore(tmp_path, run="../elsewhere")
    with pytest.raises(InputError, match="iteration"):
        SnapshotStore(tmp_path).write(-1, SMALL)


def test_payload_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError):
        SnapshotStore(tmp_path).write(1, b"no zip")
    assert names(tmp_path) == []


# Faults


def test_damaged_ones_are_skipped_with_a_word(
    folder: Location, caplog: pytest.LogCaptureFixture
) -> None:
    store = SnapshotStore(folder, keep=0)
    places = [store.write(iteration, PAYLOAD).place for iteration in range(5)]
    sealed = seal(PAYLOAD)
    places[2].write_bytes(PAYLOAD)
    places[3].write_bytes(sealed[:5000] + b"?" + sealed[5001:])
    places[4].write_bytes(sealed[: len(sealed) // 2])
    assert newest_iteration(folder) == 1
    told = [record.getMessage() for record in caplog.records]
    assert [repr(str(place)) in text for place, text in zip(places[:1:-1], told, strict=True)]
    assert ["cut off or damaged" in text for text in told] == [True, True, False]


def test_older_run_when_the_newest_has_no_whole_one(folder: Location) -> None:
    SnapshotStore(folder).write(9, SMALL)
    SnapshotStore(folder).write(10, SMALL).place.write_bytes(b"")
    assert newest_iteration(folder) == 9


def test_unreadable_ones_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SnapshotStore(tmp_path, keep=1)
    run = tmp_path / store.write(1, SMALL).run
    (run / "model.2").mkdir()
    assert newest_iteration(tmp_path) == 1
    store.write(3, SMALL)
    assert names(run) == ["model.2", "model.3"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_writer_killed_in_the_middle(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "models")
    run = tmp_path / "models" / store.write(1, SMALL).run
    (tmp_path / "payload").write_bytes(small_zip("x" * (64 << 20)))
    for _ in range(5):
        _kill_while_writing(tmp_path, run)
        if list(run.glob(".model.*")):
            break
    else:
        pytest.fail("no writer was hit while it wrote")
    whole = max(one.iteration for one in store.candidates())
    assert newest_iteration(tmp_path / "models") == whole


def _kill_while_writing(folder: Path, run: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_AGAIN_AND_AGAIN, run.parent, folder / "payload", run.name]
    )
    while not list(run.glob(".model.*")):
        assert writer.poll() is None
    writer.kill()
    writer.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 KB in memory; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "zoo-test", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("place", [str, "local://{}".format])
def test_full_disk(small_disk: Path, place: Callable[[Path], str]) -> None:
    store = SnapshotStore(place(small_disk), keep=0)
    for iteration in range(1, 5):
        store.write(iteration, PAYLOAD)
    with pytest.raises(OSError, match="No space left") as caught:
        store.write(5, PAYLOAD)
    assert caught.value.errno == errno.ENOSPC
    assert names(small_disk / str(store.run)) == ["model.1", "model.2", "model.3", "model.4"]
    assert newest_iteration(small_disk) == 4
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    store.write(9, PAYLOAD)
    assert newest_iteration(small_disk) == 9


def test_full_disk_at_the_first_write(small_disk: Path) -> None:
    store = SnapshotStore(small_disk)
    with pytest.raises(OSError, match="No space left"):
        store.write(1, saved(100_000))
    assert store.newest() is None
    assert store.write(2, PAYLOAD).run == names(small_disk)[0]


# Finding one for a program


@pytest.fixture
def two_runs(folder: Location) -> list[str]:
    """Two runs in the folder, with snapshots 1, 9 and 2, 10."""
    stores = [SnapshotStore(folder), SnapshotStore(folder)]
    for iteration, store in zip((1, 2, 9, 10), stores * 2, strict=True):
        store.write(iteration, SMALL)
    return [str(store.run) for store in stores]


def test_find_in_a_model_dir(folder: Location, two_runs: list[str]) -> None:
    assert [one.iteration for one in find_checkpoint(folder)] == [10, 2, 9, 1]


def test_find_in_a_run(folder: Location, two_runs: list[str]) -> None:
    found = list(find_checkpoint(folder / two_runs[0], prefix="ignored"))
    assert [(one.run, one.iteration) for one in found] == [(two_runs[0], 9), (two_runs[0], 1)]


def test_find_a_file(folder: Location, two_runs: list[str]) -> None:
    file = folder / two_runs[0] / "model.1"
    assert list(find_checkpoint(file)) == [Snapshot(file, 1, two_runs[0])]


def test_find_a_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(seal(SMALL))
    (found,) = find_checkpoint(str(tmp_path / "mine.pt"))
    assert (found.iteration, found.read()) == (0, seal(SMALL))


def test_find_a_version(folder: Location, two_runs: list[str]) -> None:
    (found,) = find_checkpoint(folder / two_runs[0], version=1, prefix="orca")
    assert found == Snapshot(folder / two_runs[0] / "model.1", 1, two_runs[0])


def test_version_needs_a_prefix(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="prefix") as caught:
        find_checkpoint(tmp_path, version=1)
    assert isinstance(caught.value, ContractError)


def test_version_needs_the_folder_of_the_run(folder: Location, two_runs: list[str]) -> None:
    with pytest.raises(InputError, match=r"model\.1'.*folder of the run itself"):
        find_checkpoint(folder, version=1, prefix="orca")


@pytest.mark.parametrize("version", ["1", -1, 1.0])
def test_version_is_a_number(tmp_path: Path, version: object) -> None:
    with pytest.raises(InputError, match="version to be a whole number"):
        find_checkpoint(tmp_path, version=version, prefix="orca")  # type: ignore[arg-type]


def test_find_nothing(folder: Location) -> None:
    with pytest.raises(ValueError, match="where there is none"):
        find_checkpoint(folder)
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="checkpoint_trigger"):
        find_checkpoint(folder)


def test_reading_a_damaged_one_names_it(tmp_path: Path) -> None:
    (tmp_path / "model.3").write_bytes(seal(SMALL)[:-1])
    with pytest.raises(SnapshotError, match=re.escape(str(tmp_path / "model.3"))):
        next(find_checkpoint(tmp_path)).read()
