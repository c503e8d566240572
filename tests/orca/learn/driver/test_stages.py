"""Stages of pyspark.ml: which may be kept, how they are kept, and what is applied of them."""

import base64
import json
from typing import Any

import pytest
from pyspark.ml import Pipeline, PipelineModel, Transformer, feature
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession

from zoo.errors import ColumnError, InputError
from zoo.orca.learn.driver.stages import Stages

pytestmark = pytest.mark.spark

ROWS = [
    (0, "a b", ["a", "b"], 1.0, 2.0, 0, Vectors.dense(1.0, 0.0, 3.0)),
    (1, "b c", ["b", "c"], 2.0, None, 1, Vectors.dense(0.0, 4.0, 1.0)),
    (2, "a", ["a"], 3.0, 5.0, 1, Vectors.sparse(3, {1: 2.0})),
    (3, "c d", ["c", "d"], 4.5, 1.0, 0, Vectors.dense(2.0, 1.0, 0.0)),
]


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    names = ["id", "text", "words", "number", "gaps", "y", "vector"]
    return spark.createDataFrame(ROWS, names).coalesce(1)


KINDS: dict[str, dict[str, Any]] = {
    "Binarizer": {"inputCol": "number", "threshold": 2.0},
    "Bucketizer": {"inputCol": "number", "splits": [0.0, 2.0, 9.0]},
    "ChiSqSelector": {"featuresCol": "vector", "labelCol": "y", "numTopFeatures": 1},
    "CountVectorizer": {"inputCol": "words"},
    "ElementwiseProduct": {"inputCol": "vector", "scalingVec": Vectors.dense(1.0, 2.0, 3.0)},
    "FeatureHasher": {"inputCols": ["number", "text"], "numFeatures": 8},
    "HashingTF": {"inputCol": "words", "numFeatures": 8},
    "IDF": {"inputCol": "vector"},
    "Imputer": {"inputCols": ["gaps"], "outputCols": ["out"]},
    "MaxAbsScaler": {"inputCol": "vector"},
    "MinMaxScaler": {"inputCol": "vector"},
    "OneHotEncoder": {"inputCols": ["y"], "outputCols": ["out"]},
    "PCA": {"inputCol": "vector", "k": 2},
    "QuantileDiscretizer": {"inputCol": "number", "numBuckets": 2},
    "RobustScaler": {"inputCol": "vector"},
    "StandardScaler": {"inputCol": "vector"},
    "StringIndexer": {"inputCol": "text"},
    "TargetEncoder": {"inputCols": ["y"], "outputCols": ["out"], "labelCol": "y"},
    "Tokenizer": {"inputCol": "text"},
    "VarianceThresholdSelector": {"featuresCol": "vector"},
    "VectorAssembler": {"inputCols": ["number", "vector"]},
    "VectorIndexer": {"inputCol": "vector"},
    "Word2Vec": {"inputCol": "words", "vectorSize": 2, "minCount": 1, "seed": 1},
}


def stage(name: str) -> Any:
    settings = KINDS[name]
    out = {} if "outputCols" in settings else {"outputCol": "out"}
    return getattr(feature, name)(**settings, **out)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_does_what_was_written(frame: DataFrame, name: str) -> None:
    stages = Stages(Pipeline(stages=[stage(name)]))
    assert stages.fitted is None
    stages.fit(frame, None)
    again = Stages.read(json.loads(json.dumps(stages.extras)))
    assert again is not None
    wanted = stages.apply(frame, ["out"]).collect()
    assert "out" in wanted[0].asDict()
    assert again.apply(frame, ["out"]).collect() == wanted
    assert wanted == Pipeline(stages=[stage(name)]).fit(frame).transform(frame).collect()


