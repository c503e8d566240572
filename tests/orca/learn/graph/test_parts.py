"""What cannot be used is refused when the estimator is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from small_graph import net, recipe_of
from zoo.errors import InputError
from zoo.orca.learn.graph.estimator import from_graph
from zoo.orca.learn.graph.program import Program

v1 = tf.compat.v1


def given(**other: Any) -> dict[str, Any]:
    here = net()
    with here.graph.as_default():
        made = {name: make(here) if callable(make) else make for name, make in other.items()}
        base = {
            "inputs": here.x,
            "labels": here.y,
            "outputs": here.output,
            "loss": tf.reduce_mean(here.losses),
            "optimizer": v1.train.AdamOptimizer(),
        }
    return base | made


WRONG = {
    "an array": ({"inputs": np.zeros(3)}, "inputs as a tensor of a TensorFlow graph"),
    "an eager tensor": ({"loss": tf.constant(1.0)}, "loss as a tensor.*a value"),
    "nothing": ({"inputs": None}, "inputs of the graph"),
    "an eager variable": ({"outputs": tf.Variable(1.0)}, "outputs as a tensor"),
    "a name": ({"outputs": "output:0"}, "outputs as a tensor"),
    "a tensor of another graph": ({"labels": net().y}, "labels .* of another graph"),
    "an update of another graph": ({"updates": [net().y]}, "updates .* of another graph"),
    "whole numbers": ({"loss": lambda n: tf.shape(n.x)[0]}, "a loss of floating-point numbers"),
    "a fixed batch": (
        {"inputs": lambda n: v1.placeholder(tf.float32, [8, 3])},
        "for any number of rows",
    ),
    "a scalar": ({"labels": lambda n: v1.placeholder(tf.float32, [])}, "for any number of rows"),
    "a loss of nothing": (
        {"loss": lambda n: tf.reduce_mean(n.x)},
        "depends on trainable variables",
    ),
    "an optimizer of Keras": ({"optimizer": keras.optimizers.Adam()}, "optimizers of Keras"),
    "a word": ({"optimizer": "adam"}, "optimizer of tf.compat.v1.train"),
    "a function of Python": (
        {"loss": lambda n: tf.reduce_mean(v1.py_func(lambda a: a, [n.losses], tf.float64))
         + tf.reduce_mean(n.losses)},
        "a function of Python",
    ),
    "a metric that is none": ({"metrics": ["accuracy"]}, "metrics as a dict of tensors"),
    "a pair as a metric": ({"metrics": lambda n: {"m": (n.output, n.y)}}, "metrics.'m'."),
    "a norm below 0": ({"clip_norm": -1.0}, "clip_norm above 0"),
    "a range the wrong way": ({"clip_value": (1.0, -1.0)}, "clip_value as a positive number"),
    "a value below 0": ({"clip_value": -1.0}, "clip_value as a positive number"),
    "a backend": ({"backend": "horovod"}, "backend as one of"),
    "a recovery": ({"recovery": 3}, "Recovery"),
    "more than most": ({"min_workers": 3, "max_workers": 2}, "Swap"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_bad_argument_is_refused_with_what_to_do(what: str) -> None:
    arguments, said = WRONG[what]
    with pytest.raises(InputError, match=said):
        from_graph(**given(**arguments))


def test_finished_graph_is_refused() -> None:
    arguments = given()
    arguments["inputs"].graph.finalize()
    with pytest.raises(InputError, match="a graph that can grow"):
        from_graph(**arguments)


def test_session_of_another_graph_is_refused() -> None:
    with v1.Session(graph=tf.Graph()) as sess, pytest.raises(InputError, match="of another graph"):
        from_graph(**given(sess=lambda n: sess))


def test_making_an_estimator_leaves_tensorflow_as_it_is() -> None:
    from_graph(**given())
    assert tf.executing_eagerly()
    assert v1.get_default_graph() is not given()["inputs"].graph


def test_seed_decides_first_weights() -> None:
    def first(seed: int) -> np.ndarray:
        here = net()
        with here.graph.as_default():
            v1.get_variable("more", [4, 4], tf.float64, use_resource=True)
            loss = tf.reduce_mean(here.losses)
            arguments = {"optimizer": v1.train.AdamOptimizer(), "loss": loss}
            est = from_graph(inputs=here.x, labels=here.y, **arguments, config={"seed": seed})
            return est.get_model()["more"]

    np.testing.assert_array_equal(first(1), first(1))
    assert np.abs(first(1) - first(2)).max() > 0.01


def test_seed_of_the_graph_gives_the_weights_of_tensorflow() -> None:
    here = net()
    with here.graph.as_default(), v1.Session() as sess:
        v1.set_random_seed(5)
        more = v1.get_variable("more", [4, 4], tf.float64, use_resource=True)
        recipe = recipe_of(here, tf.reduce_mean(here.losses), v1.train.AdamOptimizer())
        sess.run(more.initializer)
        np.testing.assert_array_equal(recipe.values["more"], sess.run(more))


def test_another_version_of_tensorflow_is_said() -> None:
    here = net()
    with here.graph.as_default():
        recipe = recipe_of(here, tf.reduce_mean(here.losses), v1.train.AdamOptimizer())
    with pytest.raises(InputError, match=rf"1.15.5 where ranks run.*{tf.__version__}"):
        Program(replace(recipe, version="1.15.5"))
