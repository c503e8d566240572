"""Who leaves? From strings and numbers in a table to a model that names its answer, on Spark.

    python examples/churn.py

The stages that make numbers of strings are fitted once and kept with the model: evaluation, new
tables, streams and later programs get the same numbers, values that were never seen included.
"""

import tempfile

import torch
from torch import nn, optim

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.preprocess import encode, vocabularies
from zoo.orca.learn.pytorch import Estimator

FEATURES = ["country_index", ["plan_onehot", "scaled"]]


class Churn(nn.Module):
    """Countries as vectors that are learned, beside the other columns."""

    def __init__(self, countries, width):
        super().__init__()
        self.country = nn.Embedding(countries, 4)
        self.top = nn.Sequential(nn.Linear(4 + width, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, country, rest):
        """Two scores for each row."""
        return self.top(torch.cat([self.country(country), rest], dim=1))


def customers(spark, rows, seed):
    frame = spark.range(rows, numPartitions=4).selectExpr(
        f"get(array('FR', 'DE', 'IT', 'ES', 'LI'), int(5 * pow(rand({seed}), 2))) country",
        f"get(array('basic', 'family', NULL), int(2.1 * rand({seed + 1}))) plan",
        f"1 + 59 * rand({seed + 2}) months",
        f"10 + 90 * rand({seed + 3}) bill",
    )
    leaves = "bill > 60 AND months < 36 AND (plan <=> 'basic' OR country = 'DE')"
    return frame.selectExpr("*", f"if({leaves}, 'yes', 'no') left")


def estimator(sizes, stages=None):
    return Estimator.from_torch(
        model=lambda config: Churn(*sizes), loss=nn.CrossEntropyLoss(), metrics=[Accuracy()],
        optimizer=lambda model, config: optim.Adam(model.parameters(), lr=0.01),
        config={"seed": 0}, preprocess=stages,
    )  # fmt: skip


def train(table, path):
    kept, held_out = table.randomSplit([0.8, 0.2], seed=0)
    # The model wants to know how many values there are, so the stages are fitted before it.
    stages = encode(index=["country"], one_hot=["plan"], scale=["months", "bill"], label="left")
    stages = stages.fit(kept)
    values = vocabularies(stages)
    sizes = len(values["country_index"]), len(values["plan_index"]) - 1 + 2
    est = estimator(sizes, stages)
    est.fit(kept, epochs=5, batch_size=64, feature_cols=FEATURES, label_cols=["left_index"])
    accuracy = est.evaluate(held_out, batch_size=512)["Accuracy"]
    print(f"Accuracy {accuracy:.3f}, classes", values["left_index"])
    est.save(path)
    return sizes


def score(spark, est, folder):
    new = [("DE", "basic", 3.0, 95.0), ("FR", "family", 50.0, 20.0), ("JP", None, 50.0, 20.0)]
    new = spark.createDataFrame(new, "country string, plan string, months double, bill double")
    new.write.parquet(folder)
    est.predict(new, feature_cols=FEATURES, output="class").show()

    stream = spark.readStream.schema(new.schema).parquet(folder)
    scored = est.predict(stream, feature_cols=FEATURES, output="class").writeStream
    query = scored.format("memory").queryName("scored").trigger(availableNow=True)
    query.start().awaitTermination()
    counts = spark.table("scored").groupBy("prediction").count().orderBy("prediction").collect()
    print("From the stream:", dict(counts))


if __name__ == "__main__":
    init_orca_context(cores=2)
    spark, folder = OrcaContext.get_spark_session(), tempfile.mkdtemp()
    sizes = train(customers(spark, 8_000, seed=0).persist(), f"{folder}/churn.pt")
    # As in another program: the stages come with the file.
    score(spark, estimator(sizes).load(f"{folder}/churn.pt"), f"{folder}/new")
    stop_orca_context()
