"""OpenVINO at work on arrays, with tiny models and those of its own model server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset15 as ops

from zoo.errors import InputError, NotYetError
from zoo.orca.learn.openvino.files import graph_files
from zoo.orca.learn.openvino.runtime import joined_files, opened
from zoo.orca.learn.score.ports import OpenModel

MODELS = Path(__file__).parents[5] / "shared" / "data" / "models" / "openvino"


def linear(batch: int = -1, width: int = 4) -> bytes:
    """x @ weights, and x + 1."""
    weights = np.random.default_rng(0).random((width, 3)).astype(np.float32)
    x = ops.parameter([batch, width], np.float32, name="x")
    outputs = [
        ops.matmul(x, ops.constant(weights), False, False),
        ops.add(x, ops.constant(np.float32(1))),
    ]
    return joined_files(*graph_files(openvino.Model(outputs, [x], "linear")))


def real(name: str) -> OpenModel:
    if not MODELS.is_dir():
        pytest.skip("the models are not here")
    xml = next((MODELS / name).rglob("*.xml"))
    return opened(joined_files(xml.read_bytes(), xml.with_suffix(".bin").read_bytes()))


@pytest.mark.parametrize("batch", [-1, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9])
def test_rows_are_predicted_as_numpy_does(batch: int, rows: int) -> None:
    x = np.random.default_rng(rows).random((rows, 4)).astype(np.float32)
    weights = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    product, more = opened(linear(batch))([x])
    np.testing.assert_allclose(product, x @ weights, rtol=1e-5)
    np.testing.assert_array_equal(more, x + 1)


@pytest.mark.parametrize("batch", [-1, 8])
def test_threads_get_the_answers_to_their_own_rows(batch: int) -> None:
    model, start = opened(linear(batch)), threading.Barrier(8)

    def call(number: int) -> int:
        start.wait(10)
        right = 0
        for k in range(125):
            x = np.full((1 + k % 9, 4), 1000 * number + k, np.float32)
            right += np.array_equal(model([x])[1], x + 1)
        return right

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(call, range(8))) == 1_000


def test_later_calls_leave_outputs_alone() -> None:
    model = opened(linear())
    first = model([np.ones((2, 4), np.float32)])[1]
    model([np.zeros((2, 4), np.float32)])
    assert (first == 2).all()


def test_real_models() -> None:
    x = np.random.default_rng(0).random((5, 10)).astype(np.float32)
    np.testing.assert_array_equal(real("dummy")([x]), x + 1)
    np.testing.assert_array_equal(real("add_two_inputs_model")([x, 2 * x]), x + 2 * x)
    np.testing.assert_allclose(real("dummy_fp64")([x.astype(float)]), x + 1.0, rtol=1e-6)
    image = np.random.default_rng(0).random((3, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(real("increment_1x3x4x5")([image]), image + 1)
    a, b = np.arange(20, dtype=np.int8).reshape(2, 10), np.ones((2, 10), np.int8)
    both = real("no_name_output")([a, b])
    assert len(both) == 2
    assert all(output.shape == (2, 10) for output in both)
    pixels = np.arange(6, dtype=np.uint8).reshape(3, 2)
    found = real("passthrough")([pixels])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found - found[0, 0], pixels)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("scalar", InputError, "'model_scalar_input'"),
        ("passthrough_string", NotYetError, "type string"),
        ("summator", NotYetError, "remembers"),
    ],
)
def test_models_without_rows_or_numbers_are_refused(name: str, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        real(name)


def test_whole_numbers_that_openvino_would_cut_are_refused() -> None:
    x = ops.parameter([-1], np.int64, name="ids")
    graph = openvino.Model([ops.add(x, ops.constant(np.int64(1)))], [x], "ids")
    model = opened(joined_files(*graph_files(graph)))
    np.testing.assert_array_equal(model([np.array([2**31 - 2, -5])]), [2**31 - 1, -4])
    with pytest.raises(InputError, match="the input 'ids'"):
        model([np.array([2**31])])


@pytest.mark.parametrize("blob", [joined_files(b"<net/>", b""), joined_files(b"", b""), b"junk"])
def test_what_is_no_model_is_refused(blob: bytes) -> None:
    with pytest.raises(InputError, match="a model in OpenVINO's form"):
        opened(blob)
