"""Ranks on several hosts: processes of this machine that only say so."""

import pytest

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.launcher import Launcher


@pytest.fixture
def hosts(warm_launcher: type[WarmLauncher]) -> Launcher:
    """Three, in turn."""
    return warm_launcher("h0", "h1", "h2")
