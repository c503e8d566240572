"""Shards in the object store of Ray. The names are known; this version starts no Ray."""

from __future__ import annotations

from typing import Any, NoReturn

from zoo.errors import NotYetError

__all__ = ["RayXShards"]


def _not_yet() -> NoReturn:
    raise NotYetError(
        "work that needs no Ray",
        "a wish for shards in the object store of Ray",
        "SparkXShards go into fit, evaluate and predict as they are.",
    )


class RayXShards:
    """Shards in the object store of Ray: not available yet, like all of its methods.

    Raises:
        NotYetError: Always.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        _not_yet()

    @staticmethod
    def from_spark_xshards(spark_xshards: Any) -> NoReturn:
        """Move the shards of Spark to Ray."""
        _not_yet()

    def to_spark_xshards(self) -> NoReturn:
        """Move the shards back to Spark."""
        _not_yet()

    def transform_shard(self, func: Any, *args: Any) -> NoReturn:
        """Call a function for each shard."""
        _not_yet()

    def collect(self) -> NoReturn:
        """All shards."""
        _not_yet()

    def collect_partitions(self) -> NoReturn:
        """All partitions, each a list of shards."""
        _not_yet()

    def num_partitions(self) -> NoReturn:
        """How many partitions there are."""
        _not_yet()

    def transform_shards_with_actors(self, actors: Any, func: Any) -> NoReturn:
        """Call a function for each partition and the actor that it is assigned to."""
        _not_yet()

    def reduce_partitions_for_actors(
        self, actors: Any, func: Any, return_refs: bool = False
    ) -> NoReturn:
        """Call a function for each actor and its partitions."""
        _not_yet()

    def zip_reduce_shards_with_actors(
        self, other: Any, actors: Any, func: Any, return_refs: bool = False
    ) -> NoReturn:
        """Call a function for each actor and its partitions of two sets of shards."""
        _not_yet()

    def assign_partitions_to_actors(self, actors: Any) -> NoReturn:
        """Say which actor gets which partitions."""
        _not_yet()
