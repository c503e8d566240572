"""Keras inline with a Spark program: embeddings of users and items, trained on a DataFrame.

python examples/keras_frame.py [ratings.parquet]
"""

import sys

from tensorflow import keras

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.learn.tf.estimator import Estimator

USERS, ITEMS = 200, 100


def ratings(spark, path):
    """The table at the path, or one that is made up: users like items that are near to them."""
    if path:
        return spark.read.parquet(path)
    pairs = spark.range(30_000, numPartitions=4).selectExpr(
        f"int({USERS} * rand(0)) user", f"int({ITEMS} * rand(1)) item"
    )
    return pairs.selectExpr("user", "item", "int(abs(user / 2 - item) / 25) label")


def network():
    user, item = keras.Input((), dtype="int64"), keras.Input((), dtype="int64")
    sides = [
        keras.layers.Embedding(USERS, 16)(user),
        keras.layers.Embedding(ITEMS, 16)(item),
    ]
    hidden = keras.layers.Dense(64, activation="relu")(keras.layers.concatenate(sides))
    outputs = keras.layers.Dense(5, activation="softmax")(hidden)
    return keras.Model(inputs=[user, item], outputs=outputs)


if __name__ == "__main__":
    init_orca_context(cores=2)
    train_df = ratings(OrcaContext.get_spark_session(), (*sys.argv, None)[1]).persist()

    keras.utils.set_random_seed(0)
    model = network()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    est = Estimator.from_keras(keras_model=model)
    history = est.fit(
        train_df, epochs=4, batch_size=128, feature_cols=["user", "item"], label_cols=["label"]
    )
    for epoch in history:
        print(f"Epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}")
    result = est.evaluate(
        train_df, batch_size=512, feature_cols=["user", "item"], label_cols=["label"]
    )
    print(f"Accuracy {result['accuracy']:.3f}")
    est.predict(train_df, feature_cols=["user", "item"]).show(3)
    stop_orca_context()
