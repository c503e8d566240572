"""Plain pandas functions on a cluster: bicycle counts in CSV files become a model's predictions.

    python examples/pandas_shards.py                 a year of four stations, every half hour
    python examples/pandas_shards.py --days 60       a small one

The counts, the chart and the arguments are in `pandas_shards_demo` beside it.
"""

import numpy as np
import pandas as pd
from pandas_shards_demo import ERRORS, adam, arguments, draw_week, network, say, write_counts
from torch import nn

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data import SharedValue, XShards
from zoo.orca.data.pandas import read_csv
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator

FEATURES = ["last_week", "warmth", "rain", "free", "sin", "cos", "sin2", "cos2"]
COLUMNS = {"feature_cols": FEATURES, "label_cols": ["load"]}


def clean(df):  # as it was in the notebook: one table in, one table out
    df = df.drop_duplicates(["station", "time"])
    df = df[df["rides"] >= 0]
    angle = 2 * np.pi * (df["time"].dt.hour + df["time"].dt.minute / 60) / 24
    return df.assign(
        warmth=df["temperature"].ffill().bfill() / 20, free=df["time"].dt.dayofweek >= 5,
        sin=np.sin(angle), cos=np.cos(angle), sin2=np.sin(2 * angle), cos2=np.cos(2 * angle),
    )  # fmt: skip


def with_last_week(df):  # needs all rows of a station in one table
    past = df[["station", "time", "rides"]].rename(columns={"rides": "last_week"})
    return df.merge(past.assign(time=past["time"] + pd.Timedelta(days=7)), on=["station", "time"])


def scale(df, usual):
    level = df["station"].map(usual.value).astype(float)
    return df.assign(load=df["rides"] / level, last_week=df["last_week"] / level, level=level)


def cut(df, day):
    return df[df["time"] < day], df[df["time"] >= day]


def join(pair):
    df, made = pair
    return df.assign(predicted=made["prediction"] * df["level"])


def main(args):
    shards = read_csv(write_counts(f"{args.out}/counts", args.days))
    say("Read", f"{len(shards):,} rows in {shards.num_partitions()} shards")
    shards = shards.transform_shard(clean).partition_by("station", 4)
    shards = shards.transform_shard(with_last_week)
    levels = shards.transform_shard(lambda df: df.groupby("station")["rides"].mean()).collect()
    usual = SharedValue(pd.concat(levels).to_dict())
    shards = shards.transform_shard(scale, usual)
    train, test = shards.transform_shard(cut, args.test_from).split()
    say("Shards", f"{len(train):,} rows to train on, {len(test):,} to test")

    est = Estimator.from_torch(model=network, optimizer=adam, loss=nn.MSELoss(), metrics=[MAE()],
                               workers_per_node=2)  # fmt: skip
    epochs = est.fit(train, args.epochs, batch_size=256, **COLUMNS)
    say("Train", f"loss {epochs[0]['train_loss']:.4f} to {epochs[-1]['train_loss']:.4f}")
    error = est.evaluate(test, batch_size=1024, **COLUMNS)["MAE"]
    say("Evaluate", f"mean error {error:.3f} of a station's usual load")
    predicted = est.predict(test, batch_size=1024, feature_cols=FEATURES)
    test.zip(predicted).transform_shard(join).save(f"{args.out}/predicted", overwrite=True)

    rows = XShards.load(f"{args.out}/predicted").to_spark_df()
    say("Stations", "mean error, in rides", rows.sparkSession.sql(ERRORS, rows=rows))
    bridge = rows.where("station = 'Bridge'").toPandas()
    say("Saved", f"{args.out}/predicted, {draw_week(bridge, f'{args.out}/week.png')}")


if __name__ == "__main__":
    args = arguments(__doc__)
    init_orca_context(cores=2)
    main(args)
    stop_orca_context()
