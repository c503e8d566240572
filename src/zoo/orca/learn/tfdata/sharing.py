"""How ranks share a dataset that a function of the user's makes in each of them."""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.learn.order import LoaderSource
from zoo.orca.learn.tfdata.elements import Arrays
from zoo.orca.learn.tfdata.watched_config import WatchedConfig

__all__ = [
    "Made",
    "Sharing",
    "by_files",
    "checksum",
    "compared",
    "made",
    "require_same",
    "sharing_of",
]

_log = logging.getLogger(__name__)
_Policy = tf.data.experimental.AutoShardPolicy


class Sharing(Enum):
    """What a rank takes."""

    ROWS = "each rank goes through the whole dataset and takes its rows of each step"
    FILES = "each rank reads its part of the files"
    OWN = "each rank takes all of the dataset that its creator function made"


@dataclass(frozen=True)
class Made:
    """What a creator function returned.

    Attributes:
        dataset: It.
        asked: The function has looked at `rank` or `size`.
        copied: It has copied the config, so it may have.
    """

    dataset: tf.data.Dataset
    asked: bool
    copied: bool

    @property
    def policy(self) -> Any:
        """How the user wants it to be shared, an `AutoShardPolicy`."""
        return self.dataset.options().experimental_distribute.auto_shard_policy


def made(source: LoaderSource, member: Member) -> Made:
    """Call the creator function; what it draws at random is the same on every rank.

    Raises:
        InputError: It returns something else than a dataset.
    """
    config = WatchedConfig({**source.config, "rank": member.rank, "size": member.size})
    with _same_randomness(source.seed):
        dataset = source.creator(config, max(1, source.batch_size // member.size))
    if not isinstance(dataset, tf.data.Dataset):
        raise InputError(
            "a tf.data.Dataset from the data creator",
            type(dataset).__name__,
            "Return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size), for example.",
        )
    return Made(dataset, config.asked, config.copied)


@contextmanager
def _same_randomness(seed: int) -> Iterator[None]:
    """What is drawn in here, and the seeds of TensorFlow's operations made in here, are known."""
    mine, others = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        # There is no way to ask for the seed before: it stays, in this process of the library's.
        tf.random.set_seed(seed)
        yield
    finally:
        random.setstate(mine)
        np.random.set_state(others)


def sharing_of(found: Made, member: Member) -> Sharing:
    """How a dataset is to be shared. Every rank must call this.

    The user says so with `options.experimental_distribute.auto_shard_policy`: `FILE`, `DATA` or
    `OFF`. Otherwise a function that looked at `config["rank"]` or `config["size"]` has taken the
    part of its rank already.
    """
    asked = any(member.share(found.asked))
    policy = found.policy
    if member.size == 1 or policy == _Policy.DATA:
        return Sharing.ROWS
    if policy == _Policy.FILE:
        return Sharing.FILES if _has_files(found.dataset, member) else Sharing.ROWS
    return Sharing.OWN if asked or policy == _Policy.OFF else Sharing.ROWS


def compared(sharing: Sharing, policy: Any, heads: Sequence[Sequence[int]]) -> Sharing:
    """How a dataset is shared, now that the first rows are known.

    Args:
        sharing: From `sharing_of`.
        policy: An `AutoShardPolicy`, what the user wants.
        heads: Of each rank rows of its first batch, length and checksum, and whether its function
            has copied the config.

    Raises:
        InputError: It cannot be shared so.
    """
    *facts, copied = zip(*heads, strict=True)
    same = all(len(set(fact)) == 1 for fact in facts)
    if sharing is Sharing.ROWS and not same and any(copied) and policy != _Policy.DATA:
        return Sharing.OWN
    if sharing is Sharing.ROWS and not same:
        raise _unlike()
    if sharing is Sharing.OWN and same and policy != _Policy.OFF:
        _log.warning(
            "the data creator has looked at config['rank'] or config['size'], so its dataset is "
            "taken for the part of a rank, and yet all ranks begin with the same rows. If it is "
            "the whole dataset, each row is used %d times: set "
            "options.experimental_distribute.auto_shard_policy to AutoShardPolicy.DATA then, and "
            "to OFF if it is not.", len(heads),
        )  # fmt: skip
    return sharing


def require_same(sums: Sequence[int]) -> None:
    """Refuse datasets that are to be shared and do not go on alike on every rank.

    Args:
        sums: Of what each rank has seen.

    Raises:
        InputError: They differ.
    """
    if len(set(sums)) > 1:
        raise _unlike()


def _unlike() -> InputError:
    return InputError(
        "a dataset that is the same on every rank, or one that its creator function has cut by "
        "config['rank'] and config['size']",
        "other rows, or another order of them, on some ranks",
        "Sort names of files, and give random generators a seed. If each rank has rows of its own, "
        "set options.experimental_distribute.auto_shard_policy to "
        "tf.data.experimental.AutoShardPolicy.OFF and use dataset.with_options(options).",
    )


def checksum(arrays: Arrays, start: int = 0) -> int:
    """Of some rows.

    Args:
        arrays: Of these rows.
        start: The checksum of rows before them.
    """
    found = start
    for array in arrays:
        whole = np.ascontiguousarray(array)
        data = b"\0".join(whole.reshape(-1).tolist()) if whole.dtype == object else whole.tobytes()
        found = zlib.crc32(data, found)
    return found


def by_files(dataset: tf.data.Dataset, member: Member) -> tf.data.Dataset:
    """The part of a rank, cut where the dataset reads its files.

    Raises:
        NotFoundError: It reads none. Where there are fewer than ranks, going through it fails.
    """
    specs = tf.nest.flatten(dataset.element_spec)
    variant = tf.raw_ops.AutoShardDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        num_workers=member.size,
        index=member.rank,
        auto_shard_policy=_Policy.FILE.value,
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _has_files(dataset: tf.data.Dataset, member: Member) -> bool:
    """Whether every rank has a part of the files."""
    try:
        next(
            iter(by_files(dataset, member)), None
        )  # where there are too few, this is when it says so
        has = True
    except tf.errors.NotFoundError:
        has = False
    except tf.errors.InvalidArgumentError as exc:
        if "FILE based sharding" not in str(exc.message):
            raise
        has = False
    all_have = all(member.share(has))
    if not all_have and member.rank == 0:
        _log.warning("the dataset reads fewer files than there are ranks: it is shared by its rows")
    return all_have
