"""An estimator with stages of pyspark.ml does what the same stages do by hand."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark import cloudpickle
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn
from torch.utils.data import DataLoader

from zoo.errors import ColumnError, InputError
from zoo.orca.data import XShards
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.preprocess import encode
from zoo.orca.learn.pytorch import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FEATURES = ["country_index", ["plan_onehot", "scaled"]]
COLUMNS = {"feature_cols": FEATURES, "label_cols": ["left_index"]}
SCHEMA = "id int, country string, plan string, months double, bill double, left string"


class Net(nn.Module):
    """An embedding of countries beside three plans and two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.country, self.top = nn.Embedding(5, 3), nn.Linear(3 + 3 + 2, 2)

    def forward(self, country: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.top(torch.cat([self.country(country), rest], dim=1))
        return out


def make(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return Net()


def estimator(stages: Any = None, **given: Any) -> Any:
    return Estimator.from_torch(
        model=make,
        optimizer=lambda model, config: torch.optim.Adam(model.parameters(), lr=0.05),
        loss=nn.CrossEntropyLoss(),
        metrics=[Accuracy()],
        preprocess=stages,
        **given,
    )


def stages() -> Pipeline:
    return encode(index=["country"], one_hot=["plan"], scale=["months", "bill"], label="left")


def customers(seed: int, rows: int = 120) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    plan = draw.choice(np.array(["basic", "family", "trial", None], object), rows)
    return pd.DataFrame(
        {
            "id": range(rows),
            "country": draw.choice(["FR", "DE", "IT", ""], rows, p=[0.6, 0.2, 0.15, 0.05]),
            "plan": plan,
            "months": draw.uniform(1, 60, rows),
            "bill": draw.exponential(30, rows),
            "left": np.where(plan == "trial", "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return customers(0)


@pytest.fixture(scope="module")
def new() -> pd.DataFrame:
    rows = customers(1, 20)
    rows.loc[:2, "country"] = ["JP", None, "FR"]
    rows.loc[:2, "plan"] = ["none", "basic", None]
    return rows


def sent(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
    return spark.createDataFrame(rows.astype(object), SCHEMA).repartition(2, "id")


@pytest.fixture(scope="module")
def trained(spark: SparkSession, data: pd.DataFrame) -> Any:
    est = estimator(stages())
    est.fit(sent(spark, data), epochs=3, batch_size=16, **COLUMNS)
    return est


def scores(frame: DataFrame) -> np.ndarray:
    return np.stack([r["prediction"].toArray() for r in frame.orderBy("id").collect()])


@pytest.mark.spark
def test_fit_evaluate_and_predict_are_those_by_hand(
    spark: SparkSession, trained: Any, data: pd.DataFrame, new: pd.DataFrame
) -> None:
    frame, other = sent(spark, data), sent(spark, new)
    fitted = stages().fit(frame)
    hand = estimator()
    hand.fit(fitted.transform(frame), epochs=3, batch_size=16, **COLUMNS)
    for name, weights in hand.get_model().state_dict().items():
        assert torch.equal(weights, trained.get_model().state_dict()[name])
    wanted = hand.evaluate(fitted.transform(other), batch_size=8)
    assert trained.evaluate(other, batch_size=8) == wanted
    scored = trained.predict(other)
    assert scored.columns == [*other.columns, "prediction"]
    assert np.array_equal(scores(scored), scores(hand.predict(fitted.transform(other))))


@pytest.mark.spark
def test_classes_have_the_names_of_the_labels(
    spark: SparkSession, trained: Any, new: pd.DataFrame
) -> None:
    unlabelled = new.drop(columns="left")
    named = trained.predict(unlabelled, output="class")
    assert list(named.columns) == [*unlabelled.columns, "prediction"]
    highest = np.stack(list(trained.predict(unlabelled)["prediction"])).argmax(1)
    assert named["prediction"].tolist() == [["no", "yes"][k] for k in highest]
    assert set(named["prediction"]) == {"no", "yes"}
    other = trained.predict(unlabelled, classes=["stays", "leaves"])
    assert set(other["prediction"]) == {"stays", "leaves"}


@pytest.mark.spark
def test_streams_are_predicted(
    spark: SparkSession, trained: Any, new: pd.DataFrame, tmp_path: Path
) -> None:
    frame = sent(spark, new)
    frame.write.parquet(str(tmp_path / "new"))
    stream = spark.readStream.schema(frame.schema).parquet(str(tmp_path / "new"))
    query = (
        trained.predict(stream)
        .writeStream.format("parquet")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start(str(tmp_path / "scored"))
    )
    query.awaitTermination()
    found = spark.read.parquet(str(tmp_path / "scored"))
    assert np.array_equal(scores(found), scores(trained.predict(frame)))


@pytest.mark.spark
def test_a_file_brings_its_stages(
    spark: SparkSession, trained: Any, new: pd.DataFrame, tmp_path: Path
) -> None:
    path = trained.save(str(tmp_path / "model"))
    other = encode(index=["country"], one_hot=["plan"], scale=["months", "bill"], label="left")
    unlike = sent(spark, customers(5).assign(country="ES", plan="basic"))
    for again in (estimator(), estimator(stages()), estimator(other.fit(unlike))):
        again.load(path)
        found = again.predict(new, feature_cols=FEATURES, output="class")
        pd.testing.assert_frame_equal(found, trained.predict(new, output="class"))
    assert isinstance(again.preprocess, PipelineModel)


AGAIN = """
import json, sys
import pandas as pd, torch
sys.path.insert(0, {tests!r})
from zoo.orca import init_orca_context, stop_orca_context
from orca.learn.pytorch.test_stages_in_fit import FEATURES, customers, estimator
est = estimator().load({path!r})
assert est.get_model().top.out_features == 2
init_orca_context(cores=1)
print(est.predict(customers(1, 20), feature_cols=FEATURES, output="class")["prediction"].tolist())
stop_orca_context()
init_orca_context(cores=1, memory="1g")
est.save({path!r})
print(est.preprocess.stages[0].labelsArray[0])
stop_orca_context()
"""


@pytest.mark.slow
@pytest.mark.spark
def test_another_process_predicts_the_same(
    spark: SparkSession, trained: Any, tmp_path: Path, fresh_python: Any
) -> None:
    path = trained.save(str(tmp_path / "model"))
    done = fresh_python(AGAIN.format(tests=str(Path(__file__).parents[3]), path=path))
    wanted = trained.predict(customers(1, 20), output="class")["prediction"].tolist()
    assert done.stdout == f"{wanted}\n['FR', 'IT', 'DE', '']\n", done.stderr


@pytest.mark.spark
def test_a_fit_that_is_resumed_has_the_stages_of_its_beginning(
    spark: SparkSession, data: pd.DataFrame, tmp_path: Path
) -> None:
    estimator(stages(), model_dir=str(tmp_path)).fit(sent(spark, data), batch_size=60, **COLUMNS)
    est = estimator(stages(), model_dir=str(tmp_path))
    fewer = data.assign(country="IT")
    est.fit(sent(spark, fewer), epochs=2, batch_size=60, resume=True, **COLUMNS)
    assert est.preprocess.stages[0].labelsArray[0] == ["FR", "IT", "DE", ""]


@pytest.mark.spark
def test_stages_are_fitted_on_the_rows_to_train_on(spark: SparkSession, data: pd.DataFrame) -> None:
    frame, est = sent(spark, data), estimator(stages())
    est.fit(frame, batch_size=30, validation_split=0.5, **COLUMNS)
    kept, _ = frame.randomSplit([0.5, 0.5], 0)
    mean = est.preprocess.stages[3].mean.toArray()
    wanted = kept.select(F.mean("months"), F.mean("bill")).first()
    assert np.allclose(mean, list(wanted or ()))
    assert not np.allclose(mean, data[["months", "bill"]].mean())


@pytest.mark.spark
def test_rows_that_stages_cannot_take_are_told_of(
    spark: SparkSession, trained: Any, new: pd.DataFrame
) -> None:
    with pytest.raises(InputError, match="received Unseen label: maybe"):
        trained.evaluate(sent(spark, new.assign(left="maybe")))
    with pytest.raises(InputError, match="received StringIndexer encountered NULL"):
        trained.evaluate(sent(spark, new.assign(left=None)))
    with pytest.raises(InputError, match="received Encountered null while assembling"):
        trained.evaluate(sent(spark, new.assign(bill=None)))
    with pytest.raises(ColumnError, match="without left"):
        trained.evaluate(sent(spark, new).drop("left"))
    with pytest.raises(ColumnError, match="without bill"):
        trained.predict(new.drop(columns="bill"))
    with pytest.raises(InputError, match="zero rows"):
        estimator(stages()).fit(sent(spark, new).where("id < 0"), **COLUMNS)


@pytest.mark.spark
def test_stages_are_for_frames(spark: SparkSession, trained: Any, new: pd.DataFrame) -> None:
    shards = XShards.partition({"x": np.ones((4, 2)), "y": np.ones(4)}, num_shards=1)
    with pytest.raises(InputError, match=r"received XShards\. Pass shards\.to_spark_df"):
        trained.evaluate(shards)
    with pytest.raises(InputError, match="received XShards"):
        trained.predict(shards)
    with pytest.raises(InputError, match="received a data creator"):
        trained.fit(lambda config, batch_size: DataLoader([]))
    with pytest.raises(InputError, match="no fit has seen"):
        estimator(stages()).predict(new, feature_cols=FEATURES)
