"""The spark backend's parser against pandas itself, over a corpus of oddities, without Spark."""

import bz2
import gzip
import io
import itertools
import lzma
import random
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas.csv_keywords import csv_keywords
from zoo.orca.data.pandas.csv_records import csv_records
from zoo.orca.data.pandas.csv_text import CsvText
from zoo.orca.data.pandas.kinds import Kind, unite
from zoo.orca.data.pandas.pieces import Lead, Piece, edge_of, starts_of


def read(pieces: list[Piece], **keywords: Any) -> Any:
    """Read pieces as the tasks do, each by itself."""
    text = CsvText(csv_keywords(keywords))
    looks = [look for piece in pieces for look in text.look([piece])]
    kinds = [unite(found) for found in zip(*(look.kinds for look in looks), strict=True)]
    frames = [text.read([piece], looks[0].header, kinds) for piece in pieces]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def pieces_of(text: str | bytes, size: int, **keywords: Any) -> list[Piece]:
    """Cut a text wherever a record ends at last after `size` bytes."""
    data = text.encode() if isinstance(text, str) else text
    records = csv_records(csv_keywords(keywords))
    assert records is not None
    lead = records.lead(data + b"\n\n")
    assert lead is not None
    pieces, held = [], b""
    for line in data.splitlines(keepends=True):
        held += line
        whole = max(size, 0 if pieces else len(lead.data))
        if len(held) >= whole and not records.open_at_end(held, False):
            pieces.append(held)
            held = b""
    first, *rest = [*pieces, held] if held else pieces
    assert first.startswith(lead.data)
    return [Piece("a.csv", data=first), *(Piece("a.csv", lead=lead, data=one) for one in rest)]


TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "line break in quotes": ('id,text,y\n1,"first\nsecond",2\n2,"c",3\n', {}),
    "line breaks of Windows in quotes": ('a,b\r\n1,"x\r\ny"\r\n2,"z"\r\n', {}),
    "header with a line break": ('"a\nx",b\n1,2\n', {}),
    "quotes in quotes": ('a,b\n"say ""hi""",1\n"",2\n"""",3\n', {}),
    "quotes inside a plain field": ('a,b\n5" pipe,1\n6" x 7",2\n', {}),
    "text after quotes": ('a,b\n"x"y,1\n"p" "q",2\n', {}),
    "other quotes": ("a,b\n'x,1',2\n", {"quotechar": "'"}),
    "no quotes": ('a,b\n"x,1\ny",2\n', {"quoting": 3}),
    "escapes": ('a,b\n"x\\"y",1\nz\\,t,2\n', {"escapechar": "\\"}),
    "escapes without doubling": ('a\n"x\\"y"\n', {"escapechar": "\\", "doublequote": False}),
    "times": ("v\n12:30\n13:45\n", {}),
    "codes": ("a,b,c,d,e\nT12,1D,10f,5L,0x1F\nT13,2F,11d,6L,0x20\n", {}),
    "months and weeks": ("a,b,c\n2024-01,2024-W01,2024\n2024-02,2024-W02,2025\n", {}),
    "parts of dates": ("a,b\n01/02/2024,Jan 2024\n03/02/2024,Feb 2024\n", {}),
    "times with a zone": ("a\n2024-01-01T00:00:00Z\n2024-01-01T00:00:00+02:00\n", {}),
    "missing marks": (
        "a,b,c\n31,1.5,Rome\nNA,nan,NA\n40,2.5,null\n#N/A,N/A,None\n,-nan,<NA>\n",
        {},
    ),
    "other missing marks": ("a,b\n?,1\n2,-\n", {"na_values": ["?", "-"]}),
    "missing marks by column": ("a,b\n?,?\n2,1\n", {"na_values": {"a": "?"}}),
    "only these missing marks": ("a\nNA\n?\n", {"na_values": ["?"], "keep_default_na": False}),
    "no missing marks": ("a,b\nNA,\nx,1\n", {"na_filter": False}),
    "missing all": ("a,b\n,1\n,2\n", {}),
    "infinite": ("a,b\ninf,-inf\nInfinity,1e400\n", {}),
    "large numbers": (f"a,b,c\n{2**63},{2**53 + 1},{10**30}\n1,-1,1\n", {}),
    "large numbers of one sign": (f"a\n{2**64 - 1}\n1\n", {}),
    "booleans": ("a,b,c\nTrue,true,TRUE\nFalse,,yes\n", {}),
    "other booleans": ("a\nyes\nno\n", {"true_values": ["yes"], "false_values": ["no"]}),
    "numbers and booleans": ("a\n1\nTrue\n0.5\n", {}),
    "leading zeros and signs": ("a,b,c\n007,+5,-0\n010,-5,1\n", {}),
    "leading zeros as text": ("a,b\n007,1\n010,2\n", {"dtype": {"a": str}}),
    "spaces": ("a, b ,c\n 1, x ,\n2,y, \n", {}),
    "spaces after separators": ('a, b\n1, "x, y"\n', {"skipinitialspace": True}),
    "thousands": ("a,b\n1.000,5;x\n".replace(",", "|"), {"sep": "|", "thousands": "."}),
    "decimal comma": ("a;b\n1,5;x\n2,5;y\n", {"sep": ";", "decimal": ","}),
    "short lines": ("a,b,c\n1\n2,3\n4,5,6\n", {}),
    "an empty value at the end": ("a,b\n1,\n2,\n", {}),
    "empty lines": ("\n\na,b\n\n1,2\n\n\n3,4\n\n", {}),
    "empty lines that count": ("a,b\n1,2\n\n3,4\n", {"skip_blank_lines": False}),
    "comments": ("#x\na,b #c\n1,2\n#3,4\n5,6#7\n", {"comment": "#"}),
    "rows to skip": ("junk\nmore;junk,\na,b\n1,2\n3,4\n", {"skiprows": 2}),
    "same names": ("a,a,a.1,,\n1,2,3,4,5\n", {}),
    "tabs": ("a\tb\n1\t2\n", {"sep": "\t"}),
    "white space": ("a  b\n1   2\n3 4\n", {"sep": r"\s+"}),
    "a pattern": ("a, b;c\n1, 2;3\n", {"sep": "[,;] ?"}),
    "line breaks of old": ("a,b\r1,2\r3,4\r", {}),
    "no last line break": ("a,b\n1,2", {}),
    "header only": ("a,b\n", {}),
    "lines too long that are skipped": ("a,b\n1,2\n3,4,5\n6,7\n", {"on_bad_lines": "skip"}),
    "used columns": ("a,b,c\n1,x,\n2,y,3\n", {"usecols": ["c", "a"]}),
    "other signs": ("a§b\n»x§y»§2\n", {"sep": "§", "quotechar": "»"}),
    "a byte order mark": ("\ufeffa,b\n1,2\n", {}),
    "types": ("a,b,c\n1,2,x\n3,,y\n", {"dtype": {"a": "float32", "b": "Int64", "c": "category"}}),
}


def expected(data: bytes, **keywords: Any) -> pd.DataFrame:
    by_pattern = len(keywords.get("sep", ",")) > 1 or not keywords.get("sep", ",").isascii()
    reader: Any = pd.read_csv
    return reader(io.BytesIO(data), **{"engine": "python"} if by_pattern else {}, **keywords)


@pytest.mark.parametrize("name", TEXTS)
def test_the_frame_that_pandas_reads(name: str) -> None:
    text, keywords = TEXTS[name]
    found = read([Piece("a.csv", data=text.encode())], **keywords)
    pd.testing.assert_frame_equal(found, expected(text.encode(), **keywords))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "gbk"])
def test_encodings(encoding: str) -> None:
    data = 'id,näme\n1,Ännchen\n2,"B\nob"\n' if encoding != "gbk" else "a,名\n1,中文\n"
    found = read([Piece("a.csv", data=data.encode(encoding))], encoding=encoding)
    pd.testing.assert_frame_equal(found, expected(data.encode(encoding), encoding=encoding))


