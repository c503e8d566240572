"""What conformance is about: engines that start ranks, and frameworks that train in them.

Another launcher, another framework or another way to agree is one entry in a table.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np
import torch
from pyspark import cloudpickle
from torch import nn

from warm_launcher import WarmLauncher
from zoo.cluster.host import host_key
from zoo.cluster.ranks.launcher import Launcher, launcher_for
from zoo.orca.learn.framework import framework_for
from zoo.orca.learn.keras.recipe import Recipe as KerasRecipe
from zoo.orca.learn.linear.framework import Linear, LinearModel, LinearRecipe
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.state import save_state
from zoo.orca.learn.steps import Position

__all__ = ["ENGINES", "FRAMEWORKS", "Engine", "Framework", "OnKeras", "Torch", "Weights"]

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Weights = Mapping[str, np.ndarray]
Rows = np.ndarray
"""Of some rows: three features, the target, the number of the row."""


class Framework(Protocol):
    """How a framework of `zoo.orca.learn` trains a model of its own in double precision."""

    name: str
    features: list[str | list[str]]
    tolerance: float

    def recipe(self, seed: int) -> Any:
        """What the order to the ranks carries; the seed is that of the first weights."""

    def state(self, recipe: Any) -> bytes:
        """Where training begins."""

    def weights(self, state: bytes) -> Weights:
        """The weights in a state; `uses` says how often each row was used, if they tell."""

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        """The weights after these batches, in code without Zoo."""


class Net(nn.Module):
    """Small and not linear, beside one weight for each row."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.uses = nn.Embedding(512, 1)
        nn.init.zeros_(self.uses.weight)

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.layers(x), self.uses(row)], dim=1)


