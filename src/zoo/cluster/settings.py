"""Switches of the whole process. Users set them on `OrcaContext` or `ZooContext`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings", "settings"]


@dataclass
class Settings:
    """Switches of the whole process.

    Args:
        log_output: Forward what the JVM prints to Python's own streams, for notebooks.
        barrier_mode: Kept for old programs; nobody reads it.
        pandas_read_backend: Who reads for `zoo.orca.data.pandas`: `spark` or `pandas`.
        eager_mode: Compute every new SparkXShards at once.
        serialize_data_creator: Let one process of a machine run a data creator function at a time.
        train_data_store: Kept for old programs; nobody reads it.
        shard_size: Rows of a shard made from a DataFrame; None for one shard a partition.
    """

    log_output: bool = False
    barrier_mode: bool = True
    pandas_read_backend: str = "spark"
    eager_mode: bool = True
    serialize_data_creator: bool = False
    train_data_store: str = "DRAM"
    shard_size: int | None = None


settings = Settings()
