import contextlib
import json
import random

import pytest

from zoo.errors import InputError
from zoo.orca.data.image.layout.manifest import DatasetFile, Manifest

MANIFEST = Manifest(
    (
        DatasetFile("chunk=0/part-00000.parquet", 1000, 123, 2**32 - 1),
        DatasetFile("chunk=1/part-00000.parquet", 7, 99, 5),
    ),
    "0" * 32,
    skipped=3,
    quarantined=0,
)


def test_text_comes_back() -> None:
    assert Manifest.decode(MANIFEST.encode()) == MANIFEST


def test_content_is_what_the_layout_says() -> None:
    content = json.loads(MANIFEST.encode())
    assert content["version"] == 1
    assert (content["rows"], content["skipped"], content["quarantined"]) == (1007, 3, 0)
    assert content["files"][0] == {
        "path": "chunk=0/part-00000.parquet",
        "rows": 1000,
        "bytes": 123,
        "footer_crc": 2**32 - 1,
    }


def test_changed_text_is_noticed_or_means_the_same() -> None:
    text, chance = MANIFEST.encode(), random.Random(0)
    for _ in range(300):
        raw = bytearray(text.encode())
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(InputError):
            assert Manifest.decode(bytes(raw)) == MANIFEST  # a space became a tab


@pytest.mark.parametrize("path", ["../../etc/passwd", "/chunk=0/a", "chunk=0/../a/b", "chunk=x/a"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    text = Manifest((DatasetFile(path, 1, 1, 1),)).encode()
    with pytest.raises(InputError, match="the path"):
        Manifest.decode(text)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}', '{"version": 2, "crc": 0}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="list of a dataset's files"):
        Manifest.decode(text)
