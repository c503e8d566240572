import pytest

from zoo.errors import InputError
from zoo.orca.data.image import dataset_schema as home
from zoo.orca.data.image import utils
from zoo.orca.data.image.dataset_schema import (
    DType,
    FeatureType,
    SchemaField,
    check_schema,
    decode,
    encode,
)

FIELD = SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1, 5))


def test_schema_is_one_line_with_tagged_enums() -> None:
    assert encode({"box": FIELD}) == (
        '{"box": {"feature_type": {"__enum__": "FeatureType.NDARRAY"}, '
        '"dtype": {"__enum__": "DType.FLOAT32"}, "shape": [-1, 5]}}'
    )


def test_schema_reads_back() -> None:
    assert decode(encode({"box": FIELD})) == {"box": FIELD}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        '{"a": 1}',
        '{"a": {"feature_type": {"__enum__": "FeatureType.VIDEO"}}}',
        '{"a": {"feature_type": {"__enum__": "os.system"}}}',
        encode({"a": FIELD}).replace("FeatureType.NDARRAY", "DType.BYTES"),
    ],
)
def test_other_text_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="schema as one line of JSON"):
        decode(line)


@pytest.mark.parametrize("name", ["", "chunk", "Chunk", 3])
def test_column_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError, match="column names"):
        check_schema({name: FIELD})


def test_field_that_is_no_schema_field() -> None:
    with pytest.raises(InputError, match="column 'a' as SchemaField"):
        check_schema({"a": ("IMAGE", "BYTES", ())})  # type: ignore[dict-item]


def test_empty_schema() -> None:
    with pytest.raises(InputError, match="at least one column"):
        check_schema({})


def test_old_import_path_has_the_same_names() -> None:
    assert utils.SchemaField is home.SchemaField
    assert (utils.FeatureType, utils.DType) == (home.FeatureType, home.DType)
