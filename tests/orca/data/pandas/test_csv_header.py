import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas.csv_header import FirstLine, first_line, first_lines
from zoo.orca.data.pandas.csv_keywords import csv_keywords

Write = Callable[..., str]


def found(path: str, **keywords: Any) -> FirstLine:
    return first_line(Path(path), csv_keywords(keywords))


@pytest.mark.parametrize(
    ("text", "keywords", "values"),
    [
        ("a,b\n1,2\n", {}, ("a", "b")),
        ("\ufeffa,b", {}, ("a", "b")),
        ("\r\n  \r\n#x\r\na,b\r\n", {"comment": "#"}, ("a", "b")),
        ('"a ""x"", y",b\n', {}, ('a "x", y', "b")),
        ("'a!'',b\n", {"quotechar": "'", "escapechar": "!"}, ("a'", "b")),
        ("a||b\n", {"sep": "||"}, ("a", "b")),
        ('"a\nx",b\n1,2\n', {"multiLine": True}, ("a\nx", "b")),
        ('"a,b\n1,2\n', {}, ("a,b\n",)),
        ('"a,b\n', {"quote": ""}, ('"a', "b")),
        ("", {}, ()),
        (" \n\n", {}, ()),
        (",\n", {}, ("", "")),
    ],
)
def test_first_line(
    write: Write, text: str, keywords: dict[str, Any], values: tuple[str, ...]
) -> None:
    assert found(write(text), **keywords).values == values


def test_a_long_header_is_read_to_its_end(write: Write) -> None:
    names = [f"column number {i}" for i in range(20_000)]
    assert found(write(",".join(names) + "\n1\n")).values == tuple(names)


def test_a_packed_file_is_unpacked_as_far_as_needed(write: Write) -> None:
    data = gzip.compress(b"a,b\n" + bytes(range(48, 58)) * 10**6)
    assert found(write(data, "a.csv.gz")).values == ("a", "b")


def test_what_only_spark_can_tell(write: Write) -> None:
    assert found(write("a", "a.csv.zst")).values is None
    assert found(write("a;b"), lineSep=";").values is None


@pytest.mark.parametrize(
    ("data", "name", "keywords", "message"),
    [
        (b"a,b\0", "x.csv", {}, "zero bytes"),
        (b"\xe9,b\n", "x.csv", {}, "encoding='ISO-8859-1'"),
        (b"a,b\n", "x.csv", {"encoding": "nosuch"}, "unknown encoding"),
        (b"a,b\n", "x.csv.gz", {}, "a packed file"),
    ],
)
def test_what_is_no_text_is_an_error_that_names_the_file(
    write: Write, data: bytes, name: str, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        found(write(data, name), **keywords)
    assert name in str(caught.value)


def test_a_character_cut_at_the_end_of_what_is_read_is_no_error(write: Write) -> None:
    assert found(write("a\n" + "é" * 40_000)).values == ("a",)


def test_first_lines_come_in_the_order_of_the_files(write: Write) -> None:
    paths = [Path(write(f"{i}\n", f"{i}.csv")) for i in range(50)]
    lines = first_lines(paths, csv_keywords({}))
    assert [line.values for line in lines] == [(str(i),) for i in range(50)]
