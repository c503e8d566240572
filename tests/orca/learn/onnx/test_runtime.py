"""ONNX Runtime at work on arrays, with the models of ONNX's own tests."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from zoo.errors import InputError, NotYetError
from zoo.orca.learn.onnx.runtime import opened, read_whole
from zoo.orca.learn.score.ports import OpenModel

MODELS = Path(__file__).parents[5] / "shared" / "data" / "models"
CASES = sorted(MODELS.glob("onnx/pytorch-converted/*"))


def onnx_file(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **more: Any
) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, outputs, **more)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def plus_one(batch: int | None, kind: int = TensorProto.FLOAT) -> bytes:
    shape = [batch if batch else "rows", 2]
    ports = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    one = helper.make_tensor("one", kind, [], [1])
    node = helper.make_node("Add", ["x", "one"], ["y"])
    return bytes(onnx_file([node], ports[:1], ports[1:], initializer=[one]).SerializeToString())


def need_models() -> None:
    if not MODELS.is_dir():
        pytest.skip("the models are not here")


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9])
def test_exact_rows(batch: int | None, rows: int) -> None:
    x = np.random.default_rng(rows).random((rows, 2)).astype(np.float32)
    np.testing.assert_array_equal(opened(plus_one(batch))([x]), x + 1)


@pytest.mark.parametrize("batch", [None, 8])
def test_threads_get_the_answers_to_their_own_rows(batch: int | None) -> None:
    model, start = opened(plus_one(batch)), threading.Barrier(8)

    def call(number: int) -> int:
        start.wait(10)
        given = [np.full((1 + k % 9, 2), 1000 * number + k, np.float32) for k in range(125)]
        return sum(np.array_equal(model([x]), x + 1) for x in given)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(call, range(8))) == 1_000


def arrays(folder: Path, kind: str) -> list[np.ndarray]:
    paths = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"))
    return [numpy_helper.to_array(onnx.load_tensor(str(path))) for path in paths]


def test_models_of_onnx_give_what_they_should() -> None:
    need_models()
    right = 0
    for case in CASES:
        blob = (case / "model.onnx").read_bytes()
        try:
            model = opened(blob)
        except InputError:  # operators of the first versions, which ONNX Runtime has no more
            continue
        given, (wanted,) = arrays(case, "input"), arrays(case, "output")
        found = model(given)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=case.name)
        # Fixed for these rows: three times as many, and one less, come out as exactly as many.
        more = model([np.concatenate([a, a, a])[1:] for a in given])
        np.testing.assert_allclose(more, np.concatenate([wanted] * 3)[1:], rtol=1e-3, atol=1e-5)
        right += 1
    assert right >= 50


def test_digits_are_read() -> None:
    need_models()
    told = json.loads((MODELS / "mnist" / "expected.json").read_text())["outputs"]
    model = opened((MODELS / "mnist" / "opt-mnist.onnx").read_bytes())
    images = [np.asarray(Image.open(MODELS / "mnist" / name).convert("L")) for name in told]
    found = model([np.stack(images).reshape(-1, 1, 28, 28) / np.float32(255)])
    wanted = [told[name]["logits"] for name in told]
    np.testing.assert_allclose(found, wanted, atol=0.05)


def odd(name: str) -> OpenModel:
    need_models()
    return opened(read_whole(MODELS / "onnx-odd" / name))


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("sklearn_randomforest.onnx", NotYetError, "output_probability' of type seq"),
        ("example_strings.onnx", InputError, "a model that ONNX Runtime can run"),
        ("example_needs_extensions.onnx", InputError, "a model that ONNX Runtime can run"),
    ],
)
def test_models_without_numbers_are_refused(name: str, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        odd(name)


def test_open_dimensions_stay_open() -> None:
    (port,) = odd("example_dynamic_axes.onnx").inputs
    assert port.shape[0] is None


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.INT64, "int64"),
    ],
)
def test_numbers_of_other_types(kind: int, dtype: str) -> None:
    x = np.arange(6).reshape(3, 2)
    found = opened(plus_one(None, kind))([x])
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x + 1)


def with_weights_beside(folder: Path) -> Path:
    """A file whose weights lie in another."""
    weights = numpy_helper.from_array(np.arange(400, dtype=np.float32).reshape(1, 400), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 400]) for n in "xy")
    made = onnx_file([helper.make_node("Add", ["x", "w"], ["y"])], [x], [y], initializer=[weights])
    path = folder / "m.onnx"
    onnx.save(made, str(path), save_as_external_data=True, location="w.bin", size_threshold=1)
    return path


def test_weights_in_another_file_travel_along(tmp_path: Path) -> None:
    path = with_weights_beside(tmp_path)
    blob = read_whole(path)
    (tmp_path / "w.bin").unlink()
    found = opened(blob)([np.zeros((2, 400), np.float32)])
    np.testing.assert_array_equal(found, np.tile(np.arange(400), (2, 1)))
    with pytest.raises(InputError, match="in local files beside it"):
        read_whole(path)


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    path = with_weights_beside(inside)
    (inside / "w.bin").rename(tmp_path / "w.bin")
    model = onnx.load(str(path), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../w.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="in local files beside it"):
        read_whole(path)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="a model that ONNX Runtime can run"):
        opened(b"junk")
