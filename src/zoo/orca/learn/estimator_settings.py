"""What can be set on an estimator of any framework, and what its last fit tells."""

from __future__ import annotations

import os

from zoo.errors import InputError
from zoo.orca.learn.explain import explain
from zoo.orca.learn.report import FitReport
from zoo.orca.learn.steps import GradientLimits
from zoo.orca.learn.tensorboard import TensorBoardSummary, read_summary

__all__ = ["EstimatorSettings"]


class EstimatorSettings:
    """Gradient clipping, TensorBoard summaries, where the time of the last fit went.

    Settings take effect at the next fit.
    """

    def __init__(self) -> None:
        self._limits: GradientLimits | None = None
        self._tensorboard: tuple[str, str] | None = None
        self._report: FitReport | None = None

    @property
    def report(self) -> FitReport | None:
        """Where the time of the last fit went; None before."""
        return self._report

    def explain(self) -> str:
        """Say in words what bounds the last fit, and what to change."""
        if self._report is None:
            raise InputError("a fit to explain", "none so far", "Call fit first.")
        return explain(self._report)

    def set_constant_gradient_clipping(self, min: float, max: float) -> None:  # noqa: A002 - the names that programs use
        """From the next fit on, keep every element of the gradients in a range.

        Args:
            min: The smallest value.
            max: The largest one.

        Raises:
            InputError: The range is empty.
        """
        if not min < max:
            raise InputError("min below max", f"{min} and {max}", "Swap them.")
        self._limits = GradientLimits(low=float(min), high=float(max))

    def set_l2_norm_gradient_clipping(self, clip_norm: float) -> None:
        """From the next fit on, shorten the gradients of a step to this L2 norm.

        Args:
            clip_norm: The longest norm of all gradients together.

        Raises:
            InputError: It is not above 0.
        """
        if not clip_norm > 0:
            raise InputError("clip_norm above 0", repr(clip_norm), "Use 1.0, for example.")
        self._limits = GradientLimits(norm=float(clip_norm))

    def clear_gradient_clipping(self) -> None:
        """From the next fit on, take gradients as they are."""
        self._limits = None

    def set_tensorboard(self, log_dir: str | os.PathLike[str], app_name: str) -> None:
        """From the next fit on, write TensorBoard summaries.

        Args:
            log_dir: A folder of the driver.
            app_name: Name of the training: the events lie in `<log_dir>/<app_name>/train` and
                `/validation`.

        Raises:
            InputError: The folder cannot be made.
            MissingExtraError: The extra `tensorboard` is not installed.
        """
        TensorBoardSummary(log_dir, app_name).close()
        self._tensorboard = (os.fspath(log_dir), app_name)

    def get_train_summary(self, tag: str | None = None) -> list[list[float]]:
        """Read a summary of the training data.

        Args:
            tag: `Loss`, `LearningRate` or `Throughput` (rows a second).

        Returns:
            Rows `[iteration, value, timestamp]`.
        """
        return read_summary(*self._summary_place(), "train", tag)

    def get_validation_summary(self, tag: str | None = None) -> list[list[float]]:
        """Read a summary of the validation data.

        Args:
            tag: `Loss`, or the name of a metric.

        Returns:
            Rows `[iteration, value, timestamp]`.
        """
        return read_summary(*self._summary_place(), "validation", tag)

    def _summary_place(self) -> tuple[str, str]:
        if self._tensorboard is None:
            raise InputError(
                "an estimator that writes summaries", "one that does not",
                "Call set_tensorboard(log_dir, app_name) before fit.",
            )  # fmt: skip
        return self._tensorboard
