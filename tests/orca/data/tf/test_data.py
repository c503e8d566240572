import os
import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from zoo.errors import ContractError, InputError
from zoo.orca.data import SparkXShards, XShards
from zoo.orca.data.tf.data import Dataset, SliceRecipe
from zoo.orca.data.tf.variable import VariableArrays


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow")


def listed(dataset: Any) -> list[Any]:
    return list(dataset.as_numpy_iterator())


def ragged(*lengths: int) -> np.ndarray:
    arrays = np.empty(len(lengths), object)
    for row, length in enumerate(lengths):
        arrays[row] = np.full((length, 2), row, np.float32)
    return arrays


def test_dict_is_sliced(tf: ModuleType) -> None:
    shard = {"x": np.arange(6).reshape(3, 2), "y": np.array([0.0, 0.5, 1.0])}
    elements = listed(SliceRecipe().build([shard]))
    assert [element["x"].tolist() for element in elements] == shard["x"].tolist()
    assert [element["y"] for element in elements] == [0.0, 0.5, 1.0]


def test_tuple_is_sliced(tf: ModuleType) -> None:
    shard = (np.arange(2), {"a": np.array([[1], [2]], np.uint8)})
    elements = listed(SliceRecipe().build([shard]))
    assert [(int(x), int(y["a"][0])) for x, y in elements] == [(0, 1), (1, 2)]


def test_shards_of_a_partition_follow_each_other(tf: ModuleType) -> None:
    shards = [np.arange(n) + 10 * n for n in (2, 0, 3)]
    assert listed(SliceRecipe().build(shards)) == [20, 21, 30, 31, 32]


def test_texts_and_bytes_are_strings(tf: ModuleType) -> None:
    shard = {"image": np.array([b"\xff\x00", b""], object), "name": np.array(["a", "ü"])}
    elements = listed(SliceRecipe().build([shard]))
    assert [element["image"] for element in elements] == [b"\xff\x00", b""]
    assert [element["name"].decode() for element in elements] == ["a", "ü"]


def test_arrays_of_several_shapes(tf: ModuleType) -> None:
    dataset = SliceRecipe().build([{"label": ragged(2, 0, 3)}, {"label": ragged(1)}])
    assert dataset.element_spec["label"].shape.rank == 2
    assert [element["label"].shape for element in listed(dataset)] == [
        (2, 2),
        (0, 2),
        (3, 2),
        (1, 2),
    ]


def test_arrays_of_several_shapes_in_a_tuple(tf: ModuleType) -> None:
    elements = listed(SliceRecipe().build([(ragged(2, 1), np.arange(2))]))
    assert [(box.shape, int(n)) for box, n in elements] == [((2, 2), 0), ((1, 2), 1)]


def test_functions_are_mapped_in_turn(tf: ModuleType) -> None:
    recipe = SliceRecipe((lambda x: x + 1, lambda x: x * 10))
    assert listed(recipe.build([np.arange(3)])) == [10, 20, 30]


def test_recipe_travels_with_its_functions(tf: ModuleType) -> None:
    step = 5
    recipe = pickle.loads(pickle.dumps(SliceRecipe((lambda x: x + step,))))
    assert listed(recipe.build([np.arange(2)])) == [5, 6]


def test_empty_partition_needs_the_form_of_others(tf: ModuleType) -> None:
    spec = SliceRecipe().build([{"x": np.arange(3)}]).element_spec
    empty = SliceRecipe().build([], element_spec=spec)
    assert listed(empty) == []
    assert empty.element_spec == spec
    with pytest.raises(InputError, match="element_spec"):
        SliceRecipe().build([])


@pytest.mark.parametrize("shard", [{"x": np.arange(3), "y": np.arange(2)}, object(), {"x": 1}])
def test_shard_that_cannot_be_sliced(tf: ModuleType, shard: Any) -> None:
    with pytest.raises(InputError, match="first dimension"):
        SliceRecipe().build([shard])


@pytest.mark.parametrize("given", [[np.arange(3)], None, "xshards"])
def test_only_xshards_are_accepted(given: Any) -> None:
    with pytest.raises(AssertionError, match="only datasets backed by a SparkXShards"):
        Dataset.from_tensor_slices(given)
    with pytest.raises(ContractError):
        Dataset.from_tensor_slices(given)


@pytest.mark.spark
def test_map_leaves_the_dataset_it_comes_from(spark: SparkSession, tf: ModuleType) -> None:
    shards = XShards.partition({"x": np.arange(4)}, num_shards=2)
    dataset = Dataset.from_tensor_slices(shards)
    mapped = dataset.map(lambda element: element["x"] * 2)
    assert listed(mapped.build(shards.collect())) == [0, 2, 4, 6]
    assert listed(dataset.build(shards.collect()))[3] == {"x": 3}
    assert mapped.xshards is shards


@pytest.mark.spark
def test_worker_builds_its_part(spark: SparkSession, tf: ModuleType) -> None:
    shards = XShards.partition({"x": np.arange(4), "y": np.ones(4)}, num_shards=1)
    assert isinstance(shards, SparkXShards)
    recipe = Dataset.from_tensor_slices(shards).map(lambda e: e["x"] + 1).recipe

    def numbers(partition: Any) -> list[int]:
        return [int(n) for n in recipe.build(partition)]

    assert shards.rdd.mapPartitions(numbers).collect() == [1, 2, 3, 4]


def test_variable_arrays_come_back(tf: ModuleType) -> None:
    packer = VariableArrays(np.dtype(np.uint8), (None, 2))
    data, shapes = packer.pack([np.ones((3, 2)), np.zeros((0, 2))])
    assert packer.unpack(data[0], shapes[0]).numpy().tolist() == [[1, 1]] * 3
    assert packer.unpack(data[1], shapes[1]).shape == (0, 2)


def test_variable_arrays_that_cannot_be() -> None:
    with pytest.raises(InputError, match="several shapes"):
        VariableArrays(np.dtype("U3"), None)
    with pytest.raises(InputError, match="number of axes"):
        VariableArrays(np.dtype(np.int32), None).pack([np.ones(2), np.ones((2, 2))])
