"""A value that every executor holds once."""

from __future__ import annotations

from typing import Any

from zoo.cluster.session.lifecycle import active_session

__all__ = ["SharedValue"]


class SharedValue:
    """A value that is sent to every executor once, however many shards read it.

    Args:
        data: The value; it must be picklable.

    Raises:
        ClusterError: No Spark runs.

    Example::

        means = SharedValue({"age": 40.1})
        shards.transform_shard(lambda df, means: df.fillna(means.value), means)
    """

    def __init__(self, data: Any) -> None:
        self.broadcast_data = active_session().sparkContext.broadcast(data)

    @property
    def value(self) -> Any:
        """The value, on the driver and in functions that run over shards."""
        return self.broadcast_data.value

    def unpersist(self) -> None:
        """Drop the copies of the executors; they are sent again when they are read again."""
        self.broadcast_data.unpersist()
