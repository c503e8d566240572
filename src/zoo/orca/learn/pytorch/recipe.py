"""What the user gave to build a training from, and building it: on the driver and on ranks."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from zoo.errors import InputError

__all__ = ["Built", "Recipe", "build", "float_dtype", "load_state", "save_state", "takes_one_input"]


@dataclass(frozen=True)
class Recipe:
    """How to make model, optimizer, loss and schedule. Travels to the ranks.

    Attributes:
        model: A module, or `f(config)` that makes one.
        optimizer: An optimizer over the module's parameters, `f(model, config)` that makes one,
            or None for plain SGD.
        loss: A torch loss, any callable `(output, target)`, `f(config)` that makes one, or None:
            the model's output is the loss.
        scheduler_creator: `f(optimizer, config)`.
        scheduler_step_freq: `batch`, `epoch` or None.
        config: Handed to all creators.
    """

    model: nn.Module | Callable[[dict[str, Any]], nn.Module]
    optimizer: Optimizer | Callable[..., Optimizer] | None = None
    loss: Any = None
    scheduler_creator: Callable[..., LRScheduler] | None = None
    scheduler_step_freq: str | None = "batch"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Built:
    """A recipe carried out."""

    model: nn.Module
    optimizer: Optimizer
    loss: Callable[..., torch.Tensor] | None
    scheduler: LRScheduler | None


def build(recipe: Recipe) -> Built:
    """Carry out a recipe.

    Raises:
        InputError: A creator gave something else than it should, or the parts do not fit.
        Exception: Whatever a creator raises.
    """
    config = dict(recipe.config)
    model = recipe.model
    if not isinstance(model, nn.Module):
        model = _made(recipe.model, (config,), nn.Module, "model")
    optimizer = recipe.optimizer
    if optimizer is None:
        optimizer = _plain_sgd(model)
    elif not isinstance(optimizer, Optimizer):
        optimizer = _made(optimizer, (model, config), Optimizer, "optimizer")
    _require_own_parameters(model, optimizer)
    scheduler = None
    if recipe.scheduler_creator is not None:
        scheduler = _made(recipe.scheduler_creator, (optimizer, config), LRScheduler, "scheduler")
        if isinstance(scheduler, ReduceLROnPlateau) and recipe.scheduler_step_freq == "batch":
            raise InputError(
                "scheduler_step_freq='epoch' for a schedule that watches the loss",
                "'batch'",
                "Pass scheduler_step_freq='epoch'.",
            )
    return Built(model, optimizer, _loss(recipe.loss, config), scheduler)


_FORMS = {"model": "config", "optimizer": "model, config", "scheduler": "optimizer, config"}


def _plain_sgd(model: nn.Module) -> Optimizer:
    parameters = list(model.parameters())
    if not parameters:
        raise InputError(
            "a model with parameters to train",
            type(model).__name__,
            "Give it layers that have some.",
        )
    return torch.optim.SGD(parameters, lr=1e-3)


def _made(creator: Any, args: tuple[Any, ...], kind: type[Any], what: str) -> Any:
    form = _FORMS[what]
    # Called with (model, config), a class of torch would take the config for a learning rate.
    bare = isinstance(creator, type) and issubclass(creator, Optimizer | LRScheduler)
    if bare or not callable(creator):
        raise InputError(
            f"{what} as a {kind.__name__} or a function f({form}) that returns one",
            repr(creator),
            f"Write lambda {form}: ... around it.",
        )
    made = creator(*args)
    if not isinstance(made, kind):
        raise InputError(
            f"a {kind.__name__} from the {what} creator",
            f"{type(made).__name__}",
            "Return it at the end of the function.",
        )
    return made


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


def _loss(loss: Any, config: dict[str, Any]) -> Callable[..., torch.Tensor] | None:
    if loss is None or isinstance(loss, nn.Module):
        made = loss
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
    """Whether the model's `forward` can be called with one positional argument only."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return False
    return sum(p.kind in kinds for p in parameters) == 1


def float_dtype(model: nn.Module) -> str:
    """The numpy name of the model's floating-point type: float64 or float32."""
    first = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return "float64" if first == torch.float64 else "float32"


def save_state(built: Built, *, epoch: int, iteration: int) -> bytes:
    """Everything that training continues from, readable with `weights_only`.

    Args:
        built: Model, optimizer and scheduler.
        epoch: Epochs done.
        iteration: Steps done.
    """
    state = {
        "format": "zoo-torch-1",
        "epoch": epoch,
        "iteration": iteration,
        "model": built.model.state_dict(),
        "optimizer": built.optimizer.state_dict(),
        "optimizer_kind": type(built.optimizer).__name__,
        "scheduler": None if built.scheduler is None else _plain(built.scheduler.state_dict()),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Without functions, which would need pickle and are made anew by the creator."""
    return {k: v for k, v in state.items() if not callable(v)}


def load_state(built: Built, blob: bytes) -> tuple[int, int]:
    """Put a saved state into what was built.

    Returns:
        Epochs and steps done.

    Raises:
        InputError: The bytes are no state, or of another model.
    """
    try:
        state = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as exc:  # torch raises many kinds for what is no file of its own
        raise _unreadable(f"{type(exc).__name__}: {exc}".splitlines()[0]) from exc
    if not isinstance(state, dict):
        raise _unreadable(f"a saved {type(state).__name__}")
    whole = state.get("format") == "zoo-torch-1"
    try:
        if whole and state["optimizer_kind"] != type(built.optimizer).__name__:
            raise ValueError(f"the state of another optimizer, {state['optimizer_kind']}")
        built.model.load_state_dict(state["model"] if whole else state)
        if whole:
            built.optimizer.load_state_dict(state["optimizer"])
            if built.scheduler is not None and state["scheduler"] is not None:
                built.scheduler.load_state_dict(state["scheduler"])
        return (state["epoch"], state["iteration"]) if whole else (0, 0)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as exc:
        raise _unreadable(" ".join(f"{type(exc).__name__}: {exc}".split())) from exc


def _unreadable(what: str) -> InputError:
    return InputError(
        "a file written by save(), or by torch.save(model.state_dict()), for this model",
        what,
        "Cannot load the PyTorch model: check the path and that the model is the same.",
    )
