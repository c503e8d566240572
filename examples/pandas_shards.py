"""Plain pandas functions on a cluster: bicycle counts in CSV files become a model's predictions.

    python examples/pandas_shards.py                 a year of four stations, every half hour
    python examples/pandas_shards.py --days 60       a small one

The counts, the chart and the arguments are in `pandas_shards_demo` beside it.
"""

import numpy as np
import pandas as pd
import torch
from pandas_shards_demo import arguments, draw_week, say, write_counts
from torch import nn

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.data import SharedValue, XShards
from zoo.orca.data.pandas import read_csv
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator

COLUMNS = {
    "feature_cols": ["last_week", "warmth", "rain", "free", "sin", "cos", "sin2", "cos2"],
    "label_cols": ["load"],
}

ERRORS = """
SELECT station, round(mean(abs(predicted - rides)), 1) AS model,
       round(mean(abs(last_week - rides)), 1) AS as_last_week, round(mean(rides), 1) AS mean_rides
FROM {rows} GROUP BY station ORDER BY station
"""


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
    return df.assign(load=df["rides"] / level, last_week=df["last_week"] / level)


def cut(df, day):
    return df[df["time"] < day], df[df["time"] >= day]


def join(pair, usual):
    df, made = pair
    level = df["station"].map(usual.value).astype(float)
    return df.assign(predicted=made["prediction"] * level, last_week=df["last_week"] * level)


def network(config):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
                         nn.Linear(32, 1), nn.Flatten(0))  # fmt: skip


def main(args):
    shards = read_csv(write_counts(f"{args.out}/counts", args.days))
    say("Read", f"{len(shards):,} rows in {shards.num_partitions()} shards")
    shards = (
        shards.transform_shard(clean).partition_by("station", 4).transform_shard(with_last_week)
    )
    levels = shards.transform_shard(lambda df: df.groupby("station")["rides"].mean()).collect()
    usual = SharedValue(pd.concat(levels).to_dict())
    day = pd.Timestamp("2024-07-01") + pd.Timedelta(days=args.days - max(4, args.days // 12))
    train, test = shards.transform_shard(scale, usual).transform_shard(cut, day).split()
    say("Shards", f"{len(train):,} rows to train on, {len(test):,} from {day:%-d %B} on to test")

    est = Estimator.from_torch(
        model=network, loss=nn.MSELoss(), metrics=[MAE()], workers_per_node=2,
        optimizer=lambda model, config: torch.optim.Adam(model.parameters(), lr=0.003),
    )  # fmt: skip
    epochs = est.fit(train, args.epochs, batch_size=256, **COLUMNS)
    say("Train", f"loss {epochs[0]['train_loss']:.4f} to {epochs[-1]['train_loss']:.4f}")
    say(
        "Evaluate", f"mean error {est.evaluate(test, 1024, **COLUMNS)['MAE']:.3f} of the usual load"
    )
    predicted = est.predict(test, 1024, feature_cols=COLUMNS["feature_cols"])
    test.zip(predicted).transform_shard(join, usual).save(f"{args.out}/predicted", overwrite=True)

    rows = XShards.load(f"{args.out}/predicted").to_spark_df()
    say("Stations", "mean error, in rides", OrcaContext.get_spark_session().sql(ERRORS, rows=rows))
    week = rows.where("station = 'Bridge'").toPandas().sort_values("time")[: 7 * 48]
    draw_week(week, "Bicycles at the bridge, every half hour", f"{args.out}/week.png")
    say("Saved", f"{args.out}/predicted, {args.out}/week.png")


if __name__ == "__main__":
    args = arguments(__doc__)
    init_orca_context(cores=2)
    main(args)
    stop_orca_context()
