"""The errors Zoo raises.

Catch `ZooError` for all of them, or a narrower one::

    ZooError
    ├── InputError (ValueError)           what the caller gave cannot be used
    │   ├── ContractError (AssertionError)    a call form that existing programs expect to assert
    │   └── ColumnError                   a column of a frame cannot become a tensor
    ├── NotYetError (NotImplementedError) a name that is known here and not available yet
    ├── MissingExtraError (ImportError)   an optional package is not installed
    └── ClusterError (RuntimeError)       the cluster could not do what was asked
        ├── JavaError                     no usable Java
        ├── SlotsError                    fewer task slots than ranks
        ├── RankError                     a rank failed with an error that cannot travel
        │   └── RankLostError             a rank was lost without a word
        └── ShardsLostError               ingested rows are gone from the disk that held them

Each says what was expected, what came and what to do. All survive pickling, so they can cross
from an executor to the driver.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = [
    "ClusterError",
    "ColumnError",
    "ContractError",
    "InputError",
    "JavaError",
    "MissingExtraError",
    "NotYetError",
    "RankError",
    "RankLostError",
    "ShardsLostError",
    "SlotsError",
    "ZooError",
    "load_extra",
    "require_extra",
]


class ZooError(Exception):
    """Base of every error that Zoo raises on purpose."""


class _Explained(ZooError):
    """An error in three parts. Subclasses keep the constructor, so pickling works for all."""

    def __init__(self, expected: str, received: str, remedy: str) -> None:
        super().__init__(f"Expected {expected}; received {received}. {remedy}")
        self.expected, self.received, self.remedy = expected, received, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expected, self.received, self.remedy), dict(vars(self))


class InputError(_Explained, ValueError):
    """What the caller gave cannot be used."""


class ContractError(InputError, AssertionError):
    """Misuse that programs written for Analytics Zoo expect as an `AssertionError`."""


class ColumnError(InputError):
    """A column of a frame cannot become a tensor: wrong name, type, shape or missing values."""


class NotYetError(_Explained, NotImplementedError):
    """A mode or backend whose name is known, and which this version cannot run."""


class MissingExtraError(ZooError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is needed here; run: pip install 'zoo[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.package, self.extra)


class ClusterError(_Explained, RuntimeError):
    """The cluster could not do what was asked."""


class JavaError(ClusterError):
    """No Java that Spark can run on was found."""


class SlotsError(ClusterError):
    """The cluster has fewer free task slots than the ranks need."""


class RankError(ClusterError):
    """A rank failed, and its error cannot travel; trying again would only show it again."""


class RankLostError(RankError):
    """A rank was lost without a word: killed, out of memory, or its host is gone.

    What it did may succeed elsewhere, so a fit goes on after it (`zoo.orca.learn.recovery`).
    """


class ShardsLostError(ClusterError):
    """Rows that were ingested are gone from the disk that held them; the frame has them still.

    Attributes:
        shards: Whose rows are gone, each as which data (0 for training, 1 for validation) and the
            number of the partition.
    """

    def __init__(
        self, expected: str, received: str, remedy: str, shards: Sequence[tuple[int, int]] = ()
    ) -> None:
        super().__init__(expected, received, remedy)
        self.shards = tuple(shards)

    def __reduce__(self) -> tuple[Any, ...]:
        args = (self.expected, self.received, self.remedy, self.shards)
        return type(self), args, dict(vars(self))


def load_extra(name: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Args:
        name: The module, such as `torch.utils.data`.
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: The package is not installed. A package that is installed and broken
            raises its own error.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        top = name.split(".")[0]
        if (exc.name or "").split(".")[0] != top:
            raise
        raise MissingExtraError(top, extra) from exc


def require_extra(name: str, extra: str) -> None:
    """See that an optional package is there, and do not import it.

    Args:
        name: The package, such as `torch`.
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        there = importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # somebody keeps it from being found
        there = False
    if not there:
        raise MissingExtraError(name, extra)
