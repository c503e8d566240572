"""The estimator for PyTorch models: train, evaluate and predict on Spark data."""

from __future__ import annotations

from typing import Any

from zoo.errors import InputError
from zoo.orca.learn.estimator import require_count
from zoo.orca.learn.given_estimator import (
    GivenEstimator,
    checked_config,
    checked_crew,
    checked_recovery,
    checked_snapshots,
    require_backend,
)
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.operator.host import checked_operator
from zoo.orca.learn.pytorch.recipe import Recipe

__all__ = ["Estimator", "TorchEstimator", "made_of"]

_EARLIER = ("bigdl", "horovod", "torch_distributed")


class TorchEstimator(GivenEstimator):
    """Trains a PyTorch model on Spark data, and predicts and evaluates with it.

    Made by `Estimator.from_torch`. A data creator returns a torch DataLoader; `info` goes to the
    `training_operator_cls`; `load` also takes a bare `torch.save(model.state_dict())`.
    `get_params`, `set_params` and `clone` are those of scikit-learn, whose `sklearn.base.clone`
    works on it.
    """

    _maker = staticmethod(Estimator.from_torch)


def made_of(given: dict[str, Any]) -> TorchEstimator:
    """The estimator of these arguments of `Estimator.from_torch`, by name.

    Raises:
        InputError: One cannot be used.
        NotYetError: The backend is known and not available yet.
    """
    require_backend(given["backend"], _EARLIER)
    hook, often = given["initialization_hook"], given["scheduler_step_freq"]
    precision, accumulate = given["precision"], given["gradient_accumulation"]
    if hook is not None and not callable(hook):
        raise InputError("initialization_hook as a function", repr(hook), "Pass a function.")
    recipe = Recipe(
        model=given["model"],
        optimizer=given["optimizer"],
        loss=given["loss"],
        scheduler_creator=given["scheduler_creator"],
        scheduler_step_freq=often,
        config=checked_config(given["config"]),
        precision=precision,
        accumulate=accumulate,
        operator=checked_operator(given["training_operator_cls"], accumulate),
        initialization_hook=hook,
        use_tqdm=given["use_tqdm"],
    )
    if often not in ("batch", "epoch", None):
        raise InputError(
            "scheduler_step_freq 'batch', 'epoch' or None", repr(often), "Choose one of the three."
        )
    if precision not in ("bf16", "fp16", None):
        raise InputError("precision 'bf16', 'fp16' or None", repr(precision), "Choose one.")
    require_count("gradient_accumulation", accumulate)
    made = TorchEstimator(
        "pytorch",
        recipe,
        metrics=given["metrics"],
        crew=checked_crew(given["min_workers"], given["max_workers"], given["workers_per_node"]),
        snapshots=checked_snapshots(given["model_dir"], given["keep_snapshots"]),
        decoders=given["decoders"],
        show_progress=True if given["use_tqdm"] else None,
        recovery=checked_recovery(given["recovery"]),
        preprocess=given["preprocess"],
    )
    made._given = given
    return made
