"""Loss and metrics of a graph are those of all rows, however they were cut."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from small_graph import batches, net, recipe_of
from zoo.errors import InputError
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.measures import fresh_measures
from zoo.orca.learn.graph.scorer import Scorer
from zoo.orca.learn.metrics import AUC, MAE
from zoo.orca.learn.rank.array_batches import Batch

v1 = tf.compat.v1
((X, Y),) = batches(1, 40)


@pytest.mark.parametrize("form", ["mean", "sum", "rows"])
def test_parts_of_any_size_give_the_same(form: str) -> None:
    here = net()
    with here.graph.as_default():
        losses, errors = here.losses, tf.abs(here.output - here.y)
        loss = {"mean": tf.reduce_mean(losses), "sum": tf.reduce_sum(losses), "rows": losses}[form]
        # One of them is the loss itself.
        metrics = {"rows": errors, "mean": tf.reduce_mean(errors), "squares": losses}
        recipe = recipe_of(here, loss, v1.train.AdamOptimizer(), metrics=metrics)
    built = Built(recipe)
    built.program.load(recipe.values)
    built.adds_up = form
    measures = fresh_measures({**recipe.metrics, "MAE": MAE(), "AUC": AUC()})
    results = []
    for ends in ([0, 40], [0, 1, 8, 8, 40]):
        parts = []
        for low, high in zip(ends[:-1], ends[1:], strict=True):
            scorer = Scorer(built, measures)  # which begins anew, with the same metrics
            if high > low:
                cut = slice(low, high)
                scorer.run([Batch((X[cut],), ((Y[cut] > 0).astype(float),), high - low), None])
            parts.append(scorer.sums())
        results.append(Scorer(built, measures).result(parts))
    output = np.tanh(X @ recipe.values["w"] + recipe.values["b"]) @ recipe.values["v"]
    target = (Y > 0).astype(float)
    errors = np.abs(output[:, 0] - target)
    ranks = (output[target > 0] > output[target == 0].T).mean()
    for found in results:
        assert found["val_loss"] == pytest.approx((errors**2).mean(), rel=1e-12)
        assert found["squares"] == pytest.approx(found["val_loss"], rel=1e-12)
        for name in ("rows", "mean", "MAE"):
            assert found[name] == pytest.approx(errors.mean(), rel=1e-6)
        assert found["AUC"] == pytest.approx(ranks, rel=1e-9)


def test_weights_of_rows_count_in_the_loss() -> None:
    here = net()
    with here.graph.as_default():
        recipe = recipe_of(here, here.losses, v1.train.AdamOptimizer())
    built = Built(recipe)
    built.program.load(recipe.values)
    weights = np.random.default_rng(2).uniform(0, 2, len(Y))
    scorer = Scorer(built, {})
    scorer.run([Batch((X,), (Y,), len(Y), weights)])
    output = np.tanh(X @ recipe.values["w"] + recipe.values["b"]) @ recipe.values["v"]
    expected = np.average((output[:, 0] - Y) ** 2, weights=weights)
    assert scorer.result([scorer.sums()])["val_loss"] == pytest.approx(expected, rel=1e-12)


def test_no_rows_have_no_score() -> None:
    here = net()
    with here.graph.as_default():
        metrics = {"error": tf.abs(here.output - here.y)}
        loss = tf.reduce_mean(here.losses)
        recipe = recipe_of(here, loss, v1.train.AdamOptimizer(), metrics=metrics)
    scorer = Scorer(Built(recipe), fresh_measures(recipe.metrics))
    found = scorer.result([scorer.sums()])
    assert np.isnan(found["val_loss"])
    assert np.isnan(found["error"])


def test_metric_of_the_library_wants_outputs() -> None:
    here = net()
    with here.graph.as_default():
        loss, optimizer = tf.reduce_mean(here.losses), v1.train.AdamOptimizer()
        recipe = recipe_of(here, loss, optimizer, outputs=None)
    with pytest.raises(InputError, match="outputs and labels"):
        Scorer(Built(recipe), fresh_measures({"MAE": MAE()}))
