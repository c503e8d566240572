"""The daemon that forks Spark's Python workers, with torch loaded.

A worker that has raised an error ends, and each new one loads torch again: a second of one core,
hundreds of times in a run of all tests. Forked from here, it has torch already.
"""

import threading

import numpy  # noqa: F401 - loaded for the workers
import torch  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    # A fork is only safe where there are no other threads; pandas would start one.
    assert threading.active_count() == 1
    manager()
