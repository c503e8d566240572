"""From image files to a model that is trained, checked, saved and read back, on Spark.

    python examples/digits.py                        the 1,797 scanned digits of scikit-learn
    python examples/digits.py --data photos          any folder with a folder of images per class
    python examples/digits.py --cluster standalone   two executors instead of two threads

What it prints and draws, and its longer queries, are in `digits_demo` beside it.
"""

import torch
from digits_demo import arguments, fresh_process, queries, write_digits, write_report
from torch import nn, optim

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.data.image import ImageDecoder, read_parquet, write_parquet
from zoo.orca.learn.metrics import Accuracy, ConfusionMatrix
from zoo.orca.learn.pytorch import Estimator

CLUSTERS = {"local": {"cores": 2}, "standalone": {"cores": 1, "num_nodes": 2}}
COLUMNS = {"feature_cols": ["image"], "label_cols": ["label"]}
# Class and file name decide: the same images are held out in every run and on every machine.
SPLIT = "SELECT *, pmod(hash(substring_index(image_id, '/', -2)), 5) = 0 AS held_out FROM {images}"


def network(config):
    torch.manual_seed(config["seed"])
    return nn.Sequential(
        nn.Conv2d(config["channels"], 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, config["classes"]),
    )  # fmt: skip


def estimator(args, classes):
    return Estimator.from_torch(
        model=network, loss=nn.CrossEntropyLoss(), metrics=[Accuracy(), ConfusionMatrix()],
        optimizer=lambda model, config: optim.Adam(model.parameters()),
        config={"seed": args.seed, "channels": 3 if args.data else 1, "classes": classes},
        scheduler_creator=lambda opt, _: optim.lr_scheduler.OneCycleLR(opt, 0.004, args.epochs + 1),
        scheduler_step_freq="epoch", workers_per_node=2 if args.cluster == "local" else 1,
        decoders={"image": ImageDecoder(size=(32, 32)) if args.data else ImageDecoder(mode="L")},
    )  # fmt: skip


def open_images(spark, args):
    images = spark.sql(SPLIT, images=read_parquet("spark", f"{args.out}/images.parquet"))
    counts = spark.sql(queries.COUNTS, images=images).toPandas()
    return images.where("NOT held_out"), images.where("held_out"), counts


def read_images(est, images):
    return queries.with_class_read(est.predict(images, batch_size=256, feature_cols=["image"]))


def train(spark, args, lap):
    lap("Start", f"Spark, {args.cluster}")
    folder = args.data or write_digits(f"{args.out}/png")
    write_parquet("image_folder", f"{args.out}/images.parquet", directory=folder)
    images, held_out, counts = open_images(spark, args)
    lap("Parquet", f"images of {len(counts)} classes, from {folder}", counts)

    est = estimator(args, len(counts))
    epochs = est.fit(images, args.epochs, args.batch_size, validation_data=held_out, **COLUMNS)
    lap("Train", f"{args.epochs} epochs on {len(est.report.ranks)} ranks", epochs)
    found = est.evaluate(held_out, batch_size=256, **COLUMNS)
    read_images(est, held_out).write.parquet(f"{args.out}/read.parquet", mode="overwrite")
    read = spark.read.parquet(f"{args.out}/read.parquet")
    doubtful = spark.sql(queries.DOUBTFUL, read=read).toPandas()
    est.save(f"{args.out}/model.pt")
    lap("Predict", f"accuracy {found['Accuracy']:.4f} on the images held out")
    stop_orca_context()
    lap("Reload", fresh_process("--again"))
    write_report(args.out, est, found, counts, doubtful, lap)


def read_again(spark, args, lap):
    _, held_out, counts = open_images(spark, args)
    est = estimator(args, len(counts)).load(f"{args.out}/model.pt")
    before = spark.read.parquet(f"{args.out}/read.parquet")
    print(spark.sql(queries.COMPARED, before=before, now=read_images(est, held_out)).first()[0])


if __name__ == "__main__":
    args, lap = arguments(__doc__)
    init_orca_context(args.cluster, **CLUSTERS[args.cluster])
    (read_again if args.again else train)(OrcaContext.get_spark_session(), args, lap)
