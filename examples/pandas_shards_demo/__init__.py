"""What the program `pandas_shards.py` counts, draws and prints."""

from pandas_shards_demo.chart import draw_week
from pandas_shards_demo.counts import write_counts
from pandas_shards_demo.program import arguments, say

__all__ = ["arguments", "draw_week", "say", "write_counts"]
