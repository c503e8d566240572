"""What every rank does: sums of many sizes, timed and with their bytes counted, then steps."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import launcher_for
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.round import launch
from zoo.orca.learn.agree.collective import Collective, collective_for

__all__ = ["MEMORY", "NETWORK", "TWO_HOSTS", "Plan", "Step", "Sum", "run"]

MEMORY, TWO_HOSTS, NETWORK = "one host", "two hosts", "a host each"
# Where `struct tcp_info` of Linux has tcpi_bytes_sent and the bytes among them that went twice.
_SENT_AT = 200
_WARM_CALLS, _FEWEST, _MOST = 3, 5, 300
_HOSTS = 2
_COLUMNS, _LAYERS = 32, (128, 64, 1)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        sizes: Bytes of the arrays that are summed.
        seconds: For the sums of one size, about.
        steps: Training steps of each kind.
        rows: Of a step over all ranks, and again of a step for each rank.
    """

    sizes: tuple[int, ...]
    seconds: float
    steps: int
    rows: int


@dataclass(frozen=True)
class Sum:
    """A sum over ranks.

    Attributes:
        way: Where the ranks are.
        ranks: How many.
        hosts: How many, as the ranks see it.
        size: Bytes of each rank's array.
        seconds: Of one sum, on the slowest rank; the median of many.
        sent: Bytes that the rank which sent most gave to TCP, for one sum.
    """

    way: str
    ranks: int
    hosts: int
    size: int
    seconds: float
    sent: float


@dataclass(frozen=True)
class Step:
    """A training step.

    Attributes:
        way: Where the ranks are.
        ranks: How many.
        rows: Of all ranks in a step.
        fixed: Whether all ranks together have so many rows; else each of them has its own.
        seconds: Of a step, on the slowest rank; the median of many.
        agreeing: The part of it that goes to agreement, waiting included; mean over ranks.
    """

    way: str
    ranks: int
    rows: int
    fixed: bool
    seconds: float
    agreeing: float


def run(ranks: int, plan: Plan) -> tuple[list[Sum], list[Step]]:
    """Start so many ranks as processes of this machine, and let them measure."""

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        return b"", {"sums": _sums(member, plan), "steps": _steps(member, plan)}

    results = launch(
        pickled(body, "the measurement"),
        launcher=launcher_for("local"), ranks=ranks, per_executor=ranks,
    )  # fmt: skip
    facts = [result.body for result in results]
    sums = [_sum(of_ranks) for of_ranks in zip(*(f["sums"] for f in facts), strict=True)]
    steps = [_step(of_ranks) for of_ranks in zip(*(f["steps"] for f in facts), strict=True)]
    return sums, steps


def _sum(of_ranks: tuple[dict[str, Any], ...]) -> Sum:
    way, ranks, hosts, size = of_ranks[0]["what"]
    slowest = np.max([one["seconds"] for one in of_ranks], axis=0)
    return Sum(
        way, ranks, hosts, size, float(np.median(slowest)), max(one["sent"] for one in of_ranks)
    )


def _step(of_ranks: tuple[dict[str, Any], ...]) -> Step:
    slowest = np.max([one["seconds"] for one in of_ranks], axis=0)
    agreeing = fmean(one["agreeing"] for one in of_ranks)
    way, ranks, rows, fixed = of_ranks[0]["what"]
    return Step(way, ranks, rows, fixed, float(np.median(slowest)), agreeing)


def _ways(ranks: int) -> dict[str, int]:
    """Ways to place so many ranks, and the hosts that each has."""
    ways = {MEMORY: 1}
    if ranks > _HOSTS:
        ways[TWO_HOSTS] = _HOSTS
    if ranks > 1:
        ways[NETWORK] = ranks
    return ways


def _place(member: Member, hosts: int) -> None:
    """Let this rank believe that the ranks are on so many hosts, neighbours together."""
    member.peers = tuple(
        replace(peer, host=f"host-{peer.rank * hosts // member.size}") for peer in member.peers
    )


def _sums(member: Member, plan: Plan) -> list[dict[str, Any]]:
    found = []
    for way, hosts in _ways(member.size).items():
        _place(member, hosts)
        for size in plan.sizes:
            what = (way, member.size, hosts, size)
            found.append({"what": what, **_timed_sums(member, size, plan.seconds)})
    return found


def _timed_sums(member: Member, size: int, budget_s: float) -> dict[str, Any]:
    array = np.zeros(size // 4, np.float32)
    with _collective(member, array) as (collective, sent):
        warm = _timed(collective.all_reduce, _WARM_CALLS)
        # All ranks must do as many.
        slowest = max(member.share(sum(warm[1:]) / (_WARM_CALLS - 1)))
        calls = int(min(_MOST, max(_FEWEST, budget_s / slowest)))
        before = sent()
        member.share(0)  # nobody sends before all have counted
        seconds = _timed(collective.all_reduce, calls)
        member.share(0)
        return {"seconds": seconds, "sent": (sent() - before) / calls}


def _timed(act: Callable[[], None], calls: int) -> list[float]:
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return seconds


@contextmanager
def _collective(
    member: Member, array: np.ndarray
) -> Iterator[tuple[Collective, Callable[[], int]]]:
    """Ranks that agree on an array, and what counts the bytes that this rank sent for it."""
    others = set(_tcp_sent())
    collective = collective_for(member, [array])
    yield collective, lambda: sum(n for place, n in _tcp_sent().items() if place not in others)
    member.share(0)  # who leaves first would cut the connections of others
    collective.close()


def _tcp_sent() -> dict[str, int]:
    """Payload bytes that went out on each TCP socket of this process, those sent again left out."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{name}")
            if not place.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as same:
                info = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
        except OSError:  # closed meanwhile, or another kind of socket
            continue
        sent, again = struct.unpack_from("=QQ", info, _SENT_AT)
        found[place] = sent - again
    return found


def _steps(member: Member, plan: Plan) -> list[dict[str, Any]]:
    found = []
    for way, hosts in _ways(member.size).items():
        _place(member, hosts)
        for fixed in (True, False):
            rows = plan.rows // member.size if fixed else plan.rows
            what = (way, member.size, rows * member.size, fixed)
            found.append({"what": what, **_timed_steps(member, rows, plan.steps)})
    return found


def _timed_steps(member: Member, rows: int, steps: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = (_COLUMNS, *_LAYERS)
    layers: list[torch.nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters())
    data, label = torch.rand(rows, _COLUMNS), torch.rand(rows, 1)
    gradients = torch.zeros(sum(p.numel() for p in model.parameters()))
    at = 0
    for p in model.parameters():
        p.grad = gradients[at : at + p.numel()].view_as(p)
        at += p.numel()
    agreeing = 0.0

    def step() -> None:
        nonlocal agreeing
        gradients.zero_()
        torch.nn.functional.mse_loss(model(data), label).backward()
        start = time.perf_counter()
        collective.all_reduce()
        agreeing += time.perf_counter() - start
        gradients.div_(member.size)
        optimizer.step()

    with _collective(member, gradients.numpy()) as (collective, _):
        _timed(step, 2 * _WARM_CALLS)
        agreeing = 0.0
        return {"seconds": _timed(step, steps), "agreeing": agreeing / steps}
