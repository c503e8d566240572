"""What the program `digits.py` prints, draws and asks Spark at length."""

from digits_demo import queries
from digits_demo.images import write_digits
from digits_demo.program import Stopwatch, arguments, fresh_process
from digits_demo.report import write_report

__all__ = [
    "Stopwatch",
    "arguments",
    "fresh_process",
    "queries",
    "write_digits",
    "write_report",
]
