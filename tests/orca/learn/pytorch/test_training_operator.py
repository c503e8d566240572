"""Operators of the user's own, compared with plain torch and with training without one."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from zoo.errors import InputError
from zoo.orca.learn.callbacks import Callback
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator, TrainingOperator
from zoo.orca.learn.pytorch.training_operator import Parts, WeightedMeans
from zoo.orca.learn.trigger import SeveralIteration

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

ROWS, BATCH = 50, 16
FEATURES = ["a", "b"]


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """50 rows in one partition, so that an unshuffled batch is the next rows of them."""
    made = spark.range(0, ROWS, 1, 1)
    made = made.selectExpr("sin(id) a", "cos(3 * id) b", "sin(id) - 2 * cos(3 * id) + 1 y")
    made = made.persist()
    made.count()
    yield made
    made.unpersist()


def net(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0)).double()


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.05)


def estimator(operator: type | None = None, ranks: int = 1, **given: Any) -> Any:
    named: dict[str, Any] = {
        "model": net,
        "optimizer": adam,
        "loss": nn.MSELoss(),
        "config": {"shuffle": False},
    }
    # Never fewer, however busy the machine: what one rank adds up differs in the last bits.
    named["min_workers"] = ranks
    return Estimator.from_torch(
        training_operator_cls=operator, workers_per_node=ranks, **(named | given)
    )


def fit(est: Any, data: Any, epochs: int = 2, **given: Any) -> Any:
    named = {"feature_cols": FEATURES, "label_cols": ["y"], "batch_size": BATCH}
    return est.fit(data, epochs=epochs, **(named | given))


def weights(est: Any) -> np.ndarray:
    models = est.get_model()
    models = models if isinstance(models, list) else [models]
    parts = [p.detach().reshape(-1) for model in models for p in model.parameters()]
    return torch.cat(parts).numpy()


def same(left: Any, right: Any) -> bool:
    return np.allclose(weights(left), weights(right), rtol=1e-9, atol=1e-12)


class OwnBatch(TrainingOperator):
    """What the default does, written by hand, with one more number."""

    def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> dict[str, float]:
        *features, target = batch
        loss = self.criterion(self.model(*features), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        first = float(target[0])
        return {"train_loss": loss.item(), "first": first, "num_samples": len(target)}


# The same as without.


def test_the_default_operator_is_no_operator(frame: DataFrame) -> None:
    plain, default = estimator(None, 2), estimator(TrainingOperator, 2)
    assert fit(plain, frame) == fit(default, frame)
    assert (weights(plain) == weights(default)).all()


@pytest.mark.parametrize("ranks", [1, 2])
def test_own_steps_are_the_librarys_steps(frame: DataFrame, ranks: int) -> None:
    plain, own = estimator(None, ranks), estimator(OwnBatch, ranks)
    expected, told = fit(plain, frame), fit(own, frame)
    assert same(plain, own)
    for one, other in zip(expected, told, strict=True):
        assert {n: other[n] for n in one} == pytest.approx(one, rel=1e-9)


class OwnForward(TrainingOperator):
    def forward_batch(self, batch: Any, batch_info: dict[str, Any]) -> tuple[Any, Any, Any]:
        output, target, loss = super().forward_batch(batch, batch_info)
        return output, target, batch_info.get("factor", 1.0) * loss


def test_own_forward(frame: DataFrame) -> None:
    plain, own = estimator(None, 2), estimator(OwnForward, 2)
    (expected,), (told,) = fit(plain, frame, 1), fit(own, frame, 1)
    assert told == pytest.approx(expected, rel=1e-9)
    assert same(plain, own)


def test_info_reaches_forward_batch(frame: DataFrame) -> None:
    (once,) = fit(estimator(OwnForward, optimizer=still), frame, 1)
    (thrice,) = fit(estimator(OwnForward, optimizer=still), frame, 1, info={"factor": 3.0})
    assert thrice["train_loss"] == pytest.approx(3 * once["train_loss"])


def still(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.0)


class Loopy(TrainingOperator):
    """A loop of its own over the batches, which calls the default for each."""

    def train_epoch(self, iterator: Any, info: dict[str, Any]) -> dict[str, float]:
        count = 0
        for index, batch in enumerate(iterator):
            self.train_batch(batch, {"batch_idx": index})
            count += len(batch[-1])
        return {"rows_here": count, "epoch_seen": info["epoch"], "given": info.get("x", 0)}


def test_own_epoch(frame: DataFrame) -> None:
    plain, own = estimator(None, 2), estimator(Loopy, 2)
    expected, told = fit(plain, frame), fit(own, frame, info={"x": 5})
    assert same(plain, own)
    assert [e["train_loss"] for e in told] == pytest.approx([e["train_loss"] for e in expected])
    assert [e["epoch_seen"] for e in told] == [1.0, 2.0]
    assert told[0]["given"] == 5.0
    assert told[0]["rows_here"] == pytest.approx(ROWS / 2, rel=0.01)


class Clipped(TrainingOperator):
    """The default way through `train_batch`, so that the library's settings apply."""

    def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> dict[str, float]:
        return super().train_batch(batch, batch_info)


