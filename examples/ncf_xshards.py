"""pandas code on a cluster, up to training: CSV files to shards, to a model of users and items.

    python examples/ncf_xshards.py

Functions that take pandas DataFrames run on every shard; the shards train the model as they are.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data.pandas import read_csv
from zoo.orca.learn.tf2 import Estimator

USERS, ITEMS, FEATURES = 300, 120, ["user", "item"]


def write_ratings(folder):
    """Who has looked at what, as files of CSV with ids from 1."""
    draw = np.random.default_rng(0)
    for number in range(4):
        user, item = draw.integers(1, USERS + 1, 8_000), draw.integers(1, ITEMS + 1, 8_000)
        liked = (user % 7 == item % 7) | (draw.random(8_000) < 0.1)
        rows = pd.DataFrame({"user": user, "item": item, "label": liked.astype(int)})
        rows.to_csv(Path(folder) / f"{number}.csv", index=False)


def from_zero(rows):
    return rows.assign(user=rows["user"] - 1, item=rows["item"] - 1)


def held_out(rows):
    return rows[rows.index % 5 == 0]


def trained_on(rows):
    return rows[rows.index % 5 != 0]


def model_creator(config):
    keras.utils.set_random_seed(0)
    user, item = keras.Input((), dtype="int64"), keras.Input((), dtype="int64")

    def side(ids, count, width):
        return keras.layers.Embedding(count, width)(ids)

    product = keras.layers.multiply([side(user, USERS, 8), side(item, ITEMS, 8)])
    hidden = keras.layers.concatenate([side(user, USERS, 16), side(item, ITEMS, 16)])
    for width in (32, 16):
        hidden = keras.layers.Dense(width, activation="relu")(hidden)
    both = keras.layers.concatenate([product, hidden])
    model = keras.Model([user, item], keras.layers.Dense(1, activation="sigmoid")(both))
    model.compile(
        optimizer=keras.optimizers.Adam(0.005), loss="binary_crossentropy", metrics=["accuracy"]
    )
    return model


if __name__ == "__main__":
    init_orca_context(cores=2)
    folder = tempfile.mkdtemp()
    write_ratings(folder)
    shards = read_csv(folder).transform_shard(from_zero)
    train, test = shards.transform_shard(trained_on), shards.transform_shard(held_out)

    columns = {"feature_cols": FEATURES, "label_cols": ["label"]}
    est = Estimator.from_keras(model_creator=model_creator)
    for epoch in est.fit(train, epochs=6, batch_size=128, **columns):
        print(f"Epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}")
    print(f"Accuracy {est.evaluate(test, batch_size=512, **columns)['accuracy']:.3f}")
    stop_orca_context()
