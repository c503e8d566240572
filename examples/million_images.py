"""Many small image files to Parquet, and from there to all readers and into a training.

    python examples/million_images.py                     2,000 files, 20 of them damaged
    python examples/million_images.py --images 1000000    the real thing

The pictures that it makes, its clock and its arguments are in `million_images_demo` beside it.
"""

import torch
from million_images_demo import CLASSES, Pace, arguments, say, write_folder, write_scenes
from torch import nn, optim

from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data.image import (
    ImagePipeline,
    read_parquet,
    read_quarantine,
    read_records,
    show_images,
    transform_images,
    write_parquet,
)
from zoo.orca.data.image.transforms import (
    ColorJitter,
    Normalize,
    RandomFlip,
    RandomResizedCrop,
    ToCHW,
)
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.pytorch import Estimator

CHANCE = (RandomResizedCrop(48, scale=(0.6, 1.0)), RandomFlip(), ColorJitter(0.3, 0.3, 0.3))
COLUMNS = {"feature_cols": ["image"], "label_cols": ["label"]}


def network(config):
    torch.manual_seed(0)
    widths, layers = (3, 16, 32, 64), []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 6 * 6, 64), nn.ReLU(),
                         nn.Linear(64, len(CLASSES)))  # fmt: skip


def write(args, pace, path):
    broken = write_folder(f"{args.out}/files", args.images)
    pace.measure("write, files", args.images, lambda: write_parquet(
        "image_folder", path, directory=f"{args.out}/files", block_size=max(50, args.images // 16),
        on_error="quarantine", verify="decode"))  # fmt: skip
    bad, records = read_quarantine(path), read_records(path, columns=["image_id", "label_str"])
    say("Write", f"{len(records):,} images; {len(bad)} of {broken} damaged files in quarantine")
    say("Reasons", "; ".join(sorted(set(bad["reason"].str.split("(").str[0]))))
    say("Record", f"number 7 is a {records[7]['label_str']}, without reading the others")


def draw(args, frame):
    show_images(frame, title="label_str", rows=3).save(f"{args.out}/images.png")
    changed = transform_images(frame, ImagePipeline(*CHANCE)).frame
    show_images(changed, title="label_str", rows=3).save(f"{args.out}/augmented.png")
    scenes = write_scenes(f"{args.out}/scenes", 6)
    write_parquet("coco", f"{args.out}/scenes.parquet", image_dir=scenes,
                  annotation_file=f"{scenes}/boxes.json")  # fmt: skip
    boxed = read_parquet("spark", f"{args.out}/scenes.parquet")
    moved = transform_images(boxed, ImagePipeline(*CHANCE), boxes="label").frame
    for name, scene in (("boxes", boxed), ("moved", moved)):
        grid = show_images(scene, boxes="label", columns=6, size=128)
        grid.save(f"{args.out}/{name}.png")
    say("Draw", f"{args.out}/images.png, augmented.png, boxes.png, moved.png")


def train(args, pace, frame):
    learn, held_out = frame.randomSplit([0.8, 0.2], seed=1)
    est = Estimator.from_torch(
        model=network, loss=nn.CrossEntropyLoss(), metrics=[Accuracy()], workers_per_node=2,
        optimizer=lambda model, config: optim.Adam(model.parameters(), lr=0.002),
        decoders={"image": ImagePipeline(*CHANCE, ToCHW(), Normalize(0.5, 0.25))},
    )  # fmt: skip
    epochs = est.fit(learn, args.epochs, batch_size=64, **COLUMNS)
    pace.note("train, 2 ranks", est.report.rows * args.epochs, est.report.train_s)
    say("Train", f"loss {epochs[0]['train_loss']:.3f} to {epochs[-1]['train_loss']:.3f}")
    found = est.evaluate(held_out, batch_size=256, **COLUMNS)
    say("Evaluate", f"accuracy {found['Accuracy']:.3f} on {found['num_samples']:,} images held out")
    est.predict(held_out, 256, ["image"]).write.parquet(f"{args.out}/read", mode="overwrite")


if __name__ == "__main__":
    args, pace = arguments(__doc__), Pace()
    init_orca_context(cores=2)
    write(args, pace, f"{args.out}/images.parquet")
    frame = read_parquet("spark", f"{args.out}/images.parquet")
    draw(args, frame)
    pace.read(f"{args.out}/images.parquet")
    train(args, pace, frame)
    say("Pace", f"of this machine, now\n\n{pace}\n")
    stop_orca_context()
