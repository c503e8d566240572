"""Numbers for code that draws from generators of the whole process: ours, and the same each time.

Python's and NumPy's generators are set for a while and then put back, by one thread at a time.
torch's own is left alone, since a training draws from it: calls of this thread that would draw from
it are given a generator of ours instead.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

__all__ = ["seeded", "seeded_torch"]

_LOCK = threading.RLock()
# What takes a generator, in torch and as methods of its tensors.
_FUNCTIONS = (
    *("bernoulli", "binomial", "multinomial", "normal", "poisson", "rand", "rand_like", "randint"),
    *("randint_like", "randn", "randn_like", "randperm", "_sample_dirichlet", "_standard_gamma"),
)
_METHODS = (
    *("bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_"),
    *("multinomial", "normal_", "random_", "uniform_"),
)


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.RLock()


# The thread that held it is not there in a forked process.
os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[], bool]]:
    """Let what is drawn inside follow from a seed, from whichever of the three generators.

    Args:
        seed: A whole number from 0, below 2**63.

    Yields:
        A function that tells whether anything was drawn so far.
    """
    with _LOCK:
        before = random.getstate(), np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(np.random.SeedSequence(seed).generate_state(4))
            start = _states()
            with seeded_torch(seed) as torch_drew:
                yield lambda: torch_drew() or _states() != start
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextmanager
def seeded_torch(seed: int) -> Iterator[Callable[[], bool]]:
    """As `seeded`, for torch alone; other threads are not held up."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield lambda: False
        return
    mode = _mode()(seed)
    with mode:
        yield lambda: bool(mode.drew)


def _states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, bytes(keys), rest  # type: ignore[arg-type] # an array


@cache
def _mode() -> type:
    """What gives a generator to each call of torch that draws, on the thread that enters it."""
    torch: Any = sys.modules["torch"]
    drawing = {getattr(torch, name) for name in _FUNCTIONS}
    drawing |= {getattr(torch.Tensor, name) for name in _METHODS}

    class Seeded(torch.overrides.TorchFunctionMode):  # type: ignore[misc] # of an optional package
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(seed)
            self.drew = False

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = dict(kwargs or {})
            if func in drawing and given.get("generator") is None:
                given["generator"], self.drew = self.generator, True
            return func(*args, **given)

    return Seeded
