"""Ingest and restore without Spark: rows of arrays in this process."""

import errno
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ClusterError, InputError
from zoo.orca.data.tensors import tensor_shard
from zoo.orca.data.tensors.array_rows import ArrayRows, plan_arrays
from zoo.orca.data.tensors.ingest import ingest, restore
from zoo.orca.data.tensors.kept import KeptShards
from zoo.orca.data.tensors.tensor_shard import open_tensors


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return tmp_path


def numbers(rows=30):
    return {"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), "y": np.arange(rows)}


def planned(arrays):
    return plan_arrays({"x": arrays["x"]}, {"y": arrays["y"]})


def content(result):
    parts = [open_tensors(s, result.plan) for s in result.shards]
    return np.concatenate([y for _, y in parts]).tolist()


def test_arrays_become_shards_and_are_removed(scratch):
    arrays = numbers()
    result = ingest(ArrayRows.split(arrays, 4), planned(arrays))
    assert content(result) == list(range(30))
    assert len(list(scratch.iterdir())) == 4
    result.release()
    assert list(scratch.iterdir()) == []


def test_only_lost_shards_are_written_again(scratch):
    arrays = numbers()
    rows = ArrayRows.split(arrays, 3)
    result = ingest(rows, planned(arrays))
    Path(result.shards[1].path).unlink()
    again = restore(rows, result, {1})
    assert [a.path == b.path for a, b in zip(result.shards, again.shards, strict=True)] == [
        True, False, True,
    ]  # fmt: skip
    assert content(again) == list(range(30))
    again.release()
    assert list(scratch.iterdir()) == []


def shuffled(arrays):
    return {name: array[::-1] for name, array in arrays.items()}


def test_rows_in_another_order_end_the_fit(scratch):
    arrays = numbers()
    rows = ArrayRows.split(arrays, 2)
    result = ingest(rows, planned(arrays))
    rows.partitions[1].update(shuffled(rows.partitions[1]))
    with pytest.raises(InputError, match=r"same order.*partition 1.*recomputed='any'"):
        restore(rows, result, {1})
    assert len(list(scratch.iterdir())) == 2


def test_rows_in_another_order_are_taken_when_that_was_said(caplog):
    arrays = numbers()
    rows = ArrayRows.split(arrays, 2)
    result = ingest(rows, planned(arrays))
    rows.partitions[1].update(shuffled(rows.partitions[1]))
    again = restore(rows, result, {1}, exact=False)
    assert content(again)[15:] == list(range(29, 14, -1))
    assert "partition 1 came back with its rows in another order" in caplog.text


def test_another_number_of_rows_is_never_taken():
    arrays = numbers()
    rows = ArrayRows.split(arrays, 2)
    result = ingest(rows, planned(arrays))
    rows.partitions[0].update({n: a[1:] for n, a in rows.partitions[0].items()})
    with pytest.raises(InputError, match="14 rows instead of 15 in partition 0"):
        restore(rows, result, {0}, exact=False)


def test_features_that_are_no_numbers_are_told(caplog):
    arrays = numbers()
    arrays["x"][3, 1], arrays["x"][25] = np.nan, np.inf
    ingest(ArrayRows.split(arrays, 2), planned(arrays)).release()
    assert "NaN or infinite numbers in column 'x' in 2 of 30 rows" in caplog.text
    assert "fillna(0, ['x'])" in caplog.text


def test_large_numbers_are_no_remark(caplog):
    arrays = numbers()
    arrays["x"][:] = np.finfo(np.float32).max
    with caplog.at_level(logging.WARNING):
        ingest(ArrayRows.split(arrays, 2), planned(arrays)).release()
    assert not caplog.records


def test_a_full_disk_is_told_with_the_folder(scratch, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_shard.shutil, "copyfileobj", full)
    arrays = numbers()
    with pytest.raises(ClusterError, match=r"No space left on device in .* on .*spark.local.dir"):
        ingest(ArrayRows.split(arrays, 2), planned(arrays))
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_written_is_told(scratch, monkeypatch):
    (scratch / "file").touch()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(scratch / "file"))
    arrays = numbers()
    with pytest.raises(ClusterError, match=r"room for the rows.*Not a directory.*SPARK_LOCAL_DIRS"):
        ingest(ArrayRows.split(arrays, 2), planned(arrays))


