"""Checkpoints go both ways between estimators and programs of TensorFlow alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from small_graph import Net, batches, net, plain, recipe_of, steps
from zoo.errors import InputError
from zoo.orca.learn.graph.checkpoints import read_checkpoint, write_checkpoint

v1 = tf.compat.v1
GIVEN = batches(6)


def loss_of(here: Net) -> Any:
    return tf.reduce_mean(here.losses)


def test_tensorflow_goes_on_from_a_checkpoint_of_ours(tmp_path: Path) -> None:
    here, there, whole = net(), net(), net()
    with here.graph.as_default():
        recipe = recipe_of(here, loss_of(here), v1.train.AdamOptimizer(0.1))
    values = steps(recipe, GIVEN[:3], adds_up="mean")[0]
    write_checkpoint(str(tmp_path / "deep" / "model"), recipe, here.graph, None, values)
    with there.graph.as_default(), v1.Session() as sess:
        train = v1.train.AdamOptimizer(0.1).minimize(loss_of(there))
        v1.train.Saver().restore(sess, tf.train.latest_checkpoint(str(tmp_path / "deep")))
        for x, y in GIVEN[3:]:
            sess.run(train, {there.x: x, there.y: y})
        found = {v.op.name: sess.run(v) for v in v1.global_variables()}
    expected = plain(whole, lambda: v1.train.AdamOptimizer(0.1).minimize(loss_of(whole)), GIVEN)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, err_msg=name)


def test_graph_beside_a_checkpoint_can_be_imported(tmp_path: Path) -> None:
    here = net()
    with here.graph.as_default():
        recipe = recipe_of(here, loss_of(here), v1.train.AdamOptimizer(0.1))
    write_checkpoint(str(tmp_path / "model"), recipe, here.graph, None, recipe.values)
    with tf.Graph().as_default(), v1.Session() as sess:
        v1.train.import_meta_graph(str(tmp_path / "model.meta")).restore(
            sess, str(tmp_path / "model")
        )
        (w,) = (v for v in v1.trainable_variables() if v.op.name == "w")
        np.testing.assert_array_equal(sess.run(w), recipe.values["w"])


def test_we_go_on_from_a_checkpoint_of_tensorflow(tmp_path: Path) -> None:
    there, here = net(), net()
    with there.graph.as_default(), v1.Session() as sess:
        train = v1.train.AdamOptimizer(0.1).minimize(loss_of(there))
        sess.run(v1.global_variables_initializer())
        for x, y in GIVEN:
            sess.run(train, {there.x: x, there.y: y})
        v1.train.Saver().save(sess, str(tmp_path / "model"), global_step=6)
        expected = {v.op.name: sess.run(v) for v in v1.global_variables()}
    with here.graph.as_default():
        recipe = recipe_of(here, loss_of(here), v1.train.AdamOptimizer(0.1))
    for place in (tmp_path / "model-6", tmp_path):
        found = read_checkpoint(str(place), recipe)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_weights_without_an_optimizer_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there, here = net(), net()
    with there.graph.as_default(), v1.Session() as sess:
        sess.run(v1.global_variables_initializer())
        v1.train.Saver().save(sess, str(tmp_path / "model"))
    with here.graph.as_default():
        recipe = recipe_of(here, loss_of(here), v1.train.AdamOptimizer(0.1))
    with caplog.at_level(logging.WARNING):
        assert set(read_checkpoint(str(tmp_path / "model"), recipe)) == {"w", "b", "v"}
    assert "beta1_power" in caplog.text


def test_what_is_no_checkpoint_of_the_graph_is_refused(tmp_path: Path) -> None:
    here = net()
    with here.graph.as_default():
        recipe = recipe_of(here, loss_of(here), v1.train.AdamOptimizer(0.1))
    with pytest.raises(InputError, match="a Saver of TensorFlow"):
        read_checkpoint(str(tmp_path / "nothing"), recipe)
    with tf.Graph().as_default(), v1.Session() as sess:
        v1.get_variable("w", initializer=np.zeros((2, 2)))
        sess.run(v1.global_variables_initializer())
        v1.train.Saver().save(sess, str(tmp_path / "other"))
    with pytest.raises(InputError, match="'w' of shape"):
        read_checkpoint(str(tmp_path / "other"), recipe)
