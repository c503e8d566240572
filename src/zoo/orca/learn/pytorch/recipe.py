"""What the user gave to build a training from, and building it: on the driver and on ranks."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from zoo.errors import InputError
from zoo.orca.learn.optimizers.optimizer import Optimizer as NamedOptimizer
from zoo.orca.learn.pytorch.losses import LossPerOutput
from zoo.orca.learn.pytorch.operator.several import as_given, join
from zoo.orca.learn.pytorch.orca_optimizer import torch_optimizer, torch_schedule

if TYPE_CHECKING:
    from zoo.orca.learn.pytorch.operator.host import OperatorHost
    from zoo.orca.learn.pytorch.training_operator import TrainingOperator

__all__ = ["Built", "Recipe", "build", "float_dtype", "not_trained", "takes_one_input"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recipe:
    """How to make model, optimizer, loss and schedule. Travels to the ranks.

    Attributes:
        model: A module, or `f(config)` that makes one.
        optimizer: An optimizer over the module's parameters, one of
            `zoo.orca.learn.optimizers`, `f(model, config)` that makes one, or None for plain SGD.
        loss: A torch loss, any callable `(output, target)`, `f(config)` that makes one, or None:
            the model's output is the loss.
        scheduler_creator: `f(optimizer, config)`.
        scheduler_step_freq: `batch`, `epoch` or None.
        config: Handed to all creators.
        precision: `bf16` or `fp16` for mixed precision, or None.
        accumulate: Parts in which a rank goes through its rows of a step.
        operator: How to train, when it is not the default way.
        initialization_hook: Called in every rank before anything is built.
        use_tqdm: What operators are told of it.
    """

    model: nn.Module | Callable[[dict[str, Any]], Any]
    optimizer: Optimizer | NamedOptimizer | Callable[..., Optimizer] | None = None
    loss: Any = None
    scheduler_creator: Callable[..., LRScheduler] | None = None
    scheduler_step_freq: str | None = "batch"
    config: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None
    accumulate: int = 1
    operator: type[TrainingOperator] | None = None
    initialization_hook: Callable[[], object] | None = None
    use_tqdm: bool = False

    @property
    def compares(self) -> bool:
        """Whether a loss compares outputs with targets."""
        return self.loss is not None

    def doubts(self, *, labels: bool) -> list[str]:
        """What the user may have forgotten; an operator may do without."""
        found = []
        if labels and self.loss is None and self.operator is None:
            found.append(
                "label_cols are given, and no loss to compare them with: what the model returns is "
                "taken for the loss. Pass loss to the estimator."
            )
        if self.optimizer is None and self.operator is None:
            found.append(
                "no optimizer is given: plain SGD with a learning rate of 0.001, without momentum, "
                "is used"
            )
        return found

    @property
    def makes_weights(self) -> bool:
        """Whether a function of the user's makes the model."""
        return not isinstance(self.model, nn.Module)

    def describe(self) -> dict[str, Any]:
        """What loggers write down."""
        plain = {k: v for k, v in self.config.items() if isinstance(v, str | int | float | bool)}
        return {"precision": self.precision, "gradient_accumulation": self.accumulate, **plain}


