"""A TensorFlow 1 graph, trained on Spark: handwritten digits with a LeNet of `tf.compat.v1`.

    python examples/tf_graph.py

The form is that of TensorFlow 1.15: placeholders, a loss, an optimizer and a dataset. Only the
layers are written out, as `tf.layers` is gone.
"""

import tensorflow as tf
from sklearn.datasets import load_digits

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.learn.tf.estimator import Estimator

v1 = tf.compat.v1


def layer(name, x, shape):
    with v1.variable_scope(name):
        weights = v1.get_variable("weights", shape, initializer=v1.glorot_uniform_initializer())
        bias = v1.get_variable("bias", shape[-1:], initializer=v1.zeros_initializer())
        product = tf.nn.conv2d(x, weights, 1, "SAME") if len(shape) == 4 else x @ weights
        return product + bias


def lenet(images):
    net = tf.nn.relu(layer("conv1", images, [5, 5, 1, 16]))
    net = tf.nn.max_pool2d(net, 2, 2, "SAME")
    net = tf.nn.relu(layer("conv2", net, [3, 3, 16, 32]))
    net = tf.nn.max_pool2d(net, 2, 2, "SAME")
    net = tf.reshape(net, [-1, 2 * 2 * 32])
    net = tf.nn.relu(layer("fc1", net, [128, 64]))
    return layer("logits", net, [64, 10])


def accuracy(logits, labels):
    predictions = tf.argmax(logits, axis=1, output_type=labels.dtype)
    return tf.reduce_mean(tf.cast(tf.equal(predictions, labels), tf.float32))


def main():
    init_orca_context(cores=2)
    pixels, digits = load_digits(return_X_y=True)
    pixels = (pixels / 16.0).reshape(-1, 8, 8, 1).astype("float32")
    rows = tf.data.Dataset.from_tensor_slices((pixels, digits.astype("int32")))
    test, train = rows.take(300), rows.skip(300)

    with tf.Graph().as_default():
        v1.set_random_seed(1)
        images = v1.placeholder(tf.float32, (None, 8, 8, 1))
        labels = v1.placeholder(tf.int32, (None,))
        logits = lenet(images)
        loss = v1.losses.sparse_softmax_cross_entropy(logits=logits, labels=labels)
        est = Estimator.from_graph(
            inputs=images, outputs=logits, labels=labels, loss=loss,
            optimizer=v1.train.AdamOptimizer(0.003), metrics={"acc": accuracy(logits, labels)},
            workers_per_node=2,
        )  # fmt: skip
    est.fit(data=train, batch_size=64, epochs=10, validation_data=test)
    print(f"Accuracy {est.evaluate(test)['acc']:.3f}")
    est.save_tf_checkpoint("lenet/model")
    stop_orca_context()


if __name__ == "__main__":
    main()
