"""A Keras program as it is, on a cluster: LeNet-5 learns digits from `tf.data`.

    python examples/keras_quickstart.py

Functions make model and datasets; each rank calls them, and has its part of the batches.
"""

import tempfile

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.learn.tf2 import Estimator


def digits(train):
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 8, 8, 1) / 16, np.ones((4, 4, 1)))
    chosen = (np.arange(len(labels)) % 5 != 0) == train
    return tf.data.Dataset.from_tensor_slices((images[chosen].astype("float32"), labels[chosen]))


def model_creator(config):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            keras.layers.Conv2D(6, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(16, 5, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(120, activation="relu"),
            keras.layers.Dense(84, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(config["lr"]),
        loss="sparse_categorical_crossentropy", metrics=["accuracy"],
    )  # fmt: skip
    return model


def train_data_creator(config, batch_size):
    return digits(train=True).shuffle(2_000, seed=0).batch(batch_size)


def test_data_creator(config, batch_size):
    return digits(train=False).batch(batch_size)


if __name__ == "__main__":
    init_orca_context(cluster_mode="local", cores=2)
    est = Estimator.from_keras(
        model_creator=model_creator, config={"lr": 0.002}, workers_per_node=2
    )
    history = est.fit(
        train_data_creator, epochs=5, batch_size=64, validation_data=test_data_creator
    )
    for epoch in history:
        print(f"Epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}")
    print(f"Accuracy {est.evaluate(test_data_creator, batch_size=64)['accuracy']:.3f}")
    est.get_model().save(f"{tempfile.mkdtemp()}/digits.keras")
    stop_orca_context()
