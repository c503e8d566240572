"""The model of the trials as a graph of TensorFlow 1: that of `torch_net`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trials.work import BATCH, SEED, Weights, Work
from zoo.orca.learn.tf.estimator import Estimator

__all__ = ["estimator", "weights"]

v1 = tf.compat.v1


def estimator(work: Work, **options: Any) -> Any:
    """What trains it."""
    with tf.Graph().as_default():
        x, row = v1.placeholder(tf.float64, [None, 3]), v1.placeholder(tf.int64, [None])
        y = v1.placeholder(tf.float64, [None])
        draw = np.random.default_rng(11)

        def variable(name: str, value: np.ndarray) -> Any:
            return v1.get_variable(name, initializer=value, use_resource=True)

        inner = variable("w", draw.normal(size=(3, 16)) / 2), variable("b", np.zeros(16))
        outer = variable("v", draw.normal(size=(16, 1)) / 4), variable("c", np.zeros(1))
        output = tf.tanh(x @ inner[0] + inner[1]) @ outer[0] + outer[1]
        uses = tf.gather(variable("uses", np.zeros((work.rows, 1))), row)
        loss = tf.reduce_sum((output[:, 0] - y) ** 2 / BATCH + uses[:, 0])
        return Estimator.from_graph(
            inputs=[x, row], outputs=[output], labels=y, loss=loss, optimizer=_optimizer(work),
            config={"seed": SEED}, **options,
        )  # fmt: skip


def weights(estimator: Any) -> Weights:
    """Of the model, by name."""
    found = estimator.get_model()
    return {name: found[name] for name in ("w", "b", "v", "c", "uses")}


class Counting:
    """An optimizer that takes whole steps for looked up rows: only `uses` has such."""

    def _resource_apply_sparse(self, grad: Any, handle: Any, indices: Any) -> Any:
        return handle.scatter_sub(tf.IndexedSlices(grad, indices))


class CountingAdam(Counting, v1.train.AdamOptimizer):
    """Adam."""


class CountingMomentum(Counting, v1.train.MomentumOptimizer):
    """SGD with momentum."""


def _optimizer(work: Work) -> Any:
    if work.optimizer == "adam":
        return CountingAdam(0.003)
    step = v1.train.get_or_create_global_step()
    return CountingMomentum(v1.train.cosine_decay(0.02, step, work.steps), 0.9)
