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


def test_keywords_of_the_parser_are_passed_on() -> None:
    given = {"quotechar": "'", "escapechar": "!", "comment": "#", "na_values": None}
    found = csv_keywords({**given, "mangle_dupe_cols": True, "parse_dates": False})
    assert found.parser == {"quotechar": "'", "escapechar": "!", "comment": "#"}


def test_keywords_of_how_pandas_works_say_nothing_of_the_rows() -> None:
    found = csv_keywords({"low_memory": False, "memory_map": True, "multiLine": True})
    assert found == csv_keywords({})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("seperator", "sep"),
        ("delimeter", "delimiter"),
        ("usecol", "usecols"),
        ("dtypes", "dtype"),
        ("skip_rows", "skiprows"),
        ("na_value", "na_values"),
        ("nullValue", "na_values"),
        ("header_", "header"),
        ("mode", "on_bad_lines"),
        ("charset", "encoding"),
        ("inferSchema", "dtype"),
        ("schema", "names"),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown ones: {name}.*{name} -> {nearest}"):
        csv_keywords({name: None})


def test_an_unknown_keyword_like_no_other_is_refused_too() -> None:
    with pytest.raises(InputError, match="of .*, usecols.*unknown ones: zzz. Leave them out"):
        csv_keywords({"zzz": 1})


@pytest.mark.parametrize("name", ["nrows", "converters", "skipfooter", "chunksize", "engine"])
def test_keywords_of_the_pandas_backend_only_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*pandas_read_backend = 'pandas'"):
        csv_keywords({name: 1})
    assert csv_keywords({name: None}) == csv_keywords({})


@pytest.mark.parametrize(
    ("sep", "pattern"),
    [
        (";", ";"),
        (r"\s+", r"\s+"),
        ("||", r"\|\|"),
        ("::", "::"),
        ("[;,]", "[;,]"),
        ("**", r"\*\*"),
    ],
)
def test_a_long_sep_is_a_pattern_unless_that_makes_no_sense(sep: str, pattern: str) -> None:
    assert csv_keywords({"sep": sep}).sep == pattern


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"sep": 3}, "sep as the text"),
        ({"sep": ""}, "sep as the text"),
        ({"sep": None}, "one sep"),
        ({"sep": ",", "delimiter": ";"}, "one sep"),
        ({"encoding": "nosuch"}, "an encoding that Python knows"),
        ({"on_bad_lines": "ignore"}, "on_bad_lines 'error', 'warn' or 'skip'"),
    ],
)
def test_values_that_a_keyword_cannot_have(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        csv_keywords(keywords)


@pytest.mark.parametrize("index_col", [1.5, True, ["a", None]])
def test_index_col_is_a_name_or_a_position(index_col: object) -> None:
    with pytest.raises(InputError, match="index_col"):
        csv_keywords({"index_col": index_col})
