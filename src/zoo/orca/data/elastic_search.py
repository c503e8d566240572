"""Elasticsearch as a source and a sink, through the connector that Elastic publishes for Spark.

The jar `elasticsearch-hadoop`, or `elasticsearch-spark` of it, must be on Spark's classpath::

    frame = elastic_search.read_df({"es.nodes": "search.example.org"}, "reviews")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import RDD
from pyspark.sql import Column, DataFrame
from pyspark.sql.functions import col
from pyspark.sql.types import StructType

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import ClusterError
from zoo.orca.data.tensors.plan_columns import quoted

__all__ = ["elastic_search", "flatten_df", "read_df", "read_rdd", "write_df"]

_FORMAT = "org.elasticsearch.spark.sql"
_SOURCE = f"{_FORMAT}.DefaultSource"
_INPUT = "org.elasticsearch.hadoop.mr.EsInputFormat"


def read_df(
    esConfig: Mapping[str, Any],  # noqa: N803 - old programs name it
    esResource: str,  # noqa: N803
    schema: StructType | str | None = None,
) -> DataFrame:
    """Read an index as a DataFrame.

    Args:
        esConfig: Options of the connector, such as `es.nodes` and `es.port`.
        esResource: The index.
        schema: The columns; those that the connector finds when None.

    Raises:
        ClusterError: No Spark runs, or the jar is not there.
    """
    session = active_session()
    _require_class(_SOURCE)
    reader = session.read.format(_FORMAT).options(**dict(esConfig))
    if schema is not None:
        reader = reader.schema(schema)
    return reader.load(esResource)


def flatten_df(df: DataFrame) -> DataFrame:
    """Make a column `a.b` of each field `b` of a struct `a`, however deep it is."""
    return df.select(*_fields(df.schema, ()))


def write_df(esConfig: Mapping[str, Any], esResource: str, df: DataFrame) -> None:  # noqa: N803
    """Write a DataFrame as an index.

    Args:
        esConfig: Options of the connector; `es.resource` in it wins over `esResource`.
        esResource: The index.
        df: The rows.

    Raises:
        ClusterError: No Spark runs, or the jar is not there.
    """
    active_session()
    _require_class(_SOURCE)
    options = {"es.resource": esResource, **esConfig}
    df.write.format(_FORMAT).options(**options).save()


def read_rdd(
    esConfig: Mapping[str, Any],  # noqa: N803
    esResource: str | None = None,  # noqa: N803
    filter: str | None = None,  # noqa: A002 - old programs name it
    esQuery: str | None = None,  # noqa: N803
) -> RDD[Any]:
    """Read an index as an RDD of pairs: identifier and document.

    Args:
        esConfig: Options of the connector; `es.resource` in it wins over `esResource`.
        esResource: The index.
        filter: Names of the fields to read, separated by commas.
        esQuery: Which documents to read.

    Raises:
        ClusterError: No Spark runs, or the jar is not there.
    """
    context = active_session().sparkContext
    _require_class(_INPUT)
    return context.newAPIHadoopRDD(
        _INPUT,
        "org.apache.hadoop.io.NullWritable",
        "org.elasticsearch.hadoop.mr.LinkedMapWritable",
        conf=_input_options(esConfig, esResource, filter, esQuery),
    )


def _input_options(
    config: Mapping[str, Any], resource: str | None, fields: str | None, query: str | None
) -> dict[str, str]:
    """What the connector reads; the caller's own options stay as they are."""
    options = dict(config)
    if resource is not None:
        options.setdefault("es.resource", resource)
    if fields is not None:
        options["es.read.source.filter"] = fields
    if query is not None:
        options["es.query"] = query
    return {name: str(value) for name, value in options.items()}


def _fields(schema: StructType, path: tuple[str, ...]) -> Iterator[Column]:
    for field in schema:
        place = (*path, field.name)
        if isinstance(field.dataType, StructType):
            yield from _fields(field.dataType, place)
        else:
            yield col(".".join(map(quoted, place))).alias(".".join(place))


def _require_class(name: str) -> None:
    """Ask the JVM first: Spark's own complaint is a page of Java."""
    jvm: Any = active_session().sparkContext._jvm
    try:
        loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
        jvm.java.lang.Class.forName(name, False, loader)
    except Py4JJavaError:
        raise ClusterError(
            "the jar elasticsearch-hadoop on the classpath of Spark",
            f"a Spark without the class {name}",
            "Start Spark with it, for example init_orca_context(conf={'spark.jars.packages': "
            "'org.elasticsearch:elasticsearch-spark-30_2.13:9.0.0'}), or with a path in jars=.",
        ) from None


class elastic_search:  # noqa: N801 - old programs name it so
    """The functions of this module, by the name that existing programs import."""

    read_df = staticmethod(read_df)
    flatten_df = staticmethod(flatten_df)
    write_df = staticmethod(write_df)
    read_rdd = staticmethod(read_rdd)
