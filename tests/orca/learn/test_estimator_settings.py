"""Settings of every estimator that take effect at the next fit."""

from pathlib import Path

import pytest

from zoo.errors import InputError
from zoo.orca.learn.estimator_settings import EstimatorSettings
from zoo.orca.learn.steps import GradientLimits
from zoo.orca.learn.tensorboard import TensorBoardSummary


def test_the_last_way_of_clipping_counts() -> None:
    est = EstimatorSettings()
    est.set_constant_gradient_clipping(-1, 2)
    assert est._limits == GradientLimits(low=-1.0, high=2.0)
    est.set_l2_norm_gradient_clipping(3)
    assert est._limits == GradientLimits(norm=3.0)
    est.clear_gradient_clipping()
    assert est._limits is None


@pytest.mark.parametrize(("low", "high"), [(1, -1), (1, 1), (float("nan"), 1)])
def test_empty_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="min below max"):
        EstimatorSettings().set_constant_gradient_clipping(low, high)


@pytest.mark.parametrize("norm", [0, -1.0, float("nan")])
def test_norm_that_is_not_above_zero_is_refused(norm: float) -> None:
    with pytest.raises(InputError, match="clip_norm above 0"):
        EstimatorSettings().set_l2_norm_gradient_clipping(norm)


@pytest.mark.parametrize("name", ["get_train_summary", "get_validation_summary"])
def test_summary_needs_a_place(name: str) -> None:
    with pytest.raises(InputError, match=r"set_tensorboard\(log_dir, app_name\)"):
        getattr(EstimatorSettings(), name)("Loss")


def test_summaries_are_read_where_they_were_written(tmp_path: Path) -> None:
    est = EstimatorSettings()
    est.set_tensorboard(tmp_path, "app")
    summary = TensorBoardSummary(tmp_path, "app")
    summary.log(1, {"loss": 0.5, "lr": 0.1}, kind="train", wall_time=10.0)
    summary.log(1, {"val_loss": 0.25}, kind="validation", wall_time=11.0)
    summary.close()
    assert est.get_train_summary("Loss") == [[1, 0.5, 10.0]]
    assert est.get_validation_summary("Loss") == [[1, 0.25, 11.0]]


def test_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="log_dir"):
        EstimatorSettings().set_tensorboard(tmp_path / "file" / "logs", "app")
