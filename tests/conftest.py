"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One small local Spark for the whole run."""
    init_orca_context(
        cores=2,
        memory="3g",
        conf={"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4"},
    )
    yield OrcaContext.get_spark_session()
    stop_orca_context()
