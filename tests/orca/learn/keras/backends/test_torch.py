"""Keras on PyTorch does what Keras on TensorFlow does, and leaves plain torch as it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orca.learn.keras.on_backend import run_tests

HERE = Path(__file__).parent


@pytest.mark.slow
def test_steps_metrics_and_callbacks_on_torch() -> None:
    others = [HERE.parent / f"test_{name}.py" for name in ("metrics", "callbacks")]
    run_tests("torch", HERE / "test_steps.py", *others)


PLAIN = """
import torch

torch.manual_seed(1)
before = torch.rand(3), torch.get_default_dtype(), torch.is_grad_enabled()
net = torch.nn.Linear(2, 1)
import keras
from zoo.orca.learn.keras.backends import backend_for
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.keras.built import Built, step_seeds
from zoo.orca.learn.keras.recipe import Recipe
import numpy as np

model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
model.compile("sgd", "mse")
built = Built(model, Recipe(model=model))
built.ready()
steps = backend_for(built)
rows = Batch((np.ones((4, 2), "float32"),), (np.ones((4, 1), "float32"),), 4)
steps.update(steps.backward(rows, step_seeds(0, 0, 0, len(built.seeds()))).gradients)
steps.score(rows), steps.forward(rows.features)
net(torch.ones(1, 2)).sum().backward()
assert net.weight.grad is not None and net.training
assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before[1:]
assert not torch.is_inference_mode_enabled()
print("unharmed")
"""


@pytest.mark.slow
def test_plain_torch_is_unharmed() -> None:
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", PLAIN]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "unharmed", done.stderr[-2000:]
