"""What strangers write never runs: 30 attempts, and the list of all places that unpickle."""

import ast
import base64
import gzip
import io
import json
import pickle
import re
import socket
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, PngImagePlugin
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data import SparkXShards, XShards
from zoo.orca.data.file import load_numpy, open_image
from zoo.orca.data.frame import select_columns
from zoo.orca.data.image import dataset_schema
from zoo.orca.data.image.formats.mnist import write_mnist
from zoo.orca.data.image.formats.tfrecord_file import decode_example, encode_example, read_records
from zoo.orca.data.image.formats.voc import VocLabels
from zoo.orca.data.image.image_decoder import ImageDecoder
from zoo.orca.data.image.layout.chunk_index import ChunkIndex
from zoo.orca.data.image.layout.dataset_folder import open_dataset
from zoo.orca.data.image.layout.manifest import DatasetFile, Manifest
from zoo.orca.data.image.ndarray_codec import decode_ndarray
from zoo.orca.data.pandas import read_parquet
from zoo.orca.data.pandas.pandas_reader import _read_files
from zoo.orca.data.xshards.error_inbox import ErrorInbox
from zoo.orca.data.xshards.file_format import decode_shard, encode_shard
from zoo.orca.data.xshards.files import MANIFEST, load_rdd
from zoo.orca.learn.driver.snapshots import SnapshotError, seal, unseal
from zoo.orca.learn.driver.stages import Stages
from zoo.orca.learn.pytorch.state import read_state

ROOT = Path(__file__).parents[1]


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.canary, "w")


@dataclass(frozen=True)
class Trap:
    """What a hostile file may hold, and where it would be seen that it ran."""

    folder: Path
    canary: Path

    @property
    def bomb(self) -> Bomb:
        return Bomb(self.canary)

    @property
    def pickle(self) -> bytes:
        return pickle.dumps(self.bomb)

    @property
    def objects(self) -> np.ndarray:
        array = np.empty(1, object)
        array[0] = self.bomb
        return array

    @property
    def code(self) -> str:
        """Text that makes the file when Python evaluates it."""
        return f"__import__('pathlib').Path({str(self.canary)!r}).touch()"

    @property
    def note(self) -> str:
        """Text in the form of a packed error, with guesses for what is random."""
        packed = base64.b64encode(self.pickle).decode()
        return f"x\nRaised by x. zoo-carried:{packed}:\nRaised by x. Number {'0' * 16}."

    def file(self, name: str, content: bytes | str) -> Path:
        place = self.folder / name
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        return place


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    folder = tmp_path / "hostile"
    folder.mkdir()
    trap = Trap(folder, tmp_path / "canary")
    yield trap
    assert not trap.canary.exists(), "code of a stranger ran"


def test_the_bomb_is_one(tmp_path: Path) -> None:
    pickle.loads(Trap(tmp_path, tmp_path / "canary").pickle).close()
    assert (tmp_path / "canary").exists()


