"""The flags that `ZooContext` and `OrcaContext` have in common, as attributes of the class."""

from __future__ import annotations

import warnings

from zoo.cluster.session import lifecycle
from zoo.cluster.settings import settings
from zoo.errors import ContractError

__all__ = ["ContextFlags", "require_bool"]


class ContextFlags(type):
    """Metaclass of a class that is only a place for flags."""

    def __setattr__(cls, name: str, value: object) -> None:
        if not hasattr(cls, name):
            warnings.warn(f"{cls.__name__} has no flag {name}; it has no effect.", stacklevel=2)
        super().__setattr__(name, value)

    @property
    def log_output(cls) -> bool:
        """Whether what the JVM prints goes through Python's own streams, which notebooks show."""
        return settings.log_output

    @log_output.setter
    def log_output(cls, value: bool) -> None:
        require_bool("log_output", value)
        if value != settings.log_output and lifecycle.active_context() is not None:
            warnings.warn("log_output takes effect when Spark starts again.", stacklevel=2)
        settings.log_output = value

    @property
    def barrier_mode(cls) -> bool:
        """Kept for old programs; without effect, since nothing here needs a barrier stage."""
        return settings.barrier_mode

    @barrier_mode.setter
    def barrier_mode(cls, value: bool) -> None:
        require_bool("barrier_mode", value)
        if not value:
            warnings.warn(
                "barrier_mode has no effect: training needs no barrier stage, so dynamic "
                "allocation works, and this version does not start Ray.",
                stacklevel=2,
            )
        settings.barrier_mode = value


def require_bool(name: str, value: object) -> None:
    """Accept True and False only.

    Raises:
        ContractError: It is something else.
    """
    if not isinstance(value, bool):
        raise ContractError(f"{name} to be True or False", repr(value), "Set one of the two.")
