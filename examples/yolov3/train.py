"""YOLOv3 from a VOC folder to a detector that is trained and measured, on Spark.

    python examples/yolov3/train.py                        pictures of shapes, which it draws
    python examples/yolov3/train.py --data VOCdevkit --splits trainval test --size 416 --width 1

The network, its loss and its measure are in `yolo` beside it, and so are the arguments.
"""

import keras
from yolo import program
from yolo.anchors import MASKS, box_sizes
from yolo.boxes import square_pixels
from yolo.data import Examples, augmentation
from yolo.detect import LEAST_SCORE, as_detector, found_objects
from yolo.loss import YoloLoss
from yolo.model import YoloV3
from yolo.voc_map import mean_average_precision

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data import XShards, image
from zoo.orca.learn.callbacks import TerminateOnNaN
from zoo.orca.learn.tf2 import Estimator


def train_data_creator(config, batch_size):
    share = {"rank": config["rank"], "num_shards": config["size"], "balance": "rows"}
    train_dataset = image.read_parquet("tf_dataset", config["path"], config=share,
                                       shuffle=True, shuffle_buffer=512)  # fmt: skip
    steps = augmentation(config["side"], seed=config["rank"])
    train_dataset = train_dataset.apply(Examples(steps, config["classes"], config["most"]))
    return train_dataset.batch(batch_size)


def model_creator(config):
    keras.utils.set_random_seed(config["seed"])
    model = YoloV3(config["side"], classes=config["classes"], width=config["width"])
    rate = keras.optimizers.schedules.CosineDecay(
        config["rate"] / 10, config["steps"], 0.02,
        warmup_target=config["rate"], warmup_steps=config["steps"] // 10)  # fmt: skip
    loss = [YoloLoss(config["anchors"], mask, classes=config["classes"]) for mask in MASKS]
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, run_eagerly=False)
    return model


def detector_creator(config):
    model = YoloV3(config["side"], classes=config["classes"], width=config["width"])
    return as_detector(model, config["anchors"])


def main(args):
    train, held_out = program.write_datasets(args)
    images = image.read_parquet("spark", train)
    shards = XShards.from_spark_df(images.select("image", "label"))
    sizes = shards.transform_shard(box_sizes, args.size).collect()
    config = program.settings(args, train, sizes)

    trainer = Estimator.from_keras(model_creator=model_creator, config=config, workers_per_node=2)
    epochs = trainer.fit(train_data_creator, epochs=args.epochs, batch_size=args.batch_size,
                         callbacks=[TerminateOnNaN()])  # fmt: skip
    program.say("Train", f"loss {epochs[0]['train_loss']:.1f} to {epochs[-1]['train_loss']:.1f}")

    weights = trainer.save(f"{args.out}/yolov3.weights.h5")
    detector = Estimator.from_keras(model_creator=detector_creator, config=config,
                                    decoders={"image": square_pixels(args.size)})  # fmt: skip
    seen = detector.load(weights).predict(
        image.read_parquet("spark", held_out), 32, feature_cols=["image"]
    )
    found = XShards.from_spark_df(seen).transform_shard(found_objects, args.size)
    table = program.joined(found.collect())
    measured = mean_average_precision(table["found"], table["truth"], threshold=LEAST_SCORE)
    program.say("Measure", measured)
    program.write_report(args, trainer, measured, table)


if __name__ == "__main__":
    args = program.arguments(__doc__)
    init_orca_context(cores=2)
    main(args)
    stop_orca_context()
