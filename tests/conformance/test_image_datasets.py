"""Images from files to training: every reader and any number of ranks see the same records."""

import io
import random
import resource
import sys
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from torch import nn

from zoo.errors import InputError
from zoo.orca.data.image import (
    ImageDecoder,
    ImagePipeline,
    RecordTransform,
    read_parquet,
    read_quarantine,
    read_records,
    write_parquet,
)
from zoo.orca.data.image.transforms import RandomFlip, RandomResizedCrop, ToCHW
from zoo.orca.learn.pytorch import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

IMAGES, BLOCK = 2_000, 130
VOC = Path(__file__).parents[3] / "shared" / "data" / "voc" / "VOCdevkit"
Facts = Counter[tuple[str, int]]


def jpeg(seed: int, kind: str = "JPEG") -> bytes:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((28 + seed % 9, 24 + seed % 5)).save(buffer, kind)
    return buffer.getvalue()


def facts(ids: Iterable[str], images: Iterable[bytes]) -> Facts:
    """How often each image came, by its path and a checksum of its bytes."""
    return Counter(zip(ids, map(zlib.crc32, images), strict=True))


def of_loader(path: str, **config: Any) -> Facts:
    columns = {"columns": ["image_id", "image"], "decoders": {"image": None}}
    loader = read_parquet("dataloader", path, None, config, 64, **columns)
    found: Facts = Counter()
    for batch in loader:
        found += facts(batch["image_id"], batch["image"])
    return found


def of_tensorflow(path: str, **config: Any) -> Facts:
    data = read_parquet("tf_dataset", path, config=config, batch_size=64)
    found: Facts = Counter()
    for batch in data:
        ids = [one.decode() for one in batch["image_id"].numpy()]
        found += facts(ids, batch["image"].numpy())
    return found


def of_spark(path: str) -> Facts:
    rows = read_parquet("spark", path).select("image_id", "image").collect()
    return facts([row[0] for row in rows], [bytes(row[1]) for row in rows])


