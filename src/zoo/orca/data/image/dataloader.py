"""A dataset as a torch `DataLoader`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ContractError, InputError, load_extra
from zoo.orca.data.image.chunk_records import ChunkRecords, Decoder
from zoo.orca.data.image.dataset_folder import DatasetFolder, open_dataset
from zoo.orca.data.image.decode import ImageDecoder
from zoo.orca.data.image.ndarray_codec import decode_ndarray
from zoo.orca.data.image.schema import FeatureType, Schema

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

__all__ = ["read_as_dataloader"]


def read_as_dataloader(
    path: str,
    transforms: Callable[[dict[str, Any]], Any] | None = None,
    config: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    *,
    decoders: Mapping[str, Decoder | None] | None = None,
) -> DataLoader[Any]:
    """Read a dataset, or one reader's share of its chunks, as a torch `DataLoader`.

    The order is that of the dataset, each record comes once, and only the last batch may be
    short, whatever the number of workers.

    Args:
        path: The folder of the dataset.
        transforms: Applied to each record, a dict from column to value. Images are float32
            arrays (channel, height, width) from 0 to 1.
        config: `num_shards` and `rank` (this reader takes the chunks whose number modulo
            `num_shards` is `rank`), and `num_workers`, the processes that decode. Other keys are
            left alone.
        batch_size: Records in a batch, which torch's default rule collates.
        decoders: Other decoders for IMAGE and NDARRAY columns; None as a decoder keeps the bytes.

    Raises:
        InputError: There is no whole dataset at the path.
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        MissingExtraError: torch is not installed.
    """
    torch_data = load_extra("torch.utils.data", "torch")
    settings = dict(config or {})
    dataset = open_dataset(path)
    records = ChunkRecords(
        _share(dataset, settings.get("num_shards"), settings.get("rank")),
        dataset.schema,
        decoders=_decoders(dataset.schema, decoders or {}),
        transform=transforms,
    )
    loader: DataLoader[Any] = torch_data.DataLoader(
        records,
        batch_size=batch_size,
        num_workers=settings.get("num_workers", 0),
        collate_fn=_collate,
    )
    return loader


def _share(dataset: DatasetFolder, num_shards: int | None, rank: int | None) -> tuple[Path, ...]:
    if num_shards is None and rank is None:
        return dataset.chunks
    # Half a setting would let every reader take everything.
    if num_shards is None or rank is None:
        given = "rank" if num_shards is None else "num_shards"
        raise ContractError("num_shards and rank", f"{given} alone", "Set both in the config.")
    if not 1 <= num_shards <= len(dataset.chunks):
        raise ContractError(
            f"num_shards from 1 to the number of chunks, {len(dataset.chunks)}",
            str(num_shards),
            "Use fewer shards, or write the dataset with a smaller block_size.",
        )
    if not 0 <= rank < num_shards:
        raise ContractError(f"rank from 0 to {num_shards - 1}", str(rank), "Count ranks from 0.")
    return dataset.chunks[rank::num_shards]


def _decoders(schema: Schema, overrides: Mapping[str, Decoder | None]) -> dict[str, Decoder]:
    defaults: dict[FeatureType, Decoder] = {
        FeatureType.IMAGE: ImageDecoder(),
        FeatureType.NDARRAY: decode_ndarray,
    }
    unknown = set(overrides) - set(schema)
    if unknown:
        raise InputError(f"decoders for {list(schema)}", f"{sorted(unknown)}", "Name a column.")
    chosen = {name: defaults.get(field.feature_type) for name, field in schema.items()}
    return {name: decoder for name, decoder in {**chosen, **overrides}.items() if decoder}


def _collate(records: list[Any]) -> Any:
    collate = load_extra("torch.utils.data", "torch").default_collate
    try:
        return collate(records)
    except (RuntimeError, TypeError) as exc:
        raise InputError(
            "records that stack into a batch, with values of one type and shape",
            f"others ({exc})",
            "Give images one size with decoders={'image': ImageDecoder(size=...)} or a transform.",
        ) from exc
