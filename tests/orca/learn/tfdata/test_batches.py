"""Batches of datasets on several ranks: each row once, in the same steps for any number of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from thread_ranks import Rank, on_ranks
from zoo.errors import InputError
from zoo.orca.data.image import DType, FeatureType, ParquetDataset, SchemaField, read_parquet
from zoo.orca.learn.order import LoaderSource
from zoo.orca.learn.tfdata.batches import DatasetBatches, open_dataset

ROWS = 23
Creator = Callable[[dict[str, Any], int], Any]
Config = dict[str, Any]
Policy = tf.data.experimental.AutoShardPolicy


def numbers(rows: int = ROWS) -> Any:
    """Single rows: a vector and the number of the row."""
    x = np.arange(rows)
    return tf.data.Dataset.from_tensor_slices((np.stack([x, -x], 1).astype(np.float32), x))


def with_policy(dataset: Any, policy: Any) -> Any:
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policy
    return dataset.with_options(options)


def opened(creator: Creator, member: Any, batch_size: int = 8, **given: Any) -> DatasetBatches:
    return open_dataset(LoaderSource(creator, {}, batch_size, 5, **given), member)


def steps_of(feed: DatasetBatches, epoch: int = 0, start: int = 0) -> list[list[int]]:
    """The rows of each step."""
    found = []
    for batch in feed.epoch(epoch, start):
        if batch is None:
            found.append([])
            continue
        assert batch.rows == len(batch.targets[0]) > 0
        np.testing.assert_array_equal(batch.features[0][:, 1], -batch.targets[0])
        found.append(batch.targets[0].tolist())
    return found


def run(
    creator: Creator,
    size: int = 1,
    batch_size: int = 8,
    epochs: int = 1,
    at: tuple[int, int] = (0, 0),
    **given: Any,
) -> list[list[list[list[int]]]]:
    """For each rank and epoch the rows of its steps.

    Args:
        creator: Makes the dataset.
        size: Ranks.
        batch_size: Rows of a step.
        epochs: The last one.
        at: Epoch and step to begin at.
        **given: Of the source.
    """

    def work(member: Rank) -> list[list[list[int]]]:
        feed = opened(creator, member, batch_size, **given)
        first, start = at
        return [steps_of(feed, e, start if e == first else 0) for e in range(first, epochs)]

    return on_ranks(size, work)


def together(found: list[list[list[list[int]]]]) -> list[list[list[int]]]:
    """The steps of each epoch over all ranks, which have the same number of them."""
    return [
        [list(itertools.chain.from_iterable(step)) for step in zip(*epoch, strict=True)]
        for epoch in zip(*found, strict=True)
    ]


def flat(found: list[list[list[list[int]]]]) -> list[int]:
    """All rows of all ranks in the first epoch."""
    return sorted(row for epochs in found for step in epochs[0] for row in step)


IN_EIGHTS = [list(range(low, min(low + 8, ROWS))) for low in range(0, ROWS, 8)]
FORMS: dict[str, Creator] = {
    "rows": lambda config, size: numbers(),
    "batches of a rank": lambda config, size: numbers().batch(size),
    "batches of a step": lambda config, size: numbers().batch(8).prefetch(1),
    "a config that is copied": lambda config, size: numbers({**config}["rank"] and ROWS or ROWS),
    "unknown length": lambda config, size: numbers(40).filter(lambda x, y: y < ROWS).batch(size),
}


@pytest.mark.parametrize("creator", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_ranks_makes_the_same_steps(creator: Creator, size: int) -> None:
    assert together(run(creator, size)) == [IN_EIGHTS]


def test_ranks_without_rows_take_part() -> None:
    found = run(lambda config, size: numbers(9), 4)
    assert [epoch[0][1] for epoch in found] == [[], [], [], [8]]


@pytest.mark.parametrize(
    ("creator", "steps"),
    [
        (FORMS["rows"], 3),
        (FORMS["batches of a rank"], 3),
        (FORMS["batches of a step"], 3),
        (FORMS["unknown length"], None),
        (lambda config, size: numbers(5).batch(size), 1),
    ],
)
def test_steps_are_known_where_they_can_be(creator: Creator, steps: int | None) -> None:
    def count(member: Rank) -> int | None:
        return opened(creator, member, 8).steps

    assert on_ranks(2, count) == [steps, steps]


def shuffles(config: Config, size: int) -> Any:
    return numbers().shuffle(ROWS).batch(size)


def test_a_shuffle_without_a_seed_is_the_same_on_every_rank_and_new_each_epoch() -> None:
    found = together(run(shuffles, 2, epochs=3))
    assert found == together(run(shuffles, 1, epochs=3))
    orders = [list(itertools.chain.from_iterable(epoch)) for epoch in found]
    assert all(sorted(order) == list(range(ROWS)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_an_epoch_goes_on_in_its_middle_as_it_would_have() -> None:
    whole = together(run(shuffles, 2, epochs=3))
    assert together(run(shuffles, 3, epochs=3, at=(1, 1))) == [whole[1][1:], whole[2]]


def test_a_dataset_without_order_says_that_it_cannot_go_on_exactly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = tf.data.Options()
    options.deterministic = False
    run(lambda config, size: numbers().with_options(options), at=(0, 2), epochs=2)
    assert sum("no fixed order" in message for message in caplog.messages) == 1


def test_generators_that_count_their_epochs_are_in_step_with_them() -> None:
    def stamped(config: Config, size: int) -> Any:
        epochs = itertools.count()

        def rows() -> Any:
            epoch = next(epochs)
            for _ in range(10):
                yield np.array([epoch, -epoch], np.float32), epoch

        spec = (tf.TensorSpec(2, tf.float32), tf.TensorSpec((), tf.int64))
        return tf.data.Dataset.from_generator(rows, output_signature=spec)

    assert together(run(stamped, epochs=20, batch_size=16)) == [[[e] * 10] for e in range(20)]
    assert together(run(stamped, epochs=4, batch_size=16, at=(3, 0))) == [[[3] * 10]]


# What the creator has cut itself.


def strided(config: Config, size: int) -> Any:
    return numbers().shard(config["size"], config["rank"])


@pytest.mark.parametrize(
    "creator",
    [
        strided,
        lambda config, size: strided(config, size).batch(size),
        lambda config, size: strided(dict(config), size),
        lambda config, size: with_policy(strided(dict(config), size), Policy.OFF),
    ],
    ids=["rows", "batches", "copied", "off"],
)
def test_what_a_creator_has_cut_is_not_cut_again(creator: Creator) -> None:
    found = run(creator, 3)
    assert flat(found) == list(range(ROWS))
    assert [len(row) for row in found[2][0]] in ([2, 2, 2, 1], [3, 3, 1])


def test_a_part_without_rows_waits_for_nobody() -> None:
    def first_only(config: Config, size: int) -> Any:
        return numbers().take(ROWS if config["rank"] == 0 else 0)

    assert [len(epochs[0]) for epochs in run(first_only, 2)] == [6, 0]


def test_a_rank_that_is_asked_for_and_not_used_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def asks(config: Config, size: int) -> Any:
        return numbers() if config.get("rank") is not None else None

    assert len(flat(run(asks, 2))) == 2 * ROWS
    assert any("each row is used 2 times" in message for message in caplog.messages)
    found = run(lambda config, size: with_policy(asks(config, size), Policy.DATA), 2)
    assert flat(found) == list(range(ROWS))


def test_datasets_that_differ_unasked_are_refused() -> None:
    others = iter((10, 12))
    with pytest.raises(InputError, match="same on every rank.*some ranks.*OFF"):
        run(lambda config, size: numbers(next(others)), 2)


def test_datasets_that_come_to_differ_are_refused_before_the_next_epoch() -> None:
    orders = iter([[0, 1, 2, 3], [0, 1, 3, 2]])

    def differs(config: Config, size: int) -> Any:
        x = np.array(next(orders))
        features = np.stack([x, -x], 1).astype(np.float32)
        return tf.data.Dataset.from_tensor_slices((features, x)).batch(1)

    with pytest.raises(InputError, match="another order"):
        run(differs, 2, batch_size=2, epochs=2)


def lines(folder: Path, files: int) -> Creator:
    paths = []
    for number in range(files):
        path = folder / f"{number}.txt"
        path.write_text("".join(f"{row}\n" for row in range(number, ROWS, files)))
        paths.append(str(path))

    def row(line: Any) -> Any:
        number = tf.strings.to_number(line, tf.int64)
        return tf.cast(tf.stack([number, -number]), tf.float32), number

    def create(config: Config, size: int) -> Any:
        rows = tf.data.TextLineDataset(paths).map(row).batch(size)
        return with_policy(rows, Policy.FILE)

    return create


def test_files_are_shared_where_the_user_asks_for_it(tmp_path: Path) -> None:
    found = run(lines(tmp_path, 3), 2)
    assert flat(found) == list(range(ROWS))
    files = [{row % 3 for step in epochs[0] for row in step} for epochs in found]
    assert files == [{0, 2}, {1}]


@pytest.mark.parametrize("files", [1, 0])
def test_too_few_files_are_shared_by_rows(
    tmp_path: Path, files: int, caplog: pytest.LogCaptureFixture
) -> None:
    def none(config: Config, size: int) -> Any:
        return with_policy(numbers().batch(size), Policy.FILE)

    assert together(run(lines(tmp_path, 1) if files else none, 2)) == [IN_EIGHTS]
    assert sum("by its rows" in message for message in caplog.messages) == 1


def test_images_in_parquet_share_themselves(tmp_path: Path) -> None:
    schema = {
        "x": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (2,)),
        "y": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    }
    rows = ({"x": np.array([n, -n], np.float32), "y": n} for n in range(ROWS))
    path = str(tmp_path / "out")
    ParquetDataset.write(path, rows, schema, block_size=ROWS)

    def create(config: Config, size: int) -> Any:
        read = read_parquet("tf_dataset", path, config=config)
        return read.map(lambda row: (row["x"], row["y"])).batch(size)

    found = run(create, 4)
    assert flat(found) == list(range(ROWS))
    assert {len([r for step in epochs[0] for r in step]) for epochs in found} == {5, 6}


# Epochs of a number of steps.


def endless(config: Config, size: int) -> Any:
    return numbers().repeat().batch(size)


@pytest.mark.parametrize("size", [1, 2])
def test_an_endless_dataset_goes_on_from_epoch_to_epoch(size: int) -> None:
    found = together(run(endless, size, batch_size=2, epochs=4, steps=3))
    rows = [row for epoch in found for step in epoch for row in step]
    assert rows == [row % ROWS for row in range(24)]
    assert together(run(endless, size, batch_size=2, epochs=4, steps=3, at=(2, 1))) == [
        found[2][1:],
        found[3],
    ]


def test_a_dataset_with_an_end_begins_anew_after_it() -> None:
    found = together(run(shuffles, 2, epochs=4, steps=2))
    steps = [step for epoch in found for step in epoch]
    assert [len(step) for step in steps] == [8, 8, 7, 8, 8, 7, 8, 8]
    assert sorted(sum(steps[3:6], [])) == list(range(ROWS))


def test_validation_looks_at_the_same_rows_each_time() -> None:
    def work(member: Rank) -> list[list[list[int]]]:
        feed = opened(shuffles, member, 4, steps=2, part=1)
        return [steps_of(feed) for _ in range(3)]

    (first, second, third), *_ = on_ranks(2, work)
    assert first == second == third
    assert [len(step) for step in first] == [2, 2]


def test_validation_of_all_rows_makes_its_dataset_once() -> None:
    made = []

    def create(config: Config, size: int) -> Any:
        made.append(size)
        return numbers().batch(size)

    def work(member: Rank) -> list[list[list[int]]]:
        feed = opened(create, member, steps=None, part=1)
        return [steps_of(feed) for _ in range(3)]

    assert on_ranks(1, work) == [[IN_EIGHTS] * 3]
    assert made == [8]


@pytest.mark.parametrize(("part", "name"), [(0, "steps_per_epoch"), (1, "validation_steps")])
def test_a_dataset_that_ends_early_is_an_error(part: int, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*of 4 steps at least.*received 3 of them"):
        run(FORMS["rows"], 2, epochs=2, steps=4, part=part)


def test_a_dataset_without_an_end_needs_steps() -> None:
    with pytest.raises(InputError, match="steps_per_epoch.*without an end"):
        run(endless, 2)


# Batches of other kinds.


def test_batches_of_another_size_stay(caplog: pytest.LogCaptureFixture) -> None:
    found = together(run(lambda config, size: numbers().batch(5), 2))
    assert found == [[list(range(10)), list(range(10, 20)), [20, 21, 22]]]
    assert any("batches of 5 rows of its own" in message for message in caplog.messages)


def test_batches_whose_shapes_vary_are_not_cut() -> None:
    def padded(config: Config, size: int) -> Any:
        texts = tf.data.Dataset.range(1, 11).map(lambda n: (tf.fill([n], n), n))
        return texts.padded_batch(size)

    def work(member: Rank) -> list[Any]:
        feed = opened(padded, member, 6)
        assert feed.steps == 2
        return [batch and (batch.features[0].shape, batch.rows) for batch in feed.epoch(0)]

    assert on_ranks(2, work) == [[((3, 3), 3), ((3, 9), 3)], [((3, 6), 3), ((1, 10), 1)]]


def test_names_texts_and_weights_arrive() -> None:
    def create(config: Config, size: int) -> Any:
        x = {"word": np.array(["ä", "b", "c"]), "age": np.arange(3.0)}
        return tf.data.Dataset.from_tensor_slices((x, np.arange(3), [0.5, 1.0, 2.0])).batch(size)

    def work(member: Rank) -> list[Any]:
        return list(opened(create, member, 2).epoch(0))

    first, second = (batches[0] for batches in on_ranks(2, work))
    assert first.features["word"].tolist() == ["ä".encode()]
    assert second.features["age"].tolist() == [1.0]
    assert (second.targets[0].tolist(), second.weights.tolist()) == ([1], [1.0])


VECTORS = (np.ones((6, 3)), np.ones((6, 3)))


@pytest.mark.parametrize(
    ("creator", "shape"),
    [
        (lambda config, size: tf.data.Dataset.from_tensor_slices(VECTORS), (4, 3)),
        (lambda c, n: tf.data.Dataset.from_tensor_slices(VECTORS).batch(3, True), (3, 3)),
        (lambda c, n: tf.data.Dataset.from_tensor_slices(VECTORS).batch(3).unbatch(), (4, 3)),
    ],
    ids=["rows", "batches", "rows again"],
)
def test_vectors_of_one_length_are_rows_unless_something_made_batches(
    creator: Creator, shape: tuple[int, ...]
) -> None:
    (batch,) = on_ranks(1, lambda member: next(opened(creator, member, 4).epoch(0)))
    assert batch is not None
    assert batch.features[0].shape == shape  # type: ignore[index]


def unknown(x: Any, y: Any) -> Any:
    return tf.py_function(lambda a: a, [x], tf.float32), y


BAD: dict[str, tuple[Creator, str]] = {
    "no dataset": (lambda c, n: [1, 2], "tf.data.Dataset from the data creator.*list"),
    "features alone": (lambda c, n: numbers().map(lambda x, y: x), r"\(features, targets\)"),
    "a dict": (lambda c, n: numbers().map(lambda x, y: {"x": x}), "as a dict of 'x'.*map"),
    "four parts": (lambda c, n: numbers().map(lambda x, y: (x, y, y, y)), "of 4 parts"),
    "parts in parts": (lambda c, n: numbers().map(lambda x, y: ((x, (y, y)), y)), "inside these"),
    "ragged": (
        lambda c, n: numbers().batch(2).map(lambda x, y: (tf.RaggedTensor.from_tensor(x), y)),
        "dense tensors.*RaggedTensor.*to_tensor",
    ),
    "sparse": (
        lambda c, n: numbers().map(lambda x, y: (tf.sparse.from_dense(x), y)),
        "dense tensors.*SparseTensor.*to_dense",
    ),
    "no rows": (lambda c, n: numbers(0), "rows to work on.*empty"),
    "unknown shapes": (lambda c, n: numbers().map(unknown), "unknown shape.*ensure_shape"),
    "more labels than images": (
        lambda c, n: numbers(6).batch(6).map(lambda x, y: (x[:4], y)),
        "tensors of 4 and 6 rows",
    ),
}


@pytest.mark.parametrize(("creator", "message"), BAD.values(), ids=BAD)
def test_other_datasets_are_refused(creator: Creator, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(creator, 2)
