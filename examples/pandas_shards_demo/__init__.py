"""What the program `pandas_shards.py` counts, draws and prints."""

from pandas_shards_demo.chart import draw_week
from pandas_shards_demo.counts import write_counts
from pandas_shards_demo.model import adam, network
from pandas_shards_demo.program import ERRORS, arguments, say

__all__ = ["ERRORS", "adam", "arguments", "draw_week", "network", "say", "write_counts"]
