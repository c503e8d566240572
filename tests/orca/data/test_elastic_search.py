import pytest
from pyspark.sql import Row, SparkSession

import zoo.orca.data.elastic_search as module
from zoo.orca.data import elastic_search

pytestmark = pytest.mark.spark


def test_fields_of_structs_become_dotted_columns(spark: SparkSession) -> None:
    place = Row(city="Ulm", **{"geo.point": Row(lat=48.4, lon=10.0)})
    frame = spark.createDataFrame([Row(name="a", at=place, tags=["x"])])
    flat = elastic_search.flatten_df(frame)
    assert flat.columns == ["name", "at.city", "at.geo.point.lat", "at.geo.point.lon", "tags"]
    assert tuple(flat.first() or ()) == ("a", "Ulm", 48.4, 10.0, ["x"])


def test_a_null_struct_gives_nulls(spark: SparkSession) -> None:
    frame = spark.sql("SELECT CAST(NULL AS STRUCT<b: STRUCT<c: INT>>) AS a")
    flat = elastic_search.flatten_df(frame)
    assert (flat.columns, tuple(flat.first() or ())) == (["a.b.c"], (None,))


def test_without_the_jar_the_remedy_is_named(spark: SparkSession) -> None:
    calls = [
        lambda: elastic_search.read_df({}, "index"),
        lambda: elastic_search.write_df({}, "index", spark.range(1)),
        lambda: elastic_search.read_rdd({}, "index"),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"elasticsearch-hadoop.*spark\.jars\.packages"):
            call()


def test_a_class_that_is_there_is_found(spark: SparkSession) -> None:
    module._require_class("org.apache.spark.sql.Dataset")


def test_options_leave_the_dict_of_the_caller_alone() -> None:
    given = {"es.port": 9200}
    options = module._input_options(given, "index", "a,b", "?q=x")
    assert given == {"es.port": 9200}
    assert options == {
        "es.port": "9200",
        "es.resource": "index",
        "es.read.source.filter": "a,b",
        "es.query": "?q=x",
    }


def test_a_resource_among_the_options_wins() -> None:
    assert module._input_options({"es.resource": "a"}, "b", None, None) == {"es.resource": "a"}


def test_the_module_serves_as_the_class_does() -> None:
    assert module.flatten_df is module.elastic_search.flatten_df
