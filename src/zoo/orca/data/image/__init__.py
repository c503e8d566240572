"""Image datasets: folders of files become parquet, and parquet becomes frames and tensors.

A dataset is a folder of `chunk=<i>` parquet folders beside a `_orca_metadata` file::

    write_parquet("image_folder", "/data/flowers.parquet", directory="/data/flowers")
    frame = read_parquet("spark", "/data/flowers.parquet")
    loader = read_parquet("dataloader", "/data/flowers.parquet", batch_size=32)

The steps of an `ImagePipeline` are in `zoo.orca.data.image.transforms`. Names are loaded on first
use, so that `ImageDecoder` reaches a worker with no more than Pillow and NumPy behind it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
    from zoo.orca.data.image.formats.coco import write_coco
    from zoo.orca.data.image.formats.image_folder import write_from_directory
    from zoo.orca.data.image.formats.imagenet import write_imagenet
    from zoo.orca.data.image.formats.mnist import write_mnist
    from zoo.orca.data.image.formats.tfrecord import read_examples, read_tfrecord, write_tfrecord
    from zoo.orca.data.image.formats.voc import VOC_CLASSES, write_voc
    from zoo.orca.data.image.grid import show_images
    from zoo.orca.data.image.image_decoder import ImageDecoder
    from zoo.orca.data.image.image_files import read_images
    from zoo.orca.data.image.image_frame import transform_images
    from zoo.orca.data.image.layout.quarantine import read_quarantine
    from zoo.orca.data.image.ndarray_codec import decode_ndarray
    from zoo.orca.data.image.parquet_dataset import ParquetDataset, read_parquet, write_parquet
    from zoo.orca.data.image.pipeline import ImagePipeline, RecordTransform
    from zoo.orca.data.image.reading.records import read_records

__all__ = [
    "VOC_CLASSES",
    "DType",
    "FeatureType",
    "ImageDecoder",
    "ImagePipeline",
    "ParquetDataset",
    "RecordTransform",
    "SchemaField",
    "decode_ndarray",
    "read_examples",
    "read_images",
    "read_parquet",
    "read_quarantine",
    "read_records",
    "read_tfrecord",
    "show_images",
    "transform_images",
    "write_coco",
    "write_from_directory",
    "write_imagenet",
    "write_mnist",
    "write_parquet",
    "write_tfrecord",
    "write_voc",
]

_HOMES = {
    "VOC_CLASSES": "formats.voc",
    "DType": "dataset_schema",
    "FeatureType": "dataset_schema",
    "ImageDecoder": "image_decoder",
    "ImagePipeline": "pipeline",
    "ParquetDataset": "parquet_dataset",
    "RecordTransform": "pipeline",
    "SchemaField": "dataset_schema",
    "decode_ndarray": "ndarray_codec",
    "read_examples": "formats.tfrecord",
    "read_images": "image_files",
    "read_parquet": "parquet_dataset",
    "read_quarantine": "layout.quarantine",
    "read_records": "reading.records",
    "read_tfrecord": "formats.tfrecord",
    "show_images": "grid",
    "transform_images": "image_frame",
    "write_coco": "formats.coco",
    "write_from_directory": "formats.image_folder",
    "write_imagenet": "formats.imagenet",
    "write_mnist": "formats.mnist",
    "write_parquet": "parquet_dataset",
    "write_tfrecord": "formats.tfrecord",
    "write_voc": "formats.voc",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
