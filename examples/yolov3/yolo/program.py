"""The program around the training: its arguments, its data, its report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from yolo.anchors import cluster_sizes, mean_iou
from yolo.boxes import Array
from yolo.draw import sheet
from yolo.shapes import SHAPES, write_shapes
from yolo.voc_map import MeanPrecision
from zoo.orca.data import image

__all__ = ["arguments", "joined", "say", "settings", "write_datasets", "write_report"]

_DRAWN = 12
_start = time.monotonic()


def arguments(doc: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of VOC2007, ...; pictures are drawn when left out")
    parser.add_argument("--year", type=int, default=2007)
    parser.add_argument("--splits", nargs=2, default=("train", "val"), metavar=("TRAIN", "TEST"))
    parser.add_argument("--classes", nargs="+", help="names; the 20 of VOC when left out")
    parser.add_argument("--images", type=int, default=320, help="how many to draw to train on")
    parser.add_argument("--photos", help="folder of photographs to draw on")
    parser.add_argument("--size", type=int, default=128, help="side of the network's square")
    parser.add_argument("--width", type=float, default=0.125, help="1 is the paper's network")
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--batch-size", type=int, default=16, help="over all ranks")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out/yolov3", help="folder for everything written")
    args = parser.parse_args()
    args.classes = args.classes or list(image.VOC_CLASSES if args.data else SHAPES)
    return args


def say(stage: str, text: object) -> None:
    """Print what was done, and how long after the start."""
    print(f"{stage:10}{text!s:62}{time.monotonic() - _start:7.1f} s", flush=True)


def write_datasets(args: argparse.Namespace) -> list[str]:
    """Write both splits as datasets, and return their paths. A bad box is an error."""
    root = args.data or write_shapes(
        f"{args.out}/shapes", args.images, args.images // 4, seed=args.seed, photos=args.photos
    )
    paths = []
    for split in args.splits:
        paths.append(f"{args.out}/{split}.parquet")
        image.write_parquet(
            "voc",
            paths[-1],
            voc_root_path=root,
            splits_names=[(args.year, split)],
            classes=args.classes,
            mark_difficult=True,
            strict_boxes=True,
            block_size=500,
        )
    say("Write", f"{paths[0]} and {paths[1]}, from {root}")
    return paths


def settings(
    args: argparse.Namespace, path: str, shards: Sequence[Sequence[Array]]
) -> dict[str, Any]:
    """What the creators get, from the arguments and the sizes of the boxes on each image."""
    boxes = [sizes for shard in shards for sizes in shard]
    every = np.concatenate(boxes)
    anchors = cluster_sizes(every, seed=args.seed)
    fit = mean_iou(every, anchors)
    say("Anchors", f"overlap {fit:.2f} with {len(every):,} boxes on {len(boxes):,} images")
    return {
        "path": path,
        "side": args.size,
        "width": args.width,
        "classes": len(args.classes),
        "anchors": anchors,
        "most": max(map(len, boxes)),
        "rate": args.rate,
        "steps": args.epochs * -(-len(boxes) // args.batch_size),
        "seed": args.seed,
    }


def joined(shards: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All shards as one table."""
    return pd.concat(shards, ignore_index=True)


def write_report(
    args: argparse.Namespace, trainer: Any, measured: MeanPrecision, table: pd.DataFrame
) -> None:
    """Write `boxes.png`, and the page of the fit with it."""
    rows = table.head(_DRAWN)
    figure = sheet(zip(rows["image"], rows["found"], rows["truth"], strict=True), args.classes)
    figure.savefig(f"{args.out}/boxes.png", dpi=110)
    by_class = pd.DataFrame(
        {
            "class": [args.classes[n] for n in measured.by_class],
            "average precision": list(measured.by_class.values()),
        }
    )
    page = trainer.report_page(
        f"{args.out}/report.html",
        title=f"YOLOv3 on {len(table):,} images held out: {measured}",
        sections={"Found, and there (white)": figure, "Each class": by_class},
    )
    say("Report", f"{page} and {args.out}/boxes.png")