def test_another_scratch_folder_is_used_when_one_is_gone(scratch, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{scratch}/gone,{scratch}")
    arrays = numbers()
    result = ingest(ArrayRows.split(arrays, 2), planned(arrays))
    assert {Path(s.path).parent for s in result.shards} == {scratch}
    result.release()


# Shared between fits


def test_shards_in_use_outlive_what_forgets_them(scratch):
    arrays = numbers()
    rows, table = ArrayRows.split(arrays, 2), KeptShards()
    first = ingest(rows, planned(arrays))
    table.add(rows, 1, planned(arrays), first)
    second = table.find(rows, 1, planned(arrays))
    assert second is first
    first.release()
    table.forget()
    assert len(list(scratch.iterdir())) == 2
    second.release()
    assert list(scratch.iterdir()) == []


def test_shards_made_again_go_with_the_others(scratch):
    arrays = numbers()
    rows = ArrayRows.split(arrays, 2)
    result = ingest(rows, planned(arrays))
    assert result.holding.join()
    restored = restore(rows, result, {0})
    result.release()
    restored.release()
    assert list(scratch.iterdir()) == []


def test_what_is_being_removed_is_not_found(scratch):
    arrays = numbers()
    rows, table = ArrayRows.split(arrays, 2), KeptShards()
    result = ingest(rows, planned(arrays))
    table.add(rows, 1, planned(arrays), result)
    result.release()
    table.forget()
    assert table.find(rows, 1, planned(arrays)) is None
    assert not result.holding.join()


def test_many_threads_share_a_table(scratch):
    arrays, plan = numbers(), planned(numbers())
    rows, table, wrong = ArrayRows.split(arrays, 2), KeptShards(), []

    def fit():
        for _ in range(20):
            result = table.find(rows, 1, plan)
            if result is None:
                result = ingest(rows, plan)
                table.add(rows, 1, plan, result)
            if content(result) != list(range(30)):
                wrong.append(result)
            result.release()
            table.forget(result)

    threads = [threading.Thread(target=fit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(scratch.iterdir()) == []


def test_kept_shards_that_are_cut_off_are_written_anew():
    arrays, plan = numbers(), planned(numbers())
    rows, table = ArrayRows.split(arrays, 2), KeptShards()
    result = ingest(rows, plan)
    table.add(rows, 1, plan, result)
    path = Path(result.shards[0].path)
    path.write_bytes(path.read_bytes()[:-1])
    assert table.find(rows, 1, plan) is None
    result.release()


def test_the_end_of_a_fit_does_not_wait_for_other_hosts():
    arrays, gate, seen = numbers(), threading.Event(), threading.Event()

    class Far(ArrayRows):
        def everywhere(self, function):
            gate.wait(5)
            seen.set()
            return []

    result = ingest(Far.split(arrays, 2), planned(arrays))
    far = result.moved(tuple(replace(s, host="far") for s in result.shards))
    far.release()
    assert not seen.is_set()
    gate.set()
    assert seen.wait(5)


WITHOUT_SPARK = """
import importlib, sys
sys.modules["pyspark"] = sys.modules["py4j"] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_what_ranks_need_has_no_spark():
    tensors = [
        "array_rows",
        "decode",
        "flaws",
        "ingest",
        "kept",
        "plan",
        "rows",
        "schedule",
        "tensor_shard",
    ]
    ranks = ["copying", "feed", "moving", "opening", "serving"]
    names = [f"zoo.orca.data.tensors.{name}" for name in tensors]
    names += [f"zoo.orca.learn.rank.{name}" for name in ranks]
    command = [sys.executable, "-c", WITHOUT_SPARK, *names, "zoo.orca.learn.driver.sources"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