@pytest.mark.parametrize("operator", [Clipped, OwnBatch])
def test_limits_and_schedules_apply_to_own_steps(frame: DataFrame, operator: type) -> None:
    both = [
        estimator(one, 2, scheduler_creator=lambda o, c: StepLR(o, 2, 0.5))
        for one in (None, operator)
    ]
    for est in both:
        est.set_l2_norm_gradient_clipping(0.05)
        fit(est, frame)
    assert same(*both)


def test_half_precision(frame: DataFrame) -> None:
    both = [estimator(one, 2, precision="fp16") for one in (None, Clipped)]
    for est in both:
        est.set_constant_gradient_clipping(-0.1, 0.1)
        fit(est, frame, 1)
    assert same(*both)


def test_schedules_by_epoch(frame: DataFrame) -> None:
    both = [
        estimator(
            one, scheduler_creator=lambda o, c: StepLR(o, 1, 0.5), scheduler_step_freq="epoch"
        )
        for one in (None, OwnBatch)
    ]
    assert [[e["lr"] for e in fit(est, frame)] for est in both] == [[0.025, 0.0125]] * 2
    assert same(*both)


def normed(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0)
    ).double()


def test_batch_norms_agree_as_without(frame: DataFrame) -> None:
    # Not Adam: it makes steps of the rounding errors that are the gradient of the first bias.
    named = {"model": normed, "optimizer": lambda m, c: still_moving(m)}
    plain, own = estimator(None, 2, **named), estimator(OwnBatch, 2, **named)
    fit(plain, frame)
    fit(own, frame)
    before, after = plain.get_model()[1].state_dict(), own.get_model()[1].state_dict()
    torch.testing.assert_close(before, after, rtol=1e-9, atol=1e-12)


def test_ranks_without_rows_take_the_same_steps(frame: DataFrame) -> None:
    few, named = frame.limit(7).persist(), {"epochs": 1, "batch_size": 3}
    plain, own = estimator(None, 3), estimator(OwnBatch, 3)
    (expected,), (told,) = fit(plain, few, **named), fit(own, few, **named)
    assert same(plain, own)
    assert told["num_samples"] == 7
    assert told["train_loss"] == pytest.approx(expected["train_loss"])


def test_ranks_that_never_have_rows(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="rows for every rank"):
        fit(estimator(OwnBatch, 3), frame, 1, batch_size=2)


# Several models.


def players(config: dict[str, Any]) -> list[nn.Module]:
    torch.manual_seed(3)
    judge = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    return [nn.Linear(2, 2).double(), judge.double()]


def optimizers(models: list[nn.Module], config: dict[str, Any]) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(models[0].parameters(), lr=0.02), still_moving(models[1])]


