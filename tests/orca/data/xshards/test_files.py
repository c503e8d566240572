import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data import SparkXShards, XShards
from zoo.orca.data.storage import locate
from zoo.orca.data.xshards.files import MANIFEST, hadoop_path

pytestmark = pytest.mark.spark

ROWS = [pd.DataFrame({"a": np.int16([i, i]), "t": ["x", None]}, index=[i, i + 1]) for i in range(3)]


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> SparkXShards:
    """Shards in partitions of zero, one and two."""
    source = spark.sparkContext.parallelize([[], ROWS[:1], ROWS[1:]], 3)
    return SparkXShards(source.flatMap(list)).cache()


@pytest.fixture
def saved(rows: SparkXShards, tmp_path: Path) -> Path:
    rows.save(tmp_path / "saved")
    return tmp_path / "saved"


def parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != MANIFEST)


@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_frames_come_back_in_their_partitions(
    rows: SparkXShards, tmp_path: Path, prefix: str
) -> None:
    place = f"{prefix}{tmp_path}/größe [1]*\n"
    assert rows.save(place) is rows
    loaded = XShards.load(place)
    assert loaded.rdd.glom().map(len).collect() == [0, 1, 2]
    for one, other in zip(loaded.collect(), ROWS, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_frames_are_parquet_files_that_anyone_reads(saved: Path) -> None:
    read = pd.concat(pd.read_parquet(path) for path in parts(saved))
    assert read["t"].tolist() == ["x", None] * 3


def test_nested_arrays_come_back(spark: SparkSession, tmp_path: Path) -> None:
    shards = XShards.partition({"x": np.arange(8.0).reshape(4, 2), "y": (np.arange(4),)}, 2)
    shards.save(tmp_path / "arrays")
    for one, other in zip(
        XShards.load(tmp_path / "arrays").collect(), shards.collect(), strict=True
    ):
        np.testing.assert_array_equal(one["x"], other["x"])
        np.testing.assert_array_equal(one["y"][0], other["y"][0])


def test_no_shards_at_all(spark: SparkSession, tmp_path: Path) -> None:
    SparkXShards(spark.sparkContext.emptyRDD()).save(tmp_path / "none")
    assert XShards.load(tmp_path / "none").collect() == []


def test_what_only_pickle_can_hold_is_refused_and_leaves_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    shards = SparkXShards(spark.sparkContext.parallelize([np.ones(2), object], 2))
    with pytest.raises(InputError, match="save_pickle") as caught:
        shards.save(tmp_path / "out")
    assert "shard 0 of partition 1" in caught.value.__notes__[0]
    assert os.listdir(tmp_path / "out") == []


def test_a_folder_that_holds_something_is_refused(rows: SparkXShards, saved: Path) -> None:
    before = parts(saved)
    with pytest.raises(InputError, match="overwrite=True"):
        rows.save(saved)
    assert parts(saved) == before


def test_overwriting_replaces_the_shards(spark: SparkSession, saved: Path) -> None:
    XShards.partition(np.arange(4), 2).save(saved, overwrite=True)
    assert [len(shard) for shard in XShards.load(saved).collect()] == [2, 2]
    assert len(parts(saved)) == 2


def test_a_failed_overwrite_leaves_the_old_shards(spark: SparkSession, saved: Path) -> None:
    with pytest.raises(InputError, match="save_pickle"):
        SparkXShards(spark.sparkContext.parallelize([object], 1)).save(saved, overwrite=True)
    assert len(XShards.load(saved).collect()) == 3


def test_shards_may_be_saved_to_where_they_come_from(saved: Path) -> None:
    XShards.load(saved).transform_shard(len).save(saved, overwrite=True)
    assert XShards.load(saved).collect() == [2, 2, 2]


def test_overwriting_spares_files_of_others(rows: SparkXShards, saved: Path) -> None:
    (saved / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        rows.save(saved, overwrite=True)
    assert (saved / "thesis.txt").read_text() == "mine"


def test_a_file_is_no_folder(rows: SparkXShards, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder for shards"):
        rows.save(tmp_path / "file", overwrite=True)
    with pytest.raises(InputError, match="unfinished"):
        XShards.load(tmp_path / "file")


def test_a_save_without_its_manifest_is_unfinished(rows: SparkXShards, saved: Path) -> None:
    (saved / MANIFEST).unlink()
    with pytest.raises(InputError, match="unfinished"):
        XShards.load(saved)
    rows.save(saved, overwrite=True)
    assert (len(XShards.load(saved)), len(parts(saved))) == (6, 3)


def test_leftovers_of_a_stopped_save_are_not_read(saved: Path) -> None:
    half = parts(saved)[0]
    (saved / f"{half.name[:-40]}{'0' * 32}.parquet").write_bytes(half.read_bytes()[:50])
    assert len(XShards.load(saved).collect()) == 3


@pytest.mark.parametrize("harm", ["cut", "flipped", "grown"])
def test_a_damaged_file_is_named(saved: Path, harm: str) -> None:
    victim = parts(saved)[1]
    content = bytearray(victim.read_bytes())
    if harm == "flipped":
        content[len(content) // 2] ^= 1
    victim.write_bytes(content[:-1] if harm == "cut" else content + b"!" * (harm == "grown"))
    with pytest.raises(InputError, match=victim.name):
        XShards.load(saved)


def test_a_missing_file_is_named_before_any_task_starts(saved: Path) -> None:
    victim = parts(saved)[2]
    victim.unlink()
    with pytest.raises(InputError, match=f"{victim.name}: no such file"):
        XShards.load(saved)


@pytest.mark.parametrize(
    "manifest",
    [
        "", "[]", '{"version": 1}', '{"version": 1, "partitions": [3]}',
        '{"version": 1, "partitions": [[{"file": "../x", "bytes": 1, "crc32": 1}]]}',
        '{"version": 1, "partitions": [["part"]]}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(saved: Path, manifest: str) -> None:
    (saved / MANIFEST).write_text(manifest)
    with pytest.raises(InputError, match=MANIFEST):
        XShards.load(saved)


def test_a_manifest_of_later_versions_is_refused(saved: Path) -> None:
    held = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(json.dumps({**held, "version": 2}))
    with pytest.raises(InputError, match="version 2"):
        XShards.load(saved)


# Pickles


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_pickles_hold_shards_of_any_kind(
    spark: SparkSession, tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    content: list[Any] = [{"x": np.arange(3)}, {1, 2}, None]
    shards = SparkXShards(spark.sparkContext.parallelize(content, 2))
    place = f"{prefix}{tmp_path}/größe [1]*"
    assert shards.save_pickle(place, batchSize=1) is shards
    with caplog.at_level(logging.WARNING):
        loaded = XShards.load_pickle(place).collect()
    assert (len(loaded), loaded[1:]) == (3, content[1:])
    assert "runs whatever code is in them" in caplog.text


def test_least_number_of_partitions_of_pickles(spark: SparkSession, tmp_path: Path) -> None:
    content = [np.zeros(1 << 15)] * 8
    shards = SparkXShards(spark.sparkContext.parallelize(content, 1))
    shards.save_pickle(tmp_path / "one", batchSize=1)
    assert XShards.load_pickle(tmp_path / "one", minPartitions=3).num_partitions() >= 3


def test_pickles_replace_nothing(rows: SparkXShards, saved: Path) -> None:
    with pytest.raises(InputError, match="does not exist yet"):
        rows.save_pickle(saved)


def test_hadoop_cannot_read_paths_with_commas(rows: SparkXShards, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without a comma"):
        rows.save_pickle(tmp_path / "a,b")


def test_pickles_that_are_not_there(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save_pickle wrote"):
        XShards.load_pickle(tmp_path / "nowhere")


def test_pickles_in_an_open_folder_wait_for_a_word(spark: SparkSession, tmp_path: Path) -> None:
    place = tmp_path / "one"
    SparkXShards(spark.sparkContext.parallelize([{1, 2}], 1)).save_pickle(place)
    place.chmod(0o777)
    with pytest.raises(InputError, match="not everybody can write"):
        XShards.load_pickle(place)
    assert XShards.load_pickle(place, trusted=True).collect() == [{1, 2}]


def test_hadoop_knows_the_storage_of_amazon_by_another_name() -> None:
    assert hadoop_path(locate("/a b/[c]")) == "file:///a b/[c]"
