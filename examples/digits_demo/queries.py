"""What the program asks Spark: the model's scores become classes, and classes become tables."""

from __future__ import annotations

from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

__all__ = ["COMPARED", "COUNTS", "DOUBTFUL", "with_class_read"]

COUNTS = """
SELECT label_str AS class, count_if(NOT held_out) AS train, count_if(held_out) AS held_out
FROM {images} GROUP BY label, label_str ORDER BY label
"""
# Wrong ones first, then those whose best two scores lie closest together.
DOUBTFUL = """
SELECT image, label, read, scores FROM {read}
ORDER BY read = label, array_max(scores) - element_at(array_sort(scores), -2) LIMIT 48
"""
COMPARED = """
SELECT IF(count_if(now.read <=> before.read) = count(*),
          concat('a fresh process reads all ', count(*), ' held-out images the same'),
          raise_error('the saved model reads other classes than before'))
FROM {now} AS now FULL JOIN {before} AS before USING (image_id)
"""


def with_class_read(predicted: DataFrame) -> DataFrame:
    """Predictions as `scores`, an array, and `read`, the number of the class that is highest."""
    scored = predicted.withColumn("scores", vector_to_array("prediction")).drop("prediction")
    return scored.withColumn("read", F.expr("array_position(scores, array_max(scores)) - 1"))