def still_moving(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def play(models: Any, optimizers: Any, x: torch.Tensor) -> tuple[float, float]:
    (generator, judge), (first, second) = models, optimizers
    loss = nn.BCEWithLogitsLoss()
    real, false = torch.ones(len(x), 1).double(), torch.zeros(len(x), 1).double()
    second.zero_grad()
    judged = loss(judge(x), real) + loss(judge(generator(x.flip(1)).detach()), false)
    judged.backward()
    second.step()
    first.zero_grad()
    made = loss(judge(generator(x.flip(1))), real)
    made.backward()
    first.step()
    return judged.item(), made.item()


class Game(TrainingOperator):
    def setup(self, config: dict[str, Any]) -> None:
        self.played = torch.zeros(1, dtype=torch.float64)

    def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> dict[str, float]:
        judged, made = play(self.models, self.optimizers, batch[0])
        self.played += 1
        return {"loss_d": judged, "loss_g": made, "num_samples": len(batch[0])}

    def predict_batch(self, batch: Any) -> Any:
        return self.models[0](*batch)

    def validate(self, val_iterator: Any, info: Any, metrics: Any) -> dict[str, float]:
        sums = [float(self.models[0](b[0]).sum()) for b in val_iterator]
        return {"sum": sum(sums), "scale": info.get("scale", 1.0)}

    def state_dict(self) -> dict[str, Any]:
        return {"played": self.played, "note": ["a", 1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.played = state_dict["played"].clone()


def game(ranks: int = 1, **given: Any) -> Any:
    return estimator(Game, ranks, model=players, optimizer=optimizers, loss=None, **given)


def plain_game(frame: DataFrame, epochs: int) -> tuple[np.ndarray, list[float]]:
    x = torch.from_numpy(frame.select(FEATURES).toPandas().to_numpy())
    models = players({})
    made = optimizers(models, {})
    ends = [k * ROWS // 4 for k in range(5)]
    losses = [
        play(models, made, x[low:high])[1] * (high - low) / ROWS
        for _ in range(epochs)
        for low, high in zip(ends, ends[1:], strict=False)
    ]
    flat = torch.cat([p.detach().reshape(-1) for m in models for p in m.parameters()])
    return flat.numpy(), [sum(losses[k : k + 4]) for k in range(0, 4 * epochs, 4)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_players_are_those_of_plain_torch(frame: DataFrame, ranks: int) -> None:
    est = game(ranks)
    told = fit(est, frame)
    expected, losses = plain_game(frame, 2)
    np.testing.assert_allclose(weights(est), expected, rtol=1e-9, atol=1e-12)
    assert [e["loss_g"] for e in told] == pytest.approx(losses)
    assert {"loss_d", "last_loss_d", "last_loss_g"} <= set(told[0])


def test_saved_and_loaded_goes_on(frame: DataFrame, tmp_path: Path) -> None:
    first, second, whole = game(), game(), game()
    fit(first, frame, 1)
    second.load(first.save(str(tmp_path / "game")))
    fit(second, frame, 1)
    fit(whole, frame, 2)
    assert same(second, whole)
    assert remembered(second) == remembered(whole) == 8


def remembered(est: Any) -> float:
    """How many steps the operator of a `Game` remembers."""
    return float(est._built.operator.state_dict()["played"])


class StopAt(Callback):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_step_end(self, run: Any) -> None:
        if run.iteration == self.iteration:
            raise KeyError("cut off")


def test_resumed_inside_an_epoch(frame: DataFrame, tmp_path: Path) -> None:
    named = {"checkpoint_trigger": SeveralIteration(1)}
    cut, resumed, whole = game(2, model_dir=str(tmp_path)), game(model_dir=str(tmp_path)), game()
    with pytest.raises(KeyError, match="cut off"):
        fit(cut, frame, callbacks=[StopAt(6)], **named)
    told, expected = fit(resumed, frame, resume=True), fit(whole, frame)
    assert same(resumed, whole)
    assert remembered(resumed) == 8
    assert told[1]["loss_g"] == pytest.approx(expected[1]["loss_g"], rel=1e-9)


def test_validate_of_ones_own_is_honoured(frame: DataFrame) -> None:
    est = game()
    found = est.evaluate(frame, info={"scale": 2.0}, feature_cols=FEATURES, batch_size=ROWS)
    x = torch.from_numpy(frame.select(FEATURES).toPandas().to_numpy())
    expected = players({})[0](x).sum().item()
    assert found == pytest.approx({"sum": expected, "scale": 2.0, "num_samples": ROWS})


def test_predict_batch_of_ones_own_is_honoured(frame: DataFrame) -> None:
    found = game().predict(frame, feature_cols=FEATURES).toPandas()
    expected = players({})[0](torch.from_numpy(found[FEATURES].to_numpy())).detach()
    np.testing.assert_allclose(np.stack([v.toArray() for v in found["prediction"]]), expected)


# Lost ranks.


class Mortal(Game):
    """Dies once, on the second rank, in step 5: before its steps, or between the two."""

    def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> dict[str, float]:
        dies = Path(batch_info["dies"])
        if self.world_rank == 1 and batch_info["global_step"] == 5 and dies.exists():
            if batch_info["between"]:
                self.optimizers[0].register_step_pre_hook(lambda *_: die(dies))
                hooks = self.optimizers[0]._optimizer_step_pre_hooks
                hooks.move_to_end(next(reversed(hooks)), last=False)
            else:
                die(dies)
        return super().train_batch(batch, batch_info)


def die(once: Path) -> None:
    once.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("between", [False, True])
def test_a_lost_rank_does_not_change_the_result(
    frame: DataFrame, tmp_path: Path, between: bool
) -> None:
    (tmp_path / "dies").touch()
    est = estimator(Mortal, 2, model=players, optimizer=optimizers, loss=None)
    told = fit(est, frame, info={"dies": str(tmp_path / "dies"), "between": between})
    expected, losses = plain_game(frame, 2)
    np.testing.assert_allclose(weights(est), expected, rtol=1e-9, atol=1e-12)
    assert [e["loss_g"] for e in told] == pytest.approx(losses)
    assert remembered(est) == 8
    assert not (tmp_path / "dies").exists()


# Numbers.


def test_evaluation_with_own_forward(frame: DataFrame) -> None:
    plain, own = (estimator(o, metrics=[MAE()]) for o in (None, OwnForward))
    named = {"feature_cols": FEATURES, "label_cols": ["y"]}
    spread = frame.repartition(3)
    assert own.evaluate(spread, **named) == pytest.approx(plain.evaluate(spread, **named))


@pytest.mark.parametrize("operator", [OwnBatch, OwnForward])
def test_validation_while_training(frame: DataFrame, operator: type) -> None:
    both = [estimator(one, 2, metrics=[MAE()]) for one in (None, operator)]
    told = [fit(est, frame, 1, validation_data=frame)[0] for est in both]
    for name in ("val_loss", "val_MAE"):
        assert told[1][name] == pytest.approx(told[0][name], rel=1e-9)


def test_numbers_are_means_over_the_rows(frame: DataFrame) -> None:
    (epoch,) = fit(estimator(OwnBatch), frame, 1, batch_size=20)
    y = frame.toPandas()["y"].to_numpy()
    sizes, firsts = [16, 17, 17], y[[0, 16, 33]]
    assert epoch["first"] == pytest.approx(np.dot(sizes, firsts) / ROWS)
    assert epoch["last_first"] == pytest.approx(firsts[-1])


def test_numbers_are_means_over_ranks(frame: DataFrame) -> None:
    (epoch,) = fit(estimator(OwnBatch, 2), frame, 1, batch_size=ROWS)
    y = frame.toPandas()["y"].to_numpy()
    assert epoch["first"] == pytest.approx((y[0] + y[ROWS // 2]) / 2)


def loader(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    """Two batches on the first rank, one on the other, and nothing to split."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
    batches = [(x, x.sum(1)), (2 * x, x.sum(1))][: 2 - config["rank"]]
    return DataLoader(batches, batch_size=None)


@pytest.mark.usefixtures("spark")
def test_loaders_of_unequal_length() -> None:
    plain, own = estimator(None, 2), estimator(OwnBatch, 2)
    (expected,), (told,) = plain.fit(loader), own.fit(loader)
    assert same(plain, own)
    assert told["num_samples"] == expected["num_samples"] == 9


# Hooks and errors.


@pytest.mark.usefixtures("spark")
def test_the_hook_is_called_before_the_model_is_made(frame: DataFrame, tmp_path: Path) -> None:
    def model(config: dict[str, Any]) -> nn.Module:
        with (tmp_path / "calls").open("a") as file:
            file.write("model ")
        return net(config)

    def hook() -> None:
        with (tmp_path / "calls").open("a") as file:
            file.write("hook ")

    fit(estimator(model=model, initialization_hook=hook), frame, 1)
    assert (tmp_path / "calls").read_text() == "model hook model "


class Silent(TrainingOperator):
    def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> Any:
        return batch_info.get("told")


@pytest.mark.parametrize(
    ("told", "said"),
    [(None, "a dict of numbers from train_batch"), ({"a": "text"}, "one number for 'a'")],
)
def test_what_train_batch_returns(frame: DataFrame, told: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit(estimator(Silent), frame, 1, info={"told": told})


class Early(TrainingOperator):
    """Ends an epoch after so many batches, of all ranks or of one."""

    def train_epoch(self, iterator: Any, info: dict[str, Any]) -> None:
        ends = self.world_rank in info["who"]
        for index, batch in enumerate(iterator):
            self.train_batch(batch, {})
            if ends and index == 1:
                return


def test_an_epoch_that_ends_early(frame: DataFrame) -> None:
    told = fit(estimator(Early, 2), frame, info={"who": [0, 1]})
    assert [e["batch_count"] for e in told] == [2, 2]


def test_an_epoch_that_ends_early_on_one_rank(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="1 of 2 ranks that ended"):
        fit(estimator(Early, 2), frame, info={"who": [0]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": players}, "one model with the default TrainingOperator"),
        ({"optimizer": lambda m, c: [adam(m, c), adam(m, c)]}, "one optimizer with the default"),
        ({"scheduler_creator": lambda o, c: [StepLR(o, 1), StepLR(o, 1)]}, "one scheduler with"),
    ],
)
def test_several_with_the_default_operator(frame: DataFrame, given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(estimator(**given), frame, 1)


def test_several_optimizers_without_steps_of_ones_own(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="a train_batch of your own"):
        fit(estimator(OwnForward, model=players, optimizer=optimizers), frame, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"training_operator_cls": nn.Linear}, "derived from TrainingOperator"),
        ({"training_operator_cls": OwnBatch, "gradient_accumulation": 2}, "takes its own steps"),
        ({"initialization_hook": 3}, "as a function"),
    ],
)
def test_what_cannot_be_an_operator(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Estimator.from_torch(model=net, **given)


def test_info_is_a_dict(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="info as a dict"):
        fit(estimator(OwnBatch), frame, info=[1])


# Parts.


def hand_made(kind: type[TrainingOperator] = TrainingOperator) -> TrainingOperator:
    model = net({})
    optimizer = adam(model, {})
    return kind({"k": 1}, Parts([model], [optimizer], nn.MSELoss(), [StepLR(optimizer, 1)]))


def hand_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
    return [(x[:4], x[:4].sum(1)), (x[4:], x[4:].sum(1))]


def test_an_operator_made_by_hand_trains() -> None:
    operator = hand_made()
    losses = [operator.train_epoch(iter(hand_batches()), {})["train_loss"] for _ in range(5)]
    assert losses[-1] < losses[0]
    assert operator.global_step == 10


def test_an_operator_made_by_hand_scores() -> None:
    operator, batches = hand_made(), hand_batches()
    metrics = {"MAE": MAE.convert_metrics_dict([MAE()], "pytorch")["MAE"]}
    found = operator.validate(iter(batches), {}, metrics)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    output = operator.model.eval()(x)
    expected = {"val_loss": nn.MSELoss()(output, y), "MAE": (output - y).abs().mean()}
    assert found == pytest.approx({n: v.item() for n, v in expected.items()} | {"num_samples": 6})
    predicted = operator.predict(iter([(b[0],) for b in batches]))
    np.testing.assert_allclose(predicted, output.detach())


def test_what_an_operator_has() -> None:
    operator = hand_made()
    assert operator.config == {"k": 1}
    assert (operator.world_rank, operator.use_fp16, operator.use_tqdm) == (0, False, False)
    assert operator.models == [operator.model]
    assert operator.optimizers == [operator.optimizer]
    assert operator.schedulers == [operator.scheduler]


def test_means_are_weighted() -> None:
    means = WeightedMeans()
    means.add({"a": torch.tensor(1.0), "num_samples": 3}, 9)
    means.add({"a": 2}, 1)
    assert means.result() == {"a": 1.25, "last_a": 2.0}
