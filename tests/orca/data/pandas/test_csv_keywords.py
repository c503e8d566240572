import pytest

from zoo.errors import ContractError, InputError
from zoo.orca.data.pandas.csv_keywords import csv_keywords


@pytest.mark.parametrize(
    ("keywords", "header"),
    [
        ({}, 0),
        ({"header": "infer"}, 0),
        ({"names": ["a"]}, None),
        ({"names": "a INT"}, None),
        ({"names": ["a"], "header": 0}, 0),
        ({"header": None}, None),
    ],
)
def test_header_infer_is_0_when_names_is_absent_otherwise_none(
    keywords: dict[str, object], header: int | None
) -> None:
    assert csv_keywords(keywords).header == header


@pytest.mark.parametrize("header", [1, [0, 1], "0", True, False])
def test_any_other_header_is_an_error(header: object) -> None:
    with pytest.raises(ValueError, match="header 'infer', 0 or None"):
        csv_keywords({"header": header})


@pytest.mark.parametrize("name", ["comment", "quotechar", "escapechar"])
@pytest.mark.parametrize("value", ["", "##", 3])
def test_comment_and_the_like_must_be_one_character(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} as one character"):
        csv_keywords({name: value})


def test_names_with_duplicates_are_an_error() -> None:
    with pytest.raises(ValueError, match="duplicates: a"):
        csv_keywords({"names": ["a", "b", "a"]})


@pytest.mark.parametrize("names", [3, {"a", "b"}, {"a": 1}])
def test_names_are_a_list_or_a_text(names: object) -> None:
    with pytest.raises(InputError, match="names as a list"):
        csv_keywords({"names": names})


@pytest.mark.parametrize("usecols", [["a", 1], "a", [1.5], [], [True, 1], 3])
def test_usecols_of_other_mixtures_is_an_error(usecols: object) -> None:
    with pytest.raises(ValueError, match="usecols as a list"):
        csv_keywords({"usecols": usecols})


@pytest.mark.parametrize("keywords", [{"mangle_dupe_cols": False}, {"parse_dates": True}])
def test_mangle_dupe_cols_only_true_and_parse_dates_only_false(keywords: dict[str, bool]) -> None:
    with pytest.raises(AssertionError) as caught:
        csv_keywords(keywords)
    assert isinstance(caught.value, ContractError)


def test_mangle_dupe_cols_true_and_parse_dates_false_are_nothing_to_spark() -> None:
    assert not csv_keywords({"mangle_dupe_cols": True, "parse_dates": False}).options


def test_sep_quotechar_and_escapechar_are_mapped_to_spark() -> None:
    found = csv_keywords({"sep": "|", "quotechar": "'", "escapechar": "!", "comment": "#"})
    assert found.spark_options == {"sep": "|", "quote": "'", "escape": "!", "comment": "#"}


def test_two_quotes_stand_for_one_unless_escapechar_says_otherwise() -> None:
    assert csv_keywords({}).spark_options["escape"] == '"'


def test_other_keywords_are_passed_to_spark() -> None:
    found = csv_keywords({"multiLine": True, "maxColumns": 7, "engine": "c", "locale": None})
    passed = {name: found.spark_options.get(name) for name in ["multiLine", "maxColumns", "engine"]}
    assert passed == {"multiLine": "true", "maxColumns": "7", "engine": "c"}
    assert "locale" not in found.spark_options


def test_an_option_is_found_whatever_its_case() -> None:
    assert csv_keywords({"MULTILINE": True}).option("multiLine") == "true"
    assert csv_keywords({"charset": "UTF-16"}).option("encoding", "charset") == "UTF-16"
    assert csv_keywords({}).option("lineSep") is None


@pytest.mark.parametrize("name", ["skiprows", "nrows", "na_values", "schema"])
def test_keywords_that_spark_would_ignore_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*pandas_read_backend = 'pandas'"):
        csv_keywords({name: 1})


@pytest.mark.parametrize("sep", [r"\s+", 3])
def test_sep_is_a_text_and_no_pattern(sep: object) -> None:
    with pytest.raises(InputError, match="sep as the text"):
        csv_keywords({"sep": sep})


@pytest.mark.parametrize("index_col", [1.5, True, ["a", None]])
def test_index_col_is_a_name_or_a_position(index_col: object) -> None:
    with pytest.raises(InputError, match="index_col"):
        csv_keywords({"index_col": index_col})
