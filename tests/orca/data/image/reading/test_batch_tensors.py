import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.orca.data.image import (
    DType,
    FeatureType,
    ImageDecoder,
    ParquetDataset,
    SchemaField,
    read_parquet,
)
from zoo.orca.data.image.reading import batch_tensors
from zoo.orca.data.image.reading.batch_tensors import InSlot, Recycler, Ring

ROWS, BATCH = 64, 4
DECODER = ImageDecoder(size=(6, 5))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., bytes]) -> str:
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for number in range(ROWS):
        file = folder / f"{number}.png"
        file.write_bytes(make_picture(7, 8, seed=number))
        rows.append({"image": str(file), "x": number})
    schema = {
        "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
        "x": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
    }
    ParquetDataset.write(str(folder / "out"), rows, schema, block_size=10)
    return str(folder / "out")


@pytest.fixture(scope="module")
def expected(dataset: str) -> np.ndarray:
    folder = Path(dataset).parent
    return np.stack([DECODER((folder / f"{n}.png").read_bytes()) for n in range(ROWS)])


def loader_of(dataset: str, decoder: ImageDecoder = DECODER, **config: Any) -> Any:
    decoders = {"image": decoder}
    return read_parquet("dataloader", dataset, None, config, BATCH, decoders=decoders)


def assert_right(batches: list[dict[str, Any]], expected: np.ndarray) -> None:
    for batch in batches:
        np.testing.assert_allclose(batch["image"], expected[batch["x"].numpy()], rtol=1e-6)


def test_memory_is_used_again_when_nobody_holds_it() -> None:
    memory = Recycler()
    first = memory.tensor((3, 4), torch.float32)
    place = first.data_ptr()
    del first
    assert memory.tensor((12,), torch.float32).data_ptr() == place


def test_memory_stays_with_who_holds_a_view() -> None:
    memory = Recycler()
    whole = memory.tensor((3, 4), torch.float32)
    row, numbers, place = whole[1], whole.numpy(), whole.data_ptr()
    del whole
    assert memory.tensor((3, 4), torch.float32).data_ptr() != place
    del row
    assert memory.tensor((3, 4), torch.float32).data_ptr() != place
    del numbers
    held = [memory.tensor((3, 4), torch.float32) for _ in range(3)]
    assert place in [one.data_ptr() for one in held]


def test_memory_fits_when_others_come_back_while_it_is_chosen() -> None:
    memory = Recycler()
    held = [memory.tensor((10,), torch.uint8) for _ in range(8)]

    class Spare(np.ndarray):
        """Memory at whose size one looks while finalizers run."""

        @property
        def nbytes(self) -> int:
            held.clear()
            return 100

    memory._spare.append(np.empty(100, np.uint8).view(Spare))
    assert memory.tensor((100,), torch.uint8).shape == (100,)


def test_little_is_kept() -> None:
    memory = Recycler()
    held = [memory.tensor((100,), torch.uint8) for _ in range(50)]
    held.clear()
    assert len(memory._spare) == batch_tensors._SPARE
    assert not pickle.loads(pickle.dumps(memory))._spare


def test_slots_do_not_touch() -> None:
    ring = Ring(workers=2, ahead=1, size=12)
    places = [InSlot(w, s, at, (2, 3)) for w in (0, 1) for s in range(ring.slots) for at in (0, 6)]
    for number, place in enumerate(places):
        ring.tensor(place).fill_(number)
    assert [int(ring.tensor(p).min()) for p in places] == list(range(len(places)))
    assert [int(ring.tensor(p).max()) for p in places] == list(range(len(places)))


def test_no_ring_where_shared_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ring.if_there_is_room(1, 2, 1 << 50) is None
    monkeypatch.setattr(batch_tensors, "_SHARED_FOLDER", "/nowhere")
    assert Ring.if_there_is_room(1, 2, 1) is None


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_that_are_kept_stay_as_they_are(
    dataset: str, expected: np.ndarray, num_workers: int
) -> None:
    batches = list(loader_of(dataset, num_workers=num_workers))
    assert len(batches) == ROWS // BATCH
    assert_right(batches, expected)


def test_two_iterations_at_once(dataset: str, expected: np.ndarray) -> None:
    loader = loader_of(dataset, num_workers=1)
    pairs = list(zip(loader, loader, strict=True))
    assert_right([batch for pair in pairs for batch in pair], expected)


def test_epochs_of_workers_that_stay(dataset: str, expected: np.ndarray) -> None:
    loader = loader_of(dataset, num_workers=2, persistent_workers=True, prefetch_factor=1)
    next(iter(loader))  # an epoch that is left early
    assert_right([batch for _ in range(2) for batch in loader], expected)


def test_images_that_stay_bytes(dataset: str, expected: np.ndarray) -> None:
    plain = ImageDecoder(size=(6, 5), scale=None)
    for workers in (0, 1):
        batches = list(loader_of(dataset, plain, num_workers=workers))
        assert batches[0]["image"].dtype == torch.uint8
        found = np.concatenate([b["image"].numpy() for b in batches])
        np.testing.assert_allclose(found / 255, expected, atol=1e-6)


def test_without_a_ring_batches_are_the_same(
    dataset: str, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_tensors, "_SHARED_FOLDER", "/nowhere")
    assert_right(list(loader_of(dataset, num_workers=1)), expected)
