"""Orca's optimizers and schedules as those of torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.optimizers.schedule import Scheduler

__all__ = ["Ftrl", "ScheduleLR", "torch_optimizer", "torch_schedule"]

# As `params` of torch's optimizers: parameters, or groups of them.
Parameters = Iterable[torch.Tensor] | Iterable[dict[str, Any]]


def torch_optimizer(spec: orca.Optimizer, parameters: Parameters) -> torch.optim.Optimizer:
    """Make torch's optimizer of these settings.

    Args:
        spec: The settings.
        parameters: What torch's optimizers take: parameters, or groups of them.

    Raises:
        InputError: The settings are of no optimizer known here.
        NotYetError: They cannot be had in torch yet.
    """
    match spec:
        case orca.SGD():
            return _sgd(spec, parameters)
        case orca.Adam():
            return torch.optim.Adam(
                parameters,
                lr=float(spec.learningrate),
                betas=(float(spec.beta1), float(spec.beta2)),
                eps=float(spec.epsilon),
            )
        case orca.Adamax():
            return _adamax(spec, parameters)
        case orca.Adagrad():
            return torch.optim.Adagrad(
                parameters, lr=float(spec.learningrate), weight_decay=float(spec.weightdecay)
            )
        case orca.Adadelta():
            return torch.optim.Adadelta(
                parameters, lr=1.0, rho=float(spec.decayrate), eps=float(spec.epsilon)
            )
        case orca.RMSprop():
            return torch.optim.RMSprop(
                parameters,
                lr=float(spec.learningrate),
                alpha=float(spec.decayrate),
                eps=float(spec.epsilon),
            )
        case orca.Ftrl():
            return _ftrl(spec, parameters)
    raise _unknown(spec)


def torch_schedule(
    spec: orca.Optimizer | Scheduler, optimizer: torch.optim.Optimizer
) -> ScheduleLR | None:
    """Make the schedule of an optimizer, to be stepped after every update.

    Args:
        spec: The optimizer's settings, or a schedule.
        optimizer: What `torch_optimizer` made.

    Returns:
        The schedule; None where the rate is constant.
    """
    schedule = spec if isinstance(spec, Scheduler) else spec.rate_schedule()
    return None if schedule is None else ScheduleLR(optimizer, schedule)


def _sgd(spec: orca.SGD, parameters: Parameters) -> torch.optim.Optimizer:
    for name in ("learningrates", "weightdecays"):
        if getattr(spec, name) is not None:
            raise NotYetError(
                "one rate and one penalty for all weights",
                f"SGD({name}=...)",
                "Give f(model, config) that makes a torch.optim.SGD with parameter groups.",
            )
    return torch.optim.SGD(
        parameters,
        lr=float(spec.learningrate),
        momentum=float(spec.momentum),
        dampening=float(spec.effective_dampening),
        weight_decay=float(spec.weightdecay),
        nesterov=bool(spec.nesterov),
    )


def _adamax(spec: orca.Adamax, parameters: Parameters) -> torch.optim.Optimizer:
    made = torch.optim.Adamax(
        parameters, lr=float(spec.learningrate), betas=(float(spec.beta1), float(spec.beta2))
    )
    for group in made.param_groups:
        # The default of 1e-38 is below what float32 holds at full precision. Hardware that takes
        # such numbers for 0 would divide 0 by 0 where a gradient is 0.
        least = max((torch.finfo(p.dtype).tiny for p in group["params"]), default=0.0)
        group["eps"] = max(float(spec.epsilon), least)
    return made


def _ftrl(spec: orca.Ftrl, parameters: Parameters) -> torch.optim.Optimizer:
    return Ftrl(
        parameters,
        lr=float(spec.learningrate),
        power=float(spec.learningrate_power),
        initial_accumulator=float(spec.initial_accumulator_value),
        l1=float(spec.l1_regularization_strength),
        l2=float(spec.l2_regularization_strength),
        l2_shrinkage=float(spec.l2_shrinkage_regularization_strength),
    )


def _unknown(spec: orca.Optimizer) -> InputError | NotYetError:
    if isinstance(spec, orca.LBFGS):
        return NotYetError(
            "an optimizer that takes one gradient for each update",
            "LBFGS, which evaluates the loss several times",
            "Use Adam or SGD.",
        )
    return InputError(
        "an optimizer of zoo.orca.learn.optimizers",
        type(spec).__name__,
        "Use one that is there, or give f(model, config) that makes a torch optimizer.",
    )


class Ftrl(torch.optim.Optimizer):
    """Follow the regularised leader, as TensorFlow computes it.

    McMahan et al., Ad Click Prediction: a View from the Trenches, KDD 2013, with a second L2
    penalty (`l2_shrinkage`) as part of the loss.

    Args:
        params: Parameters, or groups of them.
        lr: The rate. An update at a rate of 0 does nothing.
        power: How the rate falls with the sum of squared gradients; 0 or less.
        initial_accumulator: What that sum starts from.
        l1: L1 penalty.
        l2: L2 penalty.
        l2_shrinkage: L2 penalty on the weights.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        power: float = -0.5,
        initial_accumulator: float = 0.1,
        l1: float = 0.0,
        l2: float = 0.0,
        l2_shrinkage: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "power": power,
            "initial_accumulator": initial_accumulator,
            "l1": l1,
            "l2": l2,
            "l2_shrinkage": l2_shrinkage,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once.

        Args:
            closure: Computes the loss and its gradients first.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None and group["lr"]:
                    self._update(weights, weights.grad, group)
        return loss

    def _update(self, weights: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state, lr, l1 = self.state[weights], group["lr"], group["l1"]
        if not state:
            state["accumulator"] = torch.full_like(weights, group["initial_accumulator"])
            state["linear"] = torch.zeros_like(weights)
        grad = grad.to_dense() if grad.is_sparse else grad
        accumulator, linear = state["accumulator"], state["linear"]
        before = accumulator.pow(-group["power"])
        accumulator.addcmul_(grad, grad)
        after = accumulator.pow(-group["power"])
        linear.add_(grad).add_(weights, alpha=2 * group["l2_shrinkage"])
        linear.sub_((after - before).div_(lr).mul_(weights))
        quadratic = after.div_(lr).add_(2 * group["l2"])
        moved = (linear.sign() * l1).sub_(linear).div_(quadratic)
        # A weight that never had a gradient may have 0 / 0 here, and is 0.
        weights.copy_(torch.where(linear.abs() > l1, moved, torch.zeros_like(moved)))


class ScheduleLR(LRScheduler):
    """An Orca schedule at work on a torch optimizer.

    `step` after every update, and `observe` after every epoch.

    Args:
        optimizer: Whose rate to set. Each group has its own as the base.
        schedule: Tells the rate. It is copied: one schedule can serve many trainings.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Scheduler) -> None:
        self._schedule = copy.deepcopy(schedule)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of the next update for each group of parameters."""
        return [float(self._schedule.rate(self.last_epoch, float(b))) for b in self.base_lrs]

    def monitors(self) -> frozenset[str]:
        """Return which of `Loss` and `score` the schedule watches."""
        return self._schedule.monitors()

    def observe(self, values: Mapping[str, float]) -> None:
        """Tell the schedule about an epoch that ended.

        Args:
            values: The epoch's `Loss`, and its `score`: the first metric on validation data.

        Raises:
            InputError: A value is missing that the schedule watches.
        """
        self._schedule.observe(self.last_epoch, values)
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """Return plain values only."""
        return {
            "last_epoch": self.last_epoch,
            "step_count": self._step_count,
            "base_lrs": [float(b) for b in self.base_lrs],
            "schedule": self._schedule.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Args:
            state_dict: That.

        Raises:
            KeyError: It is of another kind of schedule.
        """
        self._schedule.load_state(state_dict["schedule"])
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["step_count"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._set_rates()

    def _set_rates(self) -> None:
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