@pytest.fixture(scope="module")
def drawn(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Facts]:
    """2,000 images in two classes, as a dataset, and what is in it."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in ("round ß", "square"):
        (folder / "files" / name).mkdir(parents=True)
    held: Facts = Counter()
    for number in range(IMAGES):
        file = folder / "files" / ("round ß", "square")[number % 2] / f"{number}.jpg"
        data = jpeg(number)
        file.write_bytes(data)
        held[(str(file), zlib.crc32(data))] += 1
    path = str(folder / "out")
    write_parquet("image_folder", path, directory=str(folder / "files"), block_size=BLOCK)
    return path, held


@pytest.fixture(scope="module")
def voc(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Facts]:
    if not VOC.is_dir():
        pytest.skip("the real VOC images are not on this machine")
    path = str(tmp_path_factory.mktemp("voc") / "out")
    splits = [(2007, "trainval")]
    write_parquet("voc", path, voc_root_path=str(VOC), splits_names=splits, block_size=2)
    names = (VOC / "VOC2007" / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    files = [VOC / "VOC2007" / "JPEGImages" / f"{name}.jpg" for name in names]
    return path, facts(map(str, files), [file.read_bytes() for file in files])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # few cores
@pytest.mark.parametrize("source", ["drawn", "voc"])
@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_all_readers_agree_for_any_number_of_ranks(
    request: pytest.FixtureRequest, source: str, ranks: int
) -> None:
    path, held = request.getfixturevalue(source)
    of_ranks = [{"num_shards": ranks, "rank": rank} for rank in range(ranks)]
    torch_shares = [of_loader(path, num_workers=rank % 3, **s) for rank, s in enumerate(of_ranks)]
    tf_shares = [of_tensorflow(path, **share) for share in of_ranks]
    even = [of_loader(path, balance="rows", **share) for share in of_ranks]
    assert torch_shares == tf_shares
    assert sum(torch_shares, Counter()) == sum(even, Counter()) == of_spark(path) == held
    assert max(map(Counter.total, even)) - min(map(Counter.total, even)) <= 1


def test_records_by_number_are_those_of_the_loader(drawn: tuple[str, Facts]) -> None:
    path, held = drawn
    records = read_records(path, decoders={"image": None})
    chosen = [records[number] for number in random.Random(1).sample(range(IMAGES), 200)]
    found = facts([r["image_id"] for r in chosen], [r["image"] for r in chosen])
    assert len(found) == 200
    assert found <= held


def test_boxes_follow_their_images(voc: tuple[str, Facts]) -> None:
    path, held = voc
    pipeline = ImagePipeline(RandomResizedCrop(64, scale=(0.5, 1.0)), RandomFlip(), ToCHW())
    records = list(
        read_parquet(
            "dataloader", path, RecordTransform(pipeline, boxes="label"), {"num_workers": 0}
        )
    )
    assert len(records) == held.total()
    for record in records:
        assert record["image"].shape == (1, 3, 64, 64)
        boxes = record["label"][0]
        assert ((boxes[:, :4] >= 0) & (boxes[:, :4] <= 1)).all()
        assert (boxes[:, 2:4] > boxes[:, :2]).all()


@pytest.mark.parametrize("source", ["drawn", "voc"])
def test_training_uses_every_image_once(request: pytest.FixtureRequest, source: str) -> None:
    path, held = request.getfixturevalue(source)
    frame = read_parquet("spark", path).selectExpr("image", "length(image_id) % 2 AS target")
    pipeline = ImagePipeline(RandomResizedCrop(16, scale=(0.5, 1.0)), RandomFlip(), ToCHW())
    est = Estimator.from_torch(
        model=lambda config: nn.Sequential(nn.Flatten(), nn.Linear(768, 2)),
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=0.01),
        loss=nn.CrossEntropyLoss(),
        decoders={"image": pipeline},
        workers_per_node=2,
    )
    named: dict[str, Any] = {"feature_cols": ["image"], "label_cols": ["target"]}
    stats = est.fit(frame, epochs=2, batch_size=min(100, held.total()), **named)
    assert [epoch["num_samples"] for epoch in stats] == [held.total()] * 2
    assert est.evaluate(frame, **named)["num_samples"] == held.total()


# Damaged files.


def mutated(number: int, draw: random.Random) -> bytes:
    """A file that may be good, cut short, flipped, empty, or no image at all."""
    data = bytearray(jpeg(number, "PNG" if number % 2 else "JPEG"))
    how = number % 5
    if how == 1:
        return bytes(data[: draw.randrange(len(data))])
    if how == 2:
        for _ in range(8):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    if how == 3:
        return draw.randbytes(draw.randrange(200))
    return bytes(data)


NAMES = ["plain", "with space", "ünï", "new\nline", "[b]*?", "per%20cent", "quote'\""]


def test_a_thousand_mutated_files_are_each_counted(
    spark: SparkSession, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    draw, root = random.Random(5), tmp_path / "in"
    (root / "all").mkdir(parents=True)
    good: Facts = Counter()
    decode = ImageDecoder()
    for number in range(1000):
        suffix = ".png" if number % 3 else ".jpg"  # right for some only
        file = root / "all" / f"{NAMES[number % len(NAMES)]} {number}{suffix}"
        data = mutated(number, draw)
        file.write_bytes(data)
        try:
            decode(data)
            good[(str(file), zlib.crc32(data))] += 1
        except InputError:
            pass
    out = str(tmp_path / "out")
    options: dict[str, Any] = {"on_error": "quarantine", "verify": "decode"}
    write_parquet("image_folder", out, directory=str(root), block_size=90, **options)
    bad = read_quarantine(out)
    assert 300 < len(bad) < 700
    assert of_loader(out) == of_spark(out) == good
    assert {path for path, _ in good}.isdisjoint(bad["path"])
    assert len(bad) + good.total() == 1000
    assert bad["reason"].str.len().min() > 0


def flip(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    how = draw.randrange(4)
    if how == 0:
        data = data[: draw.randrange(len(data))]
    else:  # footer, first page, anywhere
        low = {1: len(data) - 400, 2: 0, 3: 0}[how]
        high = {1: len(data), 2: 200, 3: len(data)}[how]
        data[draw.randrange(low, high)] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def test_damaged_parquet_is_an_error_and_never_other_rows(
    drawn: tuple[str, Facts], tmp_path: Path
) -> None:
    path, held = drawn
    draw, verdicts = random.Random(9), Counter[str]()
    chunks = sorted(Path(path).glob("chunk=*/part-*.parquet"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(500):
        file = draw.choice(chunks)
        whole = file.read_bytes()
        flip(file, draw)
        try:
            found = of_loader(path)
            assert found == held
            verdicts["same rows"] += 1
        except InputError as exc:
            verdicts["error" if file.parent.name in str(exc) else "unclear"] += 1
        finally:
            file.write_bytes(whole)
    assert verdicts["error"] > 300
    assert not verdicts["unclear"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