_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Built:
    """A recipe carried out.

    Attributes:
        model: On its device.
        optimizer: Over its parameters.
        loss: Compares outputs with targets; None when the output is the loss.
        scheduler: Of the learning rate.
        device: Where the model is.
        precision: Of `Recipe`.
        accumulate: Of `Recipe`.
        scaler: Keeps gradients in half precision from vanishing; None where that is not needed.
        operator: Where the operator is; None for the default way of training.
        step_freq: When the schedule advances: `batch`, `epoch` or None.
        chosen: The user gave an optimizer.
    """

    model: nn.Module
    optimizer: Optimizer
    loss: Callable[..., torch.Tensor] | None
    scheduler: LRScheduler | None
    device: torch.device = _CPU
    precision: str | None = None
    accumulate: int = 1
    scaler: torch.amp.GradScaler | None = None
    operator: OperatorHost | None = None
    step_freq: str | None = "batch"
    chosen: bool = True

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """In which forward and loss are computed."""
        if self.precision is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_HALF[self.precision])

    def forward(self, features: Sequence[Any]) -> Any:
        """The model's output of some rows.

        Raises:
            InputError: Batch normalisation got a single row, which happens to small batches.
        """
        try:
            return self.model(*features)
        except ValueError as exc:
            if "more than 1 value per channel" not in str(exc):
                raise
            raise InputError(
                "two rows or more in every rank's part of a step, as batch normalisation needs",
                "one row",
                "Raise batch_size: these rows are shared by all ranks, and by the parts of "
                "gradient_accumulation.",
            ) from exc

    @property
    def learning_rate(self) -> float:
        """Of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])


def build(recipe: Recipe, device: torch.device = _CPU) -> Built:
    """Carry out a recipe, with the model on a device; its operator is added by others.

    Raises:
        InputError: A creator gave something else than it should, or the parts do not fit.
        Exception: Whatever a creator raises.
    """
    config, several = dict(recipe.config), recipe.operator is not None
    model = recipe.model
    if not isinstance(model, nn.Module):
        model = _made(recipe.model, (config,), nn.Module, "model", several=several)
    _require_sizes(model)
    model = model.to(device) if device.type != "cpu" else model
    optimizer = recipe.optimizer
    if optimizer is None:
        optimizer = _plain_sgd(model)
    elif isinstance(optimizer, NamedOptimizer):
        optimizer = torch_optimizer(optimizer, model.parameters())
    elif not isinstance(optimizer, Optimizer):
        optimizer = _made(optimizer, (model, config), Optimizer, "optimizer", several=several)
    _require_own_parameters(model, optimizer)
    _require_no_closure(optimizer)
    scheduler = None
    _require_one_schedule(recipe)
    if recipe.scheduler_creator is not None:
        creator, given = recipe.scheduler_creator, (optimizer, config)
        scheduler = _made(creator, given, LRScheduler, "scheduler", several=several)
        if isinstance(scheduler, ReduceLROnPlateau) and recipe.scheduler_step_freq == "batch":
            raise InputError(
                "scheduler_step_freq='epoch' for a schedule that watches the loss",
                "'batch'",
                "Pass scheduler_step_freq='epoch'.",
            )
    elif isinstance(recipe.optimizer, NamedOptimizer):
        scheduler = torch_schedule(recipe.optimizer, optimizer)
    loss = _loss(recipe.loss, config)
    if isinstance(loss, nn.Module) and device.type != "cpu":
        loss = loss.to(device)
    scaler = torch.amp.GradScaler(device.type) if recipe.precision == "fp16" else None
    return Built(
        model,
        optimizer,
        loss,
        scheduler,
        device,
        recipe.precision,
        recipe.accumulate,
        scaler,
        step_freq=recipe.scheduler_step_freq,
        chosen=recipe.optimizer is not None,
    )


_FORMS = {"model": "config", "optimizer": "model, config", "scheduler": "optimizer, config"}


def _require_one_schedule(recipe: Recipe) -> None:
    optimizer = recipe.optimizer
    if not isinstance(optimizer, NamedOptimizer) or optimizer.rate_schedule() is None:
        return
    if recipe.scheduler_creator is not None:
        raise InputError(
            "one schedule of the learning rate",
            f"a scheduler_creator, and {type(optimizer).__name__} with a schedule or decay",
            "Leave one of them out.",
        )
    if recipe.scheduler_step_freq != "batch":
        raise InputError(
            "scheduler_step_freq='batch' with a schedule of zoo.orca.learn.optimizers",
            repr(recipe.scheduler_step_freq),
            "These count steps; count the steps of an epoch in its arguments.",
        )


def _plain_sgd(model: nn.Module) -> Optimizer:
    parameters = list(model.parameters())
    if not parameters:
        raise InputError(
            "a model with parameters to train",
            type(model).__name__,
            "Give it layers that have some.",
        )
    return torch.optim.SGD(parameters, lr=1e-3)


def _made(creator: Any, args: tuple[Any, ...], kind: type[Any], what: str, *, several: bool) -> Any:
    form = _FORMS[what]
    # Called with (model, config), a class of torch would take the config for a learning rate.
    bare = isinstance(creator, type) and issubclass(creator, Optimizer | LRScheduler)
    if bare or not callable(creator):
        raise InputError(
            f"{what} as a {kind.__name__} or a function f({form}) that returns one",
            repr(creator),
            f"Write lambda {form}: ... around it.",
        )
    made = join(creator(*(as_given(a) for a in args)), kind, what, custom=several)
    if not isinstance(made, kind):
        raise InputError(
            f"a {kind.__name__} from the {what} creator",
            f"{type(made).__name__}",
            "Return it at the end of the function.",
        )
    return made


def _require_sizes(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            module = name.rpartition(".")[0]
            raise InputError(
                "a model whose layers know their sizes",
                f"{type(model.get_submodule(module)).__name__} in {module!r}",
                "Give it its number of inputs, or call the model once with a batch before you "
                "return it.",
            )


def _require_no_closure(optimizer: Optimizer) -> None:
    if _required_arguments(optimizer.step):
        raise InputError(
            "an optimizer whose step() needs nothing but the gradients",
            f"{type(optimizer).__name__}, which calls a closure several times in a step",
            "Use Adam or SGD: over several ranks, a step has one pass over its rows.",
        )


def _require_own_parameters(model: nn.Module, optimizer: Optimizer) -> None:
    own = {id(p) for p in model.parameters()}
    given = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(id(p) in own for p in given):
        raise InputError(
            "an optimizer over the parameters of the model",
            "one over other parameters",
            "Make it from this very model: torch.optim.SGD(model.parameters(), ...), or give a "
            "function f(model, config).",
        )


def not_trained(built: Built) -> list[str]:
    """Parameters of the model that want gradients, and that its optimizer does not have."""
    given = {id(p) for group in built.optimizer.param_groups for p in group["params"]}
    named = built.model.named_parameters()
    return [name for name, p in named if p.requires_grad and id(p) not in given]


def _loss(loss: Any, config: dict[str, Any]) -> Callable[..., torch.Tensor] | None:
    if loss is None or isinstance(loss, nn.Module):
        made = loss
    elif isinstance(loss, list | tuple) and loss:
        parts = [_loss(part, config) for part in loss]
        made = LossPerOutput([part for part in parts if part is not None])
    elif isinstance(loss, type) and issubclass(loss, nn.Module):
        made = loss()
    elif not callable(loss):
        raise InputError(
            "loss as a torch loss, a function (output, target), or f(config)",
            repr(loss),
            "Use torch.nn.MSELoss() for example.",
        )
    else:
        made = loss(config) if _required_arguments(loss) == 1 else loss
        if not callable(made):
            raise InputError(
                "a loss from the loss creator", type(made).__name__, "Return a torch loss."
            )
    if getattr(made, "reduction", "mean") == "none":
        raise InputError(
            "a loss that is one number for a batch",
            "a loss with reduction='none'",
            "Use reduction='mean' or 'sum'.",
        )
    return made


def _required_arguments(function: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)


def takes_one_input(model: nn.Module) -> bool:
    """Whether the model's `forward` needs one positional argument, and no more."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return False
    positional = [p for p in parameters if p.kind in kinds]
    needed = [p for p in positional if p.default is p.empty]
    return len(needed or positional) == 1


def float_dtype(model: nn.Module) -> str:
    """The numpy name of the model's floating-point type: float64 or float32."""
    first = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return "float64" if first == torch.float64 else "float32"
