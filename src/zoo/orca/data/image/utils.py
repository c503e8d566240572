"""The old import path of the schema names; their home is `zoo.orca.data.image.dataset_schema`."""

from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField

__all__ = ["DType", "FeatureType", "SchemaField"]