class Own(Transformer):
    """Of the user's."""

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return dataset


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: feature.SQLTransformer(statement="SELECT 1 FROM __THIS__"), "SQLTransformer"),
        (lambda: feature.RFormula(formula="y ~ number"), "RFormula"),
        (Own, "pyspark.ml.feature.*received Own"),
        (lambda: Pipeline(stages=[Own()]), "received Own"),
        (lambda: feature.StringIndexer(handleInvalid="skip"), "keep all rows"),
    ],
)
def test_other_stages_are_refused(spark: SparkSession, make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Stages(Pipeline(stages=[make()]))
    with pytest.raises(InputError, match=says):
        Stages(PipelineModel([make()]))


def test_what_is_no_pipeline_is_refused(spark: SparkSession) -> None:
    given: Any = feature.Tokenizer(inputCol="text", outputCol="words")
    with pytest.raises(InputError, match="Pipeline or PipelineModel; received Tokenizer"):
        Stages(given)


@pytest.fixture
def two(frame: DataFrame) -> Stages:
    text = feature.StringIndexer(inputCol="text", outputCol="a", handleInvalid="keep")
    vector = feature.OneHotEncoder(inputCol="a", outputCol="b")
    label = feature.StringIndexer(inputCol="y", outputCol="z")
    stages = Stages(Pipeline(stages=[Pipeline(stages=[text, vector]), label]))
    stages.fit(frame, "z")
    return stages


def test_only_what_is_wanted_is_made(frame: DataFrame, two: Stages) -> None:
    assert set(two.apply(frame.select("text"), ["b"]).columns) == {"text", "a", "b"}
    assert two.apply(frame.select("number"), ["number"]).columns == ["number"]
    assert two.classes == ["0", "1"]


def test_columns_that_are_missing_or_there_already_are_named(frame: DataFrame, two: Stages) -> None:
    with pytest.raises(ColumnError, match=r"preprocess reads; received a frame without text"):
        two.apply(frame.drop("text"), ["b"])
    with pytest.raises(InputError, match="without the column 'a', which preprocess makes"):
        two.apply(frame.withColumnRenamed("number", "a"), ["b"])
    with pytest.raises(InputError, match="no fit has seen"):
        Stages(Pipeline(stages=[stage("Tokenizer")])).apply(frame, ["out"])
    with pytest.raises(ColumnError, match="without text"):
        Stages(Pipeline(stages=[stage("Tokenizer")])).fit(frame.drop("text"), None)


def test_stages_that_cannot_be_fitted_say_why(frame: DataFrame) -> None:
    flags = frame.selectExpr("number > 1 AS text")
    with pytest.raises(InputError, match=r"(?s)stages of preprocess take.*BooleanType. Look"):
        Stages(Pipeline(stages=[stage("StringIndexer")])).fit(flags, None)
    empty = frame.selectExpr("if(y = 1, '', 'x') AS text")
    places = feature.OneHotEncoder(inputCol="out", outputCol="places")
    with pytest.raises(InputError, match="make them NULL"):
        Stages(Pipeline(stages=[stage("StringIndexer"), places])).fit(empty, None)
    gaps = feature.VectorAssembler(inputCols=["gaps"], outputCol="vectors")
    scaler = feature.StandardScaler(inputCol="vectors", outputCol="out")
    with pytest.raises(InputError, match="received Encountered null while assembling"):
        Stages(Pipeline(stages=[gaps, scaler])).fit(frame, None)


def test_they_are_fitted_anew_until_something_was_trained(frame: DataFrame) -> None:
    stages = Stages(Pipeline(stages=[stage("StringIndexer")]))
    for settled, rows, wanted in ((False, 2, 2), (False, 4, 4), (True, 1, 4)):
        stages.settled = settled
        stages.fit(frame.limit(rows), "out")
        assert len(stages.classes or ()) == wanted


def changed(two: Stages, **facts: Any) -> dict[str, Any]:
    kept = json.loads(json.dumps(two.extras["preprocess"]))
    kept["stages"][0] |= facts
    return {"preprocess": kept}


def test_files_that_were_changed_are_not_opened(two: Stages, tmp_path: Any) -> None:
    content = base64.b64encode(b"x").decode()
    for facts in (
        {"class": "os.system"},
        {"class": "SQLTransformer"},
        {"class": "StringIndexer"},
        {"files": {"../metadata": content}},
        {"files": {str(tmp_path / "metadata"): content}},
        {"files": {"metadata": "no base64!"}},
        {"files": ["metadata"]},
    ):
        with pytest.raises(InputError, match="as save writes them"):
            Stages.read(changed(two, **facts))
    with pytest.raises(InputError, match="as save writes them"):
        Stages.read({"preprocess": {"stages": None}})


def test_a_class_that_the_content_names_is_not_looked_for(two: Stages) -> None:
    """That of the list is compared with it."""
    first = two.extras["preprocess"]["stages"][0]
    name = next(name for name in first["files"] if "metadata" in name)
    facts = json.loads(base64.b64decode(first["files"][name]))
    facts["class"] = "org.apache.spark.ml.feature.SQLTransformer"
    text = base64.b64encode(json.dumps(facts).encode()).decode()
    stages = Stages.read(changed(two, files={**first["files"], name: text}))
    assert stages is not None
    with pytest.raises(InputError, match="SQLTransformer"):
        _ = stages.fitted