def zipped(data: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.csv", data)
    return whole.getvalue()


@pytest.mark.parametrize(
    ("name", "pack", "keywords"),
    [
        ("a.csv.gz", gzip.compress, {}),
        ("a.CSV.GZ", gzip.compress, {}),
        ("a.bz2", bz2.compress, {}),
        ("a.csv.xz", lzma.compress, {}),
        ("a.zip", zipped, {}),
        ("a.csv", gzip.compress, {"compression": "gzip"}),
        ("plain.gz", bytes, {"compression": None}),
    ],
)
def test_packed_files(tmp_path: Path, name: str, pack: Any, keywords: dict[str, Any]) -> None:
    file = tmp_path / name
    file.write_bytes(pack(b"a,b\n1,x\n"))
    assert read([Piece(str(file))], **keywords).to_dict("list") == {"a": [1], "b": ["x"]}


# What a cut must not change: quotes, widths and types of all pieces.
CUT = [
    *("line break in quotes", "line breaks of Windows in quotes", "header with a line break"),
    *("quotes in quotes", "quotes inside a plain field", "text after quotes", "other quotes"),
    *("no quotes", "codes", "missing marks", "missing all", "large numbers", "booleans"),
    *("numbers and booleans", "leading zeros as text", "short lines", "empty lines", "same names"),
    *("rows to skip", "large numbers of one sign", "used columns"),
    *("comments", "lines too long that are skipped", "a byte order mark", "white space"),
]


@pytest.mark.parametrize("name", CUT)
def test_pieces_together_are_the_whole(name: str) -> None:
    text, keywords = TEXTS[name]
    found = read(pieces_of(text, 1, **keywords), **keywords)
    pd.testing.assert_frame_equal(found, expected(text.encode(), **keywords))


def test_a_column_has_one_type_in_all_pieces() -> None:
    text = "a,b,c,d\n1,1,True,1\n2,x,,2020-01-01\n,3,False,3\n"
    pieces = pieces_of(text, 1)
    assert len(pieces) == 3
    found = CsvText(csv_keywords({}))
    looks = [look for piece in pieces for look in found.look([piece])]
    kinds = [unite(each) for each in zip(*(look.kinds for look in looks), strict=True)]
    frames = [found.read([piece], looks[0].header, kinds) for piece in pieces]
    assert {tuple(map(str, frame.dtypes)) for frame in frames} == {
        ("float64", "object", "object", "object")
    }
    assert [frame["b"][0] for frame in frames] == ["1", "x", "3"]


@pytest.mark.parametrize(
    ("texts", "dates"),
    [
        (["2020-01-02", "2020-02-03"], True),
        (["2020-01-02 03:04:05", "2020-01-02T03:04", "2020-01-02 03:04:05.25"], True),
        (["2020-01-02", "x"], False),
        (["2020-01-02", "2020-13-02"], False),
        (["2020-01-02", "1500-01-02"], False),
        (["2020-1-2"], False),
        (["20200102T03"], False),
        (["2020-01-02Z"], False),
    ],
)
def test_full_dates_and_nothing_else_are_datetime64(texts: list[str], dates: bool) -> None:
    (column,) = (
        read([Piece("a.csv", data="\n".join(["a", *texts]).encode())]).to_dict("series").values()
    )
    assert (column.dtype == "datetime64[ns]") == dates
    assert dates or column.tolist() == texts


@pytest.mark.parametrize(
    ("data", "keywords", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", {}, r"Expected 2 fields in line 3, saw 3.*on_bad_lines"),
        (b"a,b\n1,2,3\n1,2,3\n", {}, "lines of 2 values.*index_col=False"),
        (b'a,b\n1,"2\n3,4\n', {}, "EOF inside string"),
        (b"\x89PNG\r\n\x1a\n", {}, "text in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), {}, "zero bytes.*encoding='utf-16'"),
        (b"a\nx\n", {"dtype": "int64"}, "values of column 'a' that fit int64.*a.csv"),
        (b"a,b\n1,\n", {"dtype": {"b": bool}}, "values of column 'b' that fit bool"),
        (b"a\n300\n", {"dtype": "int8"}, "values of column 'a' that fit int8"),
        (b"a\n1.5\n", {"dtype": int}, "values of column 'a' that fit int64"),
        (b"a\nx\n", {"dtype": "datetime64[ns]"}, "values of column 'a' that fit datetime64"),
        (b"a\n1\n", {"compression": "gzip"}, "a packed file"),
        (b"a\n1\n", {"compression": "zip"}, "a packed file"),
        (b"a\n1\n", {"quoting": 9}, "keywords that fit each other.*quoting"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read([Piece("a.csv", data=data)], **keywords)


def test_a_packing_that_pandas_does_not_know_is_an_error() -> None:
    with pytest.raises(InputError, match="packed as .bz2"):
        read([Piece("a.csv.lz4", data=b"a")])


def test_a_file_cut_anywhere_at_random_keeps_its_records(tmp_path: Path) -> None:
    draw = random.Random(0)
    cells = ["", "x", '"a,b"', '"l\nm"', '""', '"q""r"', '5" p', '"s"t', '"\r\n"', '"\n\n,"']
    for _ in range(12):
        rows = [",".join(draw.choices(cells, k=2)) for _ in range(30)]
        text = "a,b\n" + "\n".join(rows) + "\n"
        file = tmp_path / "a.csv"
        file.write_bytes(text.encode())
        records = csv_records(csv_keywords({"na_filter": False}))
        assert records is not None
        lead = records.lead(text.encode())
        assert lead is not None
        size, step = len(text.encode()), draw.randrange(len(lead.data), 60)
        ranges = [(str(file), at, min(at + step, size), records) for at in range(0, size, step)]
        starts = starts_of([edge_of(one) for one in ranges])
        assert starts is not None
        pieces = [
            Piece(str(file), start, stop, lead if start else Lead())
            for start, stop in itertools.pairwise([*starts, size])
        ]
        found = read(pieces, na_filter=False, skip_blank_lines=False, dtype=str)
        whole = pd.read_csv(file, na_filter=False, skip_blank_lines=False, dtype=str)
        pd.testing.assert_frame_equal(found, whole)


def test_a_task_whose_files_hold_no_line_gives_an_empty_frame_of_the_same_columns() -> None:
    text = CsvText(csv_keywords({"comment": "#", "dtype": {"c": "float32"}}))
    kinds = [Kind.INTS, Kind.DATES, Kind.OBJECTS]
    frame = text.read([Piece("a.csv", data=b"#x\n")], ("a", "b", "c"), kinds)
    assert len(frame) == 0
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "datetime64[ns]", "float32"]


def test_files_of_one_task_are_one_frame() -> None:
    pieces = [Piece("a.csv", data=b"a\n1\n"), Piece("b.csv", data=b"a\n"), Piece("c", data=b"a\n2")]
    frame = CsvText(csv_keywords({})).read(pieces, ("a",), [Kind.INTS])
    assert frame["a"].to_dict() == {0: 1, 1: 2}


@pytest.mark.parametrize(
    ("value", "cell"),
    [("2", 2), ("1D", "1D"), ("a%2Fb", "a/b"), ('x"y', 'x"y'), ("0.5", 0.5), ("12:30", "12:30")],
)
def test_folders_named_for_values_give_what_a_cell_would(value: str, cell: object) -> None:
    text = CsvText(csv_keywords({}), "/data/")
    (look,) = text.look([Piece(f"/data/day={value}/x.csv", data=b"a\n1\n")])
    assert look.header == ("a", "day")
    kinds = [unite([kind]) for kind in look.kinds]
    frame = text.read([Piece(f"/data/day={value}/x.csv", data=b"a\n1\n")], look.header, kinds)
    assert frame["day"].tolist() == [cell]


def test_a_folder_of_missing_values_and_one_of_text() -> None:
    text = CsvText(csv_keywords({"dtype": {"code": str}}), "/d/")
    data = b"a\n1\n"
    pieces = [Piece("/d/code=007/day=__HIVE_DEFAULT_PARTITION__/x.csv", data=data)]
    (look,) = text.look(pieces)
    frame = text.read(pieces, look.header, [unite([kind]) for kind in look.kinds])
    assert frame["code"].tolist() == ["007"]
    assert frame["day"].isna().all()


def test_missing_marks_go_by_the_names_that_the_caller_gives() -> None:
    found = read([Piece("a.csv", data=b"?,?\n1,2\n")], names=["a", "b"], na_values={"a": "?"})
    assert found["a"].isna().tolist() == [True, False]
    assert found["b"].tolist() == ["?", "2"]
