"""On which device a rank trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from zoo.cluster.ranks.member import Member

__all__ = ["choose_device"]


def choose_device(member: Member, config: Mapping[str, Any]) -> torch.device:
    """The GPU that this task was given, else one of the host's by turns, else the CPU.

    Args:
        member: This rank.
        config: Of the estimator; `device` names one and ends the search.
    """
    if "device" in config:
        return torch.device(config["device"])
    if not torch.cuda.is_available():
        return torch.device("cpu")
    assigned = member.arrival.devices
    index = int(assigned[0]) if assigned else member.neighbours.index(member.rank)
    return torch.device("cuda", index % torch.cuda.device_count())
