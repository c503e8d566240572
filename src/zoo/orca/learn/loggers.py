"""Where the numbers of a training go: the contract of a logger.

Loggers live on the driver. The first rank sends its numbers there, so that ranks need no access to
a tracking server or to a shared folder. `zoo.orca.learn.tensorboard` writes for TensorBoard,
`zoo.orca.learn.mlflow_logger` for MLflow; your own derives from `Logger`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Kind", "Logger"]

Kind = Literal["train", "validation"]
"""Of which data a number tells."""


class Logger:
    """Base of loggers; a subclass overrides what it needs.

    `log_params` is called by the thread that called `fit`, and an error in it ends the fit; `log`
    by a thread of its own, so that it may take its time. An error in `log` is told, and costs this
    logger the rest of the numbers; an error in `close` is told.
    """

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Take what describes the whole fit, such as the size of a batch. Called once, before it.

        Args:
            params: Values by name.
        """

    def log(
        self, iteration: int, values: Mapping[str, float], *, kind: Kind, wall_time: float
    ) -> None:
        """Take some numbers.

        Those of one kind come in order of `iteration`. After a lost rank it may go back: the steps
        since the newest state are taken again, and what was logged of them does not count.

        Args:
            iteration: Steps done in all.
            values: `loss`, `lr` and `throughput` (rows a second) of a step; `val_loss` and
                `val_<Metric>` of a validation; and what callbacks add.
            kind: Of which data they tell.
            wall_time: When, in seconds since 1970.
        """

    def close(self, *, failed: bool = False) -> None:
        """End the fit. A later fit may log again.

        Args:
            failed: Whether it ended with an error.
        """
