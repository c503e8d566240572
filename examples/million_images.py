"""Many small image files to Parquet, and from there to all readers and into a training.

    python examples/million_images.py                     2,000 files, 20 of them damaged
    python examples/million_images.py --images 1000000    the real thing

The pictures that it makes, its clock and its arguments are in `million_images_demo` beside it.
"""

import million_images_demo as demo
import torch
from torch import nn, optim

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data import image
from zoo.orca.data.image import transforms as steps
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.pytorch import Estimator

CHANCE = (steps.RandomResizedCrop(48, scale=(0.6, 1.0)), steps.RandomFlip(),
          steps.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3))  # fmt: skip
COLUMNS = {"feature_cols": ["image"], "label_cols": ["label"]}


def network(config):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2304, 64), nn.ReLU(), nn.Linear(64, len(demo.CLASSES)),
    )  # fmt: skip


def write(args, pace, path):
    folder, damaged = f"{args.out}/files", demo.write_folder(f"{args.out}/files", args.images)
    pace.measure("write", args.images, lambda: image.write_parquet(
        "image_folder", path, directory=folder, block_size=max(50, args.images // 16),
        on_error="quarantine", verify="decode"))  # fmt: skip
    bad, records = image.read_quarantine(path), image.read_records(path)
    demo.say("Write", f"{len(records):,} images; {len(bad)} of {damaged} bad files in quarantine")
    demo.say("Reasons", "; ".join(sorted(set(bad["reason"].str.split(" ").str[:2].str.join(" ")))))
    demo.say("Record", f"number 7 is a {records[7]['label_str']}, read without the others")


def train(args, pace, images):
    learn, held_out = images.randomSplit([0.8, 0.2], seed=1)
    est = Estimator.from_torch(
        model=network, loss=nn.CrossEntropyLoss(), metrics=[Accuracy()], workers_per_node=2,
        optimizer=lambda model, config: optim.Adam(model.parameters(), lr=0.002),
        decoders={"image": image.ImagePipeline(*CHANCE, steps.ToCHW(), steps.Normalize(0.5, 0.25))},
    )  # fmt: skip
    epochs = est.fit(learn, args.epochs, batch_size=32, **COLUMNS)
    pace.note("train, 2 ranks", est.report.rows * args.epochs, est.report.train_s)
    demo.say("Train", f"loss {epochs[0]['train_loss']:.3f} to {epochs[-1]['train_loss']:.3f}")
    found = est.evaluate(held_out, batch_size=256, **COLUMNS)
    demo.say("Evaluate", f"accuracy {found['Accuracy']:.3f} on {found['num_samples']:,} held out")
    est.predict(held_out, 256, ["image"]).write.parquet(f"{args.out}/read", mode="overwrite")


if __name__ == "__main__":
    args, pace = demo.arguments(__doc__), demo.Pace()
    path = f"{args.out}/images.parquet"
    init_orca_context(cores=2)
    write(args, pace, path)
    images = image.read_parquet("spark", path)
    demo.say("Draw", f"{demo.draw_images(images, args.out, *CHANCE)}, {demo.draw_scenes(args.out)}")
    pace.read(path)
    train(args, pace, images)
    demo.say("Pace", f"of this machine, just now\n\n{pace}\n")
    stop_orca_context()