def archive(**arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def text_array(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


# Files that are refused: what is read, how, and what is said.


def load_member(path: Path) -> Any:
    return load_numpy(path)["arr"]


def parquet(metadata: dict[bytes, bytes], field: pa.Field | None = None) -> bytes:
    column = field or pa.field("a", pa.int64())
    values = [b"x"] if pa.types.is_binary(column.type) else [1]
    table = pa.table([pa.array(values, column.type)], schema=pa.schema([column], metadata))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def spark_types(trap: Trap) -> dict[bytes, bytes]:
    """Parquet metadata in which Spark finds a type whose class is a module of the stranger."""
    trap.file("strange_types.py", f"{trap.code}\nclass Bad: pass\n")
    kind = {
        "type": "udt",
        "pyClass": "strange_types.Missing",
        "serializedClass": base64.b64encode(trap.pickle).decode(),
        "sqlType": "long",
    }
    field = {"name": "a", "type": kind, "nullable": True, "metadata": {}}
    schema = json.dumps({"type": "struct", "fields": [field]}).encode()
    return {b"org.apache.spark.sql.parquet.row.metadata": schema}


def manifest(folder: Path, name: str) -> Path:
    entry = {"file": name, "bytes": 1, "crc32": 0}
    (folder / MANIFEST).write_text(json.dumps({"version": 1, "partitions": [[entry]]}))
    return folder


def voc(trap: Trap) -> Path:
    entity = f'<!DOCTYPE a [<!ENTITY e SYSTEM "file://{trap.folder}/secret">]>'
    return trap.file("a.xml", f"{entity}<annotation><object>&e;</object></annotation>")


def torch_file(value: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(value, sink)
    return sink.getvalue()


def evil_torch_file(trap: Trap) -> bytes:
    """A whole state whose pickle calls `eval`."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file({}))) as good, zipfile.ZipFile(sink, "w") as bad:
        for name in good.namelist():
            program = b"cbuiltins\neval\n(V" + trap.code.encode() + b"\ntR."
            bad.writestr(name, program if name.endswith("data.pkl") else good.read(name))
    return sink.getvalue()


def stages(kind: str, files: dict[str, str]) -> dict[str, Any]:
    """What a state keeps of stages of pyspark.ml."""
    packed = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    return {"preprocess": {"stages": [{"class": kind, "files": packed}], "label": None}}


REFUSED: dict[str, tuple[Callable[[Trap], Any], type[Exception], str]] = {
    "npy of objects": (
        lambda t: load_numpy(t.file("a.npy", _npy(t.objects))),
        InputError,
        "without objects",
    ),
    "npy that is a pickle": (
        lambda t: load_numpy(t.file("a.npy", t.pickle)),
        InputError,
        "without objects",
    ),
    "npz with an array of objects": (
        lambda t: load_member(t.file("a.npz", archive(arr=t.objects))),
        ValueError,
        "allow_pickle=False",
    ),
    "array cell of objects": (
        lambda t: decode_ndarray(archive(arr=t.objects)),
        InputError,
        "cannot read",
    ),
    "array cell that is a pickle": (lambda t: decode_ndarray(t.pickle), InputError, "cannot read"),
    "shard of objects": (
        lambda t: decode_shard(
            "npz", archive(structure=text_array(["array", 0]), array_0=t.objects)
        ),
        InputError,
        "SparkXShards.save wrote",
    ),
    "shard whose structure is code": (
        lambda t: decode_shard("npz", archive(structure=text_array(["eval", t.code]))),
        InputError,
        "SparkXShards.save wrote",
    ),
    "shard that is a pickle": (
        lambda t: decode_shard("npz", t.pickle),
        InputError,
        "SparkXShards.save wrote",
    ),
    "shard whose pandas metadata is code": (
        lambda t: decode_shard("parquet", parquet(_pandas_metadata(t))),
        InputError,
        "SparkXShards.save wrote",
    ),
    "list of shards that leads out": (
        lambda t: load_rdd(None, manifest(t.folder, "../a.npz")),  # type: ignore[arg-type]
        InputError,
        "names of files that save does not give",
    ),
    "list of shards with an absolute path": (
        lambda t: load_rdd(None, manifest(t.folder, str(t.file("a.pkl", t.pickle)))),  # type: ignore[arg-type]
        InputError,
        "names of files that save does not give",
    ),
    "list of shards that is a pickle": (
        lambda t: load_rdd(None, t.file(MANIFEST, t.pickle).parent),  # type: ignore[arg-type]
        InputError,
        "saved shards as they were written",
    ),
    "dataset schema that names a function": (
        lambda t: dataset_schema.decode(
            json.dumps({"x": {"feature_type": {"__enum__": "os.system"}, "dtype": {}, "shape": []}})
        ),
        InputError,
        "one line of JSON",
    ),
    "dataset schema that is code": (
        lambda t: dataset_schema.decode(f"{{'x': {t.code}}}"),
        InputError,
        "one line of JSON",
    ),
    "dataset whose metadata is a pickle": (
        lambda t: open_dataset(t.file("_orca_metadata", t.pickle).parent),
        InputError,
        "_orca_metadata with other bytes",
    ),
    "dataset files that lead out": (
        lambda t: Manifest.decode(Manifest((DatasetFile("../a.parquet", 1, 1, 0),)).encode()),
        InputError,
        "list of a dataset's files",
    ),
    "dataset index that is a pickle": (lambda t: ChunkIndex.decode(t.pickle), InputError, "index"),
    "state with an object": (
        lambda t: read_state(seal(torch_file({"format": "zoo-torch-2", "model": t.bomb}))),
        InputError,
        "Weights only",
    ),
    "state that calls eval": (
        lambda t: read_state(seal(evil_torch_file(t))),
        InputError,
        "Weights only",
    ),
    "stage that is a function": (
        lambda t: Stages.read(stages("os.system", {"metadata": t.code})),
        InputError,
        "as save writes them",
    ),
    "stage that may call any Java": (
        lambda t: Stages.read(stages("SQLTransformer", {"metadata": "{}"})),
        InputError,
        "as save writes them",
    ),
    "stage with a file that leads out": (
        lambda t: Stages.read(stages("Tokenizer", {f"../{t.canary.name}": ""})),
        InputError,
        "as save writes them",
    ),
    "snapshot that is a pickle": (lambda t: unseal(t.pickle), SnapshotError, "whole snapshot"),
    "state that is a pickle": (
        lambda t: read_state(pickle.dumps(t.bomb, 2)),
        InputError,
        "Weights only",
    ),
    "picture in PostScript": (
        lambda t: open_image(t.file("a.jpg", f"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%touch {t.canary})")),
        InputError,
        "an image file",
    ),
    "picture that is a pickle": (lambda t: ImageDecoder()(t.pickle), InputError, "image file"),
    "annotation with an entity of a file": (
        lambda t: VocLabels().read(voc(t), "a.jpg"),
        InputError,
        "VOC annotation",
    ),
    "TFRecord that is a pickle": (
        lambda t: list(read_records(t.file("a.tfrecord", t.pickle))),
        InputError,
        "whole TFRecord records",
    ),
    "digits that are a packed pickle": (
        lambda t: write_mnist(
            str(t.file("a", gzip.compress(t.pickle))),
            str(t.file("b", gzip.compress(t.pickle))),
            str(t.folder / "out"),
        ),
        InputError,
        "an unpacked IDX file",
    ),
    "pickles in a folder that is open to all": (
        lambda t: XShards.load_pickle(_open_folder(t)),
        InputError,
        "not everybody can write",
    ),
    "pickles that anyone may put elsewhere": (
        lambda t: XShards.load_pickle(_replaceable_folder(t)),
        InputError,
        "not everybody can write",
    ),
}


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    return sink.getvalue()


def _pandas_metadata(trap: Trap) -> dict[bytes, bytes]:
    column = {
        "name": "a",
        "field_name": "a",
        "pandas_type": trap.code,
        "numpy_type": trap.code,
        "metadata": None,
    }
    text = {
        "index_columns": [trap.code],
        "column_indexes": [{**column, "name": None}],
        "columns": [column],
        "creator": {"library": trap.code, "version": trap.code},
        "pandas_version": trap.code,
    }
    layout = {"series": False, "named": False, "objects": []}
    return {b"pandas": json.dumps(text).encode(), b"zoo.shard": json.dumps(layout).encode()}


def _open_folder(trap: Trap) -> Path:
    trap.file("part-00000", trap.pickle)
    trap.folder.chmod(0o777)
    return trap.folder


def _replaceable_folder(trap: Trap) -> Path:
    (trap.folder / "saved").mkdir()
    trap.folder.chmod(0o777)
    return trap.folder / "saved"


@pytest.mark.parametrize("attempt", REFUSED)
def test_hostile_files_are_refused(trap: Trap, attempt: str) -> None:
    use, kind, pattern = REFUSED[attempt]
    with pytest.raises(kind, match=pattern):
        use(trap)


# What is harmless as it is, and comes as data.


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_hostile_cells_stay_texts(trap: Trap, kind: Any) -> None:
    cells = [trap.code, trap.note, f"=cmd|' /C touch {trap.canary}'!A0", '{"py/object": "x"}']
    frame = pd.DataFrame({"a": cells})
    place = str(trap.folder / f"$(touch {trap.canary.name}); `x`.{kind}")
    frame.to_csv(place, index=False) if kind == "csv" else frame.to_json(place)
    found = _read_files([place], kind, {}, False)
    assert [str(cell).replace("\r\n", "\n") for cell in found["a"]] == cells


def test_hostile_column_names_are_names(trap: Trap) -> None:
    place = trap.file("a.csv", f'"{trap.code}",@pd.eval\n1,2\n')
    assert list(_read_files([str(place)], "csv", {}, False)) == [trap.code, "@pd.eval"]


def test_types_of_arrow_extensions_are_not_unpickled(trap: Trap) -> None:
    names = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": trap.pickle,
    }
    field = pa.field("a", pa.binary(), metadata=names)
    place = trap.file("a.parquet", parquet({}, field))
    assert _read_files([str(place)], "parquet", {}, False)["a"].tolist() == [b"x"]


def test_saved_shards_with_such_types_are_data(trap: Trap) -> None:
    names = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": trap.pickle,
    }
    layout = json.dumps({"series": False, "named": False, "objects": []}).encode()
    field = pa.field("a", pa.binary(), metadata=names)
    assert decode_shard("parquet", parquet({b"zoo.shard": layout}, field))["a"][0] == b"x"


def test_texts_in_a_picture_are_not_read(trap: Trap) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", trap.code)
    texts.add_text("pickle", trap.pickle.decode("latin-1"), zip=True)
    Image.new("RGB", (2, 2)).save(trap.folder / "a.png", pnginfo=texts)
    assert open_image(trap.folder / "a.png").size == (2, 2)


def test_features_of_a_record_are_bytes(trap: Trap) -> None:
    data = encode_example({"image/encoded": trap.pickle, trap.code: trap.code.encode()})
    assert decode_example(data)["image/encoded"] == [trap.pickle]


# Errors on the way to the driver


def test_texts_tell_of_no_error(trap: Trap) -> None:
    with ErrorInbox("127.0.0.1") as inbox:
        assert inbox.find(trap.note) is None


def test_strangers_hand_nothing_over(trap: Trap) -> None:
    said = json.dumps({"number": "", "where": "x", "facts": {"text": "", "traceback": ""}})
    message = struct.pack("<IQ", len(said), len(trap.pickle)) + said.encode() + trap.pickle
    with ErrorInbox("127.0.0.1") as inbox:
        host, port, _ = json.loads(inbox.invitation)
        with socket.create_connection((host, port), 5) as door:
            # As if it knew the key: fresh bytes, a proof, and the message at once.
            door.sendall(bytes(64) + message)
            while door.recv(1 << 10):
                pass
        assert inbox.find(said) is None


def parse_cells(frame: pd.DataFrame) -> Any:
    return pd.to_numeric(frame["a"])


@pytest.mark.spark
def test_hostile_cell_that_an_error_repeats(spark: SparkSession, trap: Trap) -> None:
    frame = pd.DataFrame({"a": ["1", trap.note]})
    shards = SparkXShards(spark.sparkContext.parallelize([frame], 1), transient=True)
    with pytest.raises(ValueError, match="Unable to parse string"):
        shards.transform_shard(parse_cells)


@pytest.mark.spark
def test_hostile_texts_and_notes_of_errors(spark: SparkSession, trap: Trap) -> None:
    def fail(note: str) -> None:
        cause = ValueError(note)
        cause.add_note(note)
        error = KeyError(note)
        error.add_note(note)
        raise error from cause

    shards = SparkXShards(spark.sparkContext.parallelize([trap.note], 1), transient=True)
    with pytest.raises(KeyError) as caught:
        shards.transform_shard(fail)
    assert caught.value.args == (trap.note,)


@pytest.mark.spark
def test_hostile_shard_in_a_folder_with_a_sound_list(spark: SparkSession, trap: Trap) -> None:
    saved = trap.folder / "saved"
    XShards.partition({"x": np.arange(2)}, 1).save(saved)
    (place,) = saved.glob("part-*")
    suffix, content = encode_shard({"x": np.arange(2)})
    assert suffix == "npz"
    content = archive(structure=text_array(["array", 0]), array_0=trap.objects)
    place.write_bytes(content)
    listed = json.loads((saved / MANIFEST).read_text())
    listed["partitions"][0][0].update(bytes=len(content), crc32=zlib.crc32(content))
    (saved / MANIFEST).write_text(json.dumps(listed))
    with pytest.raises(InputError, match="allow_pickle=False"):
        XShards.load(saved)


@pytest.mark.spark
def test_hostile_column_name_is_no_expression(spark: SparkSession) -> None:
    name = "a` AS b, reflect('java.lang.System', 'setProperty', 'zoo.canary', 'x') AS `c"
    frame = spark.createDataFrame([(1,)], "a int").toDF(name)
    assert select_columns(frame, [name]).collect()[0][0] == 1
    assert spark._jvm.java.lang.System.getProperty("zoo.canary") is None  # type: ignore[union-attr]


@pytest.mark.spark
def test_classes_that_parquet_files_name_are_not_imported(
    spark: SparkSession, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(trap.folder))
    place = trap.file("a.parquet", parquet(spark_types(trap)))
    with pytest.raises(InputError, match=r"the files name \(strange_types.Missing\)"):
        read_parquet(str(place))
    assert "strange_types" not in sys.modules


# The list


UNPICKLING = re.compile(
    r"(cloudpickle|dill|joblib|marshal|pickle|_pickle)\.(loads?|Unpickler)"
    r"|numpy\.load|pandas\.(eval|read_hdf|read_pickle)|shelve\.open|yaml\.\w*load\w*"
    r"|multiprocessing\.(Manager|Pipe|Pool|\w*Queue|connection\.\w+)|runpy\.\w+"
    r"|torch\.(load|hub\.load|jit\.load)|(keras|tensorflow)\.\w+(\.\w+)*\.load\w*"
    r"|pyspark\.serializers\.\w*Pickle\w*|importlib\.import_module"
    r"|(.*\.)?(pickleFile|objectFile|read_pickle)|(eval|exec|compile|__import__)"
)
"""Full names of what turns bytes or texts into objects by running what they say."""


def imported(tree: ast.Module) -> dict[str, str]:
    """The full names of what a file imports, by the names it gives them."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return known


def full_name(node: ast.AST, known: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, known)}.{node.attr}"
    return known.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def uses(path: Path) -> Iterator[tuple[str, str]]:
    """Where a file uses such a name, and which."""
    tree = ast.parse(path.read_text())
    known = imported(tree)
    module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)

    def walk(node: ast.AST, place: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            name = full_name(child, known)
            if UNPICKLING.fullmatch(name):
                # Of a method of some object, such as that of a SparkContext, only the last part.
                yield place, name.rpartition(".")[2] if ".pickleFile" in name else name
            # A program as text, for another Python.
            if isinstance(child, ast.Constant) and not isinstance(node, ast.Expr):
                texts = re.findall(r"\bpickle\.loads?", str(child.value))
                yield from ((place, found) for found in texts)
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from walk(child, f"{place}.{child.name}" if inner else place)

    yield from walk(tree, module.removesuffix(".__init__"))


SAFE = {"numpy.load": "allow_pickle=False", "torch.load": "weights_only=True"}


@pytest.mark.parametrize("name", SAFE)
def test_arrays_and_states_are_loaded_without_pickles(name: str) -> None:
    texts = {path: path.read_text() for path in (ROOT / "src" / "zoo").rglob("*.py")}
    for path, text in texts.items():
        if "load" not in text:
            continue
        tree = ast.parse(text)
        known = imported(tree)
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        for call in (one for one in calls if full_name(one.func, known) == name):
            assert SAFE[name] in map(ast.unparse, call.keywords), f"{path.name}:{call.lineno}"


def test_the_page_lists_every_place_that_unpickles() -> None:
    rows = re.findall(
        r"^\| `(zoo[\w.]*)` \| `([\w.]+)` \|", (ROOT / "docs" / "security.md").read_text(), re.M
    )
    found = {use for path in (ROOT / "src" / "zoo").rglob("*.py") for use in uses(path)}
    assert sorted(found - set(rows)) == [], "not in docs/security.md"
    assert sorted(set(rows) - found) == [], "in docs/security.md, and not in the code"
    assert len(rows) == len(set(rows))
