"""Training on an image column: random steps anew in every epoch, decoded while the model trains."""

import io
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from torch import nn

from zoo.errors import ColumnError
from zoo.orca.data.image.pipeline import ImagePipeline
from zoo.orca.data.image.transforms import Normalize, RandomFlip, RandomResizedCrop, ToCHW
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.pytorch import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

SIDE, ROWS = 24, 48
PIPELINE = ImagePipeline(
    RandomResizedCrop(16, scale=(0.5, 1.0)), RandomFlip(), ToCHW(), Normalize(0.5, 0.25)
)
COLUMNS: dict[str, Any] = {"feature_cols": ["image"], "label_cols": ["label"]}
SCHEMA = T.StructType(
    [T.StructField("image", T.BinaryType()), T.StructField("label", T.LongType())]
)


def jpeg(label: int, seed: int) -> bytes:
    """A picture that is bright in the middle (1) or at its rim (0)."""
    pixels = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    middle = np.zeros((SIDE, SIDE), dtype=bool)
    middle[6:-6, 6:-6] = True
    pixels[middle if label else ~middle] += 180
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(spark: SparkSession) -> DataFrame:
    rows = [(jpeg(i % 2, i), i % 2) for i in range(ROWS)]
    return spark.createDataFrame(rows, SCHEMA).repartition(3).persist()


def network(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 2)).double()


def estimator(pipeline: Any = PIPELINE, **given: Any) -> Any:
    return Estimator.from_torch(
        model=given.pop("model", network),
        optimizer=lambda model, config: torch.optim.Adam(model.parameters(), lr=0.01),
        loss=nn.CrossEntropyLoss(),
        metrics=[Accuracy()],
        decoders={"image": pipeline},
        **given,
    )


class Doubles(nn.Module):
    """The network on float32 images, in double precision so that sums can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network({})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(image.double())


def weights(est: Any) -> np.ndarray:
    return torch.cat([p.detach().reshape(-1) for p in est.get_model().parameters()]).numpy()


def test_training_learns_and_scores_without_chance(images: DataFrame) -> None:
    est = estimator(model=lambda config: Doubles())
    stats = est.fit(images, epochs=12, batch_size=16, validation_data=images, **COLUMNS)
    assert stats[-1]["train_loss"] < stats[0]["train_loss"] / 2
    first, second = (est.evaluate(images, **COLUMNS) for _ in range(2))
    assert first == second
    assert first["Accuracy"] == 1.0
    assert first["val_loss"] == pytest.approx(stats[-1]["val_loss"], rel=1e-6)
    predicted = est.predict(images, feature_cols=["image"]).collect()
    assert [int(np.argmax(row["prediction"])) for row in predicted] == [
        r["label"] for r in predicted
    ]


def dimmed(image: Image.Image) -> Image.Image:
    factor = random.uniform(0.5, 1)
    return Image.eval(image, lambda level: int(level * factor))


def test_draws_depend_on_rows_and_not_on_ranks(images: DataFrame) -> None:
    """Those of our steps and those of functions."""
    pipeline = ImagePipeline(RandomResizedCrop(16), dimmed, ToCHW(), Normalize(0.5, 0.25))
    found = []
    for ranks in (1, 3):
        est = estimator(pipeline, model=lambda config: Doubles(), workers_per_node=ranks)
        est.fit(images, epochs=2, batch_size=16, **COLUMNS)
        found.append(weights(est))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


def test_epochs_see_other_crops(images: DataFrame) -> None:
    """With a rate of zero only the crops can change the loss."""
    est = Estimator.from_torch(
        model=lambda config: Doubles(),
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=0.0),
        loss=nn.CrossEntropyLoss(),
        decoders={"image": PIPELINE},
    )
    losses = [e["train_loss"] for e in est.fit(images, epochs=3, batch_size=16, **COLUMNS)]
    assert len(set(losses)) == 3


def test_a_torn_image_is_named(spark: SparkSession) -> None:
    rows = [(jpeg(0, i), 0) for i in range(8)]
    rows[5] = (rows[5][0][:200], 0)
    frame = spark.createDataFrame(rows, SCHEMA).coalesce(1)
    with pytest.raises(ColumnError, match=r"'image'.*row 5 of partition 0"):
        estimator(model=lambda config: Doubles()).fit(frame, batch_size=4, **COLUMNS)


def test_empty_cells_are_counted_before_training(spark: SparkSession) -> None:
    rows = [(jpeg(0, 0), 0), (b"", 0), (b"", 1)]
    frame = spark.createDataFrame(rows, SCHEMA)
    with pytest.raises(ColumnError, match="2 rows.*zero bytes"):
        estimator(model=lambda config: Doubles()).fit(frame, batch_size=1, **COLUMNS)