def both_losses(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean of squared errors, and of the weights of the rows: these have a gradient above 0."""
    return ((output[:, 0] - target) ** 2 + output[:, 1]).mean()


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    """Without memory for the weights of rows: each falls by one whenever its row is used."""
    counting = {"lr": 1.0, "betas": (0.0, 0.0), "eps": 1e-300}
    groups = [
        {"params": model.layers.parameters()},
        {"params": model.uses.parameters(), **counting},
    ]
    return torch.optim.Adam(groups, lr=0.01)


class Torch:
    """PyTorch."""

    name = "pytorch"
    features: list[str | list[str]] = [["x0", "x1", "x2"], "row"]  # noqa: RUF012
    tolerance = 1e-9

    def recipe(self, seed: int) -> Recipe:
        return Recipe(model=lambda config: Net(seed).double(), optimizer=adam, loss=both_losses)

    def state(self, recipe: Recipe) -> bytes:
        return save_state(build(recipe), Position())

    def weights(self, state: bytes) -> Weights:
        return self.named(torch.load(io.BytesIO(state), weights_only=True)["model"])

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        model = Net(seed).double()
        optimizer = adam(model, {})
        for rows in batches:
            optimizer.zero_grad()
            x, y, row = (torch.from_numpy(rows[:, k].copy()) for k in (slice(3), 3, 4))
            both_losses(model(x, row.long()), y).backward()
            optimizer.step()
        return self.named(model.state_dict())

    def named(self, weights: Mapping[str, torch.Tensor]) -> Weights:
        """As arrays."""
        found = {name: value.numpy() for name, value in weights.items()}
        return found | {"uses": -found.pop("uses.weight").ravel()}


class Graphs:
    """A graph of TensorFlow 1."""

    name = "graph"
    features: list[str | list[str]] = [["x0", "x1", "x2"], "row"]  # noqa: RUF012
    tolerance = 1e-9

    def parts(self, seed: int) -> dict[str, Any]:
        """The graph: small and not linear, beside one weight for each row, and a running mean."""
        import tensorflow as tf

        v1, real, draw = tf.compat.v1, tf.float64, np.random.default_rng(seed)

        def variable(name: str, value: np.ndarray, *, trainable: bool = True) -> Any:
            return v1.get_variable(name, initializer=value, trainable=trainable, use_resource=True)

        with tf.Graph().as_default():
            x, row = v1.placeholder(real, [None, 3]), v1.placeholder(tf.int64, [None])
            y = v1.placeholder(real, [None])
            hidden = tf.tanh(
                x @ variable("w", draw.normal(size=(3, 8))) + variable("b", np.ones(8))
            )
            output = (hidden @ variable("v", draw.normal(size=(8, 1))))[:, 0]
            uses = tf.gather(variable("uses", np.zeros(512)), row)
            seen = variable("seen", np.zeros(3), trainable=False)
            update = v1.assign_sub(seen, 0.1 * (seen - tf.reduce_mean(x, axis=0)))
            loss = tf.reduce_mean((output - y) ** 2)
            return {
                "inputs": [x, row],
                "labels": y,
                "outputs": output,
                "loss": loss + tf.reduce_mean(uses),
                "updates": [update],
                "optimizer": self.optimizer(),
            }

    def optimizer(self) -> Any:
        """With momentum; the weight of a row falls by one whenever the row is used."""
        import tensorflow as tf

        class Counting(tf.compat.v1.train.MomentumOptimizer):
            def _resource_apply_sparse(self, grad: Any, handle: Any, indices: Any) -> Any:
                return handle.scatter_sub(tf.IndexedSlices(tf.sign(grad), indices))

        return Counting(0.01, 0.9)

    def recipe(self, seed: int) -> Any:
        from zoo.orca.learn.graph.estimator import from_graph

        made = from_graph(**self.parts(seed))
        return replace(made._recipe, values=made._built.program.values())

    def state(self, recipe: Any) -> bytes:
        from zoo.orca.learn.graph.framework import Graph

        file = io.BytesIO()
        Graph().write(file, Graph().build(recipe), Position(), {})
        return file.getvalue()

    def weights(self, state: bytes) -> Weights:
        from zoo.orca.learn.graph.state import read_state

        return self.named(read_state(state).tree["variables"])

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        import tensorflow as tf

        v1, parts = tf.compat.v1, self.parts(seed)
        (x, row), y = parts["inputs"], parts["labels"]
        with x.graph.as_default(), v1.Session() as sess:
            train = parts["optimizer"].minimize(parts["loss"])
            own = v1.global_variables()
            sess.run(v1.global_variables_initializer())
            for rows in batches:
                feeds = {x: rows[:, :3], row: rows[:, 4], y: rows[:, 3]}
                sess.run([train, parts["updates"]], feeds)
            return self.named(sess.run({v.op.name: v for v in own}))

    def named(self, values: Mapping[str, np.ndarray]) -> Weights:
        """Without what the optimizer remembers."""
        found = {name: value for name, value in values.items() if "/" not in name}
        return found | {"uses": -found["uses"]}


class OwnLinear:
    """The linear model in numpy."""

    name = "linear"
    features: list[str | list[str]] = [["x0", "x1", "x2"]]  # noqa: RUF012
    tolerance = 1e-12

    def recipe(self, seed: int) -> LinearRecipe:
        return LinearRecipe(inputs=3, rate=0.05)

    def state(self, recipe: LinearRecipe) -> bytes:
        file = io.BytesIO()
        Linear().write(file, LinearModel(recipe), Position(), {})
        return file.getvalue()

    def weights(self, state: bytes) -> Weights:
        return {"weights": Linear().read(state).tree["weights"]}

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        weights, speed = np.zeros((2, 4))
        for rows in batches:
            x, y = np.column_stack([rows[:, :3], np.ones(len(rows))]), rows[:, 3]
            speed = 0.9 * speed + 2 * x.T @ (x @ weights - y) / len(y)
            weights = weights - 0.05 * speed
        return {"weights": weights}


class KerasNet(keras.Model):
    """Small and not linear, beside one weight for each row."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.hidden = keras.layers.Dense(8, activation="tanh", dtype="float64")
        self.last = keras.layers.Dense(1, dtype="float64")
        self.uses = keras.layers.Embedding(512, 1, "zeros", dtype="float64")

    def build(self, shapes: Any) -> None:
        self.hidden.build((None, 3))
        self.last.build((None, 8))
        self.uses.build((None,))

    def call(self, inputs: Any) -> Any:
        x, row = inputs
        return keras.ops.concatenate([self.last(self.hidden(x)), self.uses(row)], axis=1)


class BothLosses(keras.losses.Loss):
    """Squared errors, and the weights of the rows: these have a gradient above 0."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return (y_pred[:, 0] - keras.ops.reshape(y_true, (-1,))) ** 2 + y_pred[:, 1]


class CountingAdam(keras.optimizers.Adam):
    """Without memory for the weights of rows: each falls by one whenever its row is used."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if variable.shape != (512, 1):
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = keras.ops.convert_to_tensor(gradient)
        self.assign_sub(variable, keras.ops.sign(gradient))


def keras_model(config: dict[str, Any]) -> keras.Model:
    """Compiled, in double precision."""
    random.seed(config["model_seed"])
    model = KerasNet()
    model.build([(None, 3), (None,)])
    model.compile(optimizer=CountingAdam(0.01), loss=BothLosses(dtype="float64"))
    return model


class OnKeras:
    """Keras, on the backend of this process."""

    name = f"keras-{keras.backend.backend()}"
    features: list[str | list[str]] = [["x0", "x1", "x2"], "row"]  # noqa: RUF012
    # Elsewhere Keras computes in single precision, whatever the type that it is given.
    tolerance = 1e-9 if keras.backend.backend() == "tensorflow" else 2e-5

    def recipe(self, seed: int) -> KerasRecipe:
        return KerasRecipe(creator=keras_model, config={"model_seed": seed})

    def state(self, recipe: KerasRecipe) -> bytes:
        file, framework = io.BytesIO(), framework_for(self.name)
        framework.write(file, framework.build(recipe), Position(), {})
        return file.getvalue()

    def weights(self, state: bytes) -> Weights:
        return self.named(framework_for(self.name).read(state).tree["model"])

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        model = keras_model({"model_seed": seed})
        for rows in batches:
            model.train_on_batch([rows[:, :3], rows[:, 4].astype(np.int64)], rows[:, 3])
        return self.named(model.get_weights())

    def named(self, weights: Sequence[np.ndarray]) -> Weights:
        """As arrays by their number."""
        *layers, uses = weights
        found = {str(number): value for number, value in enumerate(layers)}
        return found | {"uses": -uses.ravel()}


FRAMEWORKS: dict[str, Framework] = {
    "pytorch": Torch(),
    "linear": OwnLinear(),
    "keras": OnKeras(),
    "graph": Graphs(),
}


@dataclass(frozen=True)
class Engine:
    """What starts ranks.

    Attributes:
        launcher: Makes a launcher.
        hosts: Where its ranks are and the shards lie, in turn.
    """

    launcher: Callable[[], Launcher]
    hosts: tuple[str, ...] = (host_key(),)


ENGINES = {
    "processes": Engine(WarmLauncher),
    "two hosts": Engine(lambda: WarmLauncher("one", "other"), ("one", "other")),
    "spark": Engine(lambda: launcher_for("spark")),
}
"""The first is the reference and does everything; the others show that they do the same."""
