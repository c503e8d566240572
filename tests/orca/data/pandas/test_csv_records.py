import pytest

from zoo.orca.data.pandas.csv_keywords import csv_keywords
from zoo.orca.data.pandas.csv_records import CsvRecords, csv_records
from zoo.orca.data.pandas.pieces import Lead


def records(**keywords: object) -> CsvRecords:
    found = csv_records(csv_keywords(keywords))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("data", "inside", "left"),
    [
        (b"", False, False),
        (b"a,b\n", False, False),
        (b"a,b\n", True, True),
        (b'a,"b\n', False, True),
        (b'"a\n,b",c\n"d', False, True),
        (b'x"\n', True, False),
        (b'x"",\n', True, True),
        (b'5" pipe\n', False, False),
        (b'5" pipe,"\n', False, True),
        (b'"a"b"c\n', False, False),
        (b'"a"\r"b\r', False, True),
    ],
)
def test_whether_a_record_goes_on(data: bytes, inside: bool, left: bool) -> None:
    assert records().open_at_end(data, inside) is left


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b'x"\n1,2\n', 3),
        (b'x"\r\n1,2\n', 4),
        (b'x\ny",1\n2\n', 7),
        (b'x"",\n"\n3\n', 7),
        (b'x",",\n"\n3\n', 8),
        (b"x\ny\n", None),
        (b'x",1', None),
        (b'x","1\n', None),
    ],
)
def test_where_the_record_ends_that_is_open(data: bytes, end: int | None) -> None:
    assert records().first_end(data) == end


@pytest.mark.parametrize(
    "keywords",
    [{"comment": "#"}, {"skipinitialspace": True}, {"sep": "||"}, {"doublequote": False}],
)
def test_other_rules_are_for_files_without_quotes(keywords: dict[str, object]) -> None:
    assert records(**keywords).open_at_end(b"a\n", False) is False
    assert records(**keywords).open_at_end(b'"a"\n', False) is None


def test_an_escape_may_take_the_meaning_of_a_line_break() -> None:
    assert records(escapechar="\\").open_at_end(b"a\\\n", False) is None
    assert records(escapechar="\\").open_at_end(b"a\n", False) is False


def test_without_quotes_each_line_is_a_record() -> None:
    assert records(quoting=3).open_at_end(b'"a\n', False) is False


@pytest.mark.parametrize(
    "keywords",
    [
        {"encoding": "utf-16"},
        {"encoding": "gbk"},
        {"lineterminator": ";"},
        {"skiprows": [1, 3]},
    ],
)
def test_files_that_cannot_be_cut(keywords: dict[str, object]) -> None:
    assert csv_records(csv_keywords(keywords)) is None


@pytest.mark.parametrize("encoding", ["UTF8", "utf-8-sig", "latin-1", "cp1252", "ISO-8859-15"])
def test_encodings_that_can_be_cut(encoding: str) -> None:
    assert csv_records(csv_keywords({"encoding": encoding})) is not None


@pytest.mark.parametrize(
    ("head", "keywords", "lead"),
    [
        (b"a,b\n1,2\n3,4\n", {}, Lead(b"a,b\n1,2\n", 1)),
        (b"1,2\n3,4\n", {"header": None}, Lead(b"1,2\n", 1)),
        (b'\n#x\n"a\nb"\n\n"c\nd"\ne\n', {"comment": "#"}, Lead(b'\n#x\n"a\nb"\n\n"c\nd"\n', 1)),
        (b"x\ny\na\n1\n2\n", {"skiprows": 2}, Lead(b"x\ny\na\n1\n", 1)),
        (b"a\r1\r2\r\n3\n", {}, Lead(b"a\r1\r2\r\n", 2)),
        (b"a,b\n1,2", {}, None),
        (b"a,b\n", {}, None),
    ],
)
def test_the_lead_is_what_each_piece_needs(
    head: bytes, keywords: dict[str, object], lead: Lead | None
) -> None:
    assert records(**keywords).lead(head) == lead
