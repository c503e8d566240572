"""Estimators that are made by a function of many arguments: checked, changed, made again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from zoo.cluster.ranks.crew import Crew
from zoo.errors import InputError, NotYetError
from zoo.orca.learn.estimator import SparkEstimator, require_count
from zoo.orca.learn.estimator_settings import EstimatorSettings
from zoo.orca.learn.recovery import KEPT, Recovery

__all__ = [
    "GivenEstimator",
    "checked_config",
    "checked_crew",
    "checked_recovery",
    "checked_snapshots",
    "require_backend",
]

_log = logging.getLogger(__name__)


class GivenEstimator(SparkEstimator):
    """An estimator that remembers what it was made of.

    `get_params`, `set_params` and `clone` are those of scikit-learn, whose `sklearn.base.clone`
    works on it.
    """

    _given: dict[str, Any]
    _maker: Callable[..., Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What the estimator was made of, by name.

        Args:
            deep: With each entry of `config` besides, as `config__<name>`.
        """
        nested = dict(self._given["config"] or {}) if deep else {}
        return {**self._given, **{f"config__{name}": value for name, value in nested.items()}}

    def set_params(self, **params: Any) -> Self:
        """Change what the estimator was made of, before anything is trained.

        Args:
            params: By name; `config__lr=0.1` changes one entry of `config`.

        Raises:
            InputError: There is no such name, a value cannot be used, or something is trained.
        """
        if not params:
            return self
        if not self._training.fresh:
            raise InputError(
                "an estimator that has trained nothing, to change what it is made of",
                repr(self), "Change a copy: est.clone().set_params(...).",
            )  # fmt: skip
        given, entries = dict(self._given), {}
        for name, value in params.items():
            entry = name.removeprefix("config__")
            if entry != name:
                entries[entry] = value
            elif name in given:
                given[name] = value
            else:
                names = ", ".join(given)
                raise InputError(f"{names}, or config__<name>", repr(name), "Correct the name.")
        if entries:
            given["config"] = {**(given["config"] or {}), **entries}
        kept = vars(EstimatorSettings())
        made = vars(self._maker(**given))
        vars(self).update({name: part for name, part in made.items() if name not in kept})
        return self

    def clone(self) -> Self:
        """An estimator made of the same, which has trained nothing."""
        made: Self = self._maker(**self._given)
        return made

    __sklearn_clone__ = clone


def require_backend(backend: str, earlier: Sequence[str], later: Sequence[str] = ("ray",)) -> None:
    """Take the name of a backend, or say why not.

    Args:
        backend: As it was given.
        earlier: Names of the past, which mean Spark here.
        later: Names that are known and not available yet.

    Raises:
        InputError: There is no such backend.
        NotYetError: It is known and not available yet.
    """
    if backend == "spark":
        return
    if backend in earlier:
        _log.warning(
            "backend=%r is trained as backend='spark': in ranks that are tasks of Spark, with "
            "batch_size as the rows of a step over all ranks.", backend,
        )  # fmt: skip
        return
    if backend in later:
        raise NotYetError("backend='spark'", repr(backend), "This version trains in Spark tasks.")
    names = ", ".join(["spark", *earlier, *later])
    raise InputError(f"backend as one of {names}", repr(backend), "Use 'spark'.")


def checked_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings for functions of the user's.

    Raises:
        InputError: They are no dict, or have a batch size.
    """
    if config is not None and not isinstance(config, Mapping):
        raise InputError("config as a dict", type(config).__name__, "Pass config={'lr': 0.1}.")
    settings = dict(config or {})
    if "batch_size" in settings:
        raise InputError(
            "config without batch_size (Please do not specify batch_size in config)",
            f"batch_size={settings['batch_size']!r}",
            "Pass batch_size to fit, evaluate and predict.",
        )
    return settings


def checked_crew(min_workers: int, max_workers: int | None, workers_per_node: int) -> Crew:
    """How many ranks.

    Raises:
        InputError: A number is no count, or there are fewer at most than at least.
    """
    require_count("workers_per_node", workers_per_node)
    require_count("min_workers", min_workers)
    if max_workers is not None:
        require_count("max_workers", max_workers)
        if max_workers < min_workers:
            raise InputError(
                "max_workers of at least min_workers", f"{max_workers} and {min_workers}",
                "Swap them.",
            )  # fmt: skip
    return Crew(min_workers, max_workers, workers_per_node)


def checked_recovery(recovery: Recovery | None) -> Recovery:
    """What is put up with when ranks are lost.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(recovery, Recovery | None):
        raise InputError(
            "recovery as a zoo.orca.learn.recovery.Recovery", type(recovery).__name__,
            "Pass Recovery(retries=3), for example.",
        )  # fmt: skip
    return recovery or Recovery()


def checked_snapshots(
    model_dir: str | None, keep_snapshots: int | None
) -> tuple[str | None, int | None]:
    """Where snapshots are kept, and how many.

    Raises:
        InputError: There is a number, and no place.
    """
    if keep_snapshots is not None:
        require_count("keep_snapshots", keep_snapshots)
    if model_dir is None and keep_snapshots != KEPT:
        raise InputError(
            "a model_dir to keep snapshots in", f"keep_snapshots={keep_snapshots!r} alone",
            "Pass model_dir as well.",
        )  # fmt: skip
    return model_dir, keep_snapshots
