"""Images of a Spark DataFrame through a pipeline, as Arrow batches in ordinary tasks.

Only the columns that the work needs leave the JVM; Spark pairs what was made of an image with the
untouched rest of its row. A bad image stops the job, or its row is left out: then it is counted,
and listed with the reason.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.functions import arrow_udf

from zoo.errors import ColumnError, InputError
from zoo.orca.data.image.image_files import read_images
from zoo.orca.data.image.ndarray_codec import decode_ndarray
from zoo.orca.data.image.on_error import OnError, check_on_error
from zoo.orca.data.image.pipeline import ImagePipeline
from zoo.orca.data.tensors.plan_columns import quoted

__all__ = ["ImageFrame", "read_images", "transform_images"]

_log = logging.getLogger(__name__)

_BATCH_BYTES = 8 << 20
_MADE, _FLAW = "__made", "__flaw"
# While Spark hands columnar data to Python it cannot carry ML vectors past it (as of 4.3).
_COLUMNAR = "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled"
_FLAW_TYPE = T.StructType(
    [
        T.StructField("partition", T.IntegerType()),
        T.StructField("row", T.LongType()),
        T.StructField("reason", T.StringType()),
    ]
)
_NUMBERS = T.ArrayType(T.ArrayType(T.FloatType()))


@dataclass(frozen=True)
class ImageFrame:
    """What `transform_images` makes of a DataFrame. Both frames are lazy.

    Attributes:
        frame: The rows in their order, without those of bad images.
        bad: A row for each bad image: `path` (null where the frame names none), `partition`,
            `row` (its number in the partition) and `reason`.
    """

    frame: DataFrame
    bad: DataFrame
    _flaws: DataFrame

    def counts(self) -> dict[str, int]:
        """Count the good and the bad images, in a job that decodes them all.

        Returns:
            `{"ok": ..., "bad": ...}`
        """
        row = self._flaws.agg(F.count("*"), F.count("reason")).first()
        assert row is not None
        return {"ok": row[0] - row[1], "bad": row[1]}


class _Work(NamedTuple):
    """What a task does with an image."""

    pipeline: ImagePipeline
    on_error: OnError
    encode: str | None
    with_boxes: bool
    rank: int
    whole: bool


class _Row(NamedTuple):
    """The cells of a row that the work needs."""

    image: bytes | None
    path: str | None
    reason: str | None
    boxes: Any


class _Made(NamedTuple):
    """What came of a row."""

    image: Any
    boxes: npt.NDArray[np.float32] | None
    reason: str | None


def transform_images(
    frame: DataFrame,
    pipeline: ImagePipeline,
    *,
    image: str = "image",
    output: str | None = None,
    boxes: str | None = None,
    encode: Literal["jpeg", "png"] | None = None,
    path: str | None = None,
    on_error: OnError = "fail",
) -> ImageFrame:
    """Take the images of a frame through a pipeline.

    Random steps draw by the seed of the pipeline, the partition and the row in it: the same frame
    gives the same images whenever it is evaluated.

    Args:
        frame: Any Spark DataFrame.
        pipeline: What to do. As an array, the result is nested lists in the shape of the array,
            of floats, or of shorts where the array holds bytes; estimators take such a column.
        image: The binary column with the bytes of image files.
        output: The name of the new column; None replaces the image column.
        boxes: A column of boxes on the image (nested lists, or the archive of an NDARRAY column
            of a dataset). They move along, in a column of nested lists in its place.
        encode: Keep image files: "jpeg" or "png" of a pipeline without array steps.
        path: A column that names images in reasons and errors; "path" where the frame has one.
        on_error: What to do about bad images, and about a null image of `read_images` with its
            reason. "fail" raises in the task that meets the first; "skip" and "quarantine" leave
            the row out of `frame`. The result counts and lists them in any case.

    Raises:
        ColumnError: A column is missing or has another type.
        InputError: A setting is not known, or does not fit the pipeline.
    """
    check_on_error(on_error)
    _check_encode(encode, pipeline)
    _check_columns(frame.schema, image, boxes, path)
    if boxes is not None and output == boxes:
        raise InputError("a column for the images and one for the boxes", repr(output), "Name two.")
    _carry_vectors(frame)
    path = path or "path"
    columns = _columns(frame, image, path, boxes)
    rank = 3 if pipeline.shape is None else len(pipeline.shape)
    work = _Work(pipeline, on_error, encode, boxes is not None, rank, whole=True)
    made = frame.withColumn(_MADE, _udf(work, _made_type(work))(*columns))
    if on_error != "fail":
        made = made.filter(F.col(_MADE)["reason"].isNull())
    looked = _udf(work._replace(whole=False, on_error="skip"), _FLAW_TYPE)(*columns)
    name = F.col(quoted(path)).cast("string") if path in frame.columns else F.lit(None)
    flaws = frame.select(name.cast("string").alias("path"), looked.alias(_FLAW))
    flaws = flaws.select("path", f"{_FLAW}.*")
    return ImageFrame(
        made.select(*_outputs(frame, image, output or image, boxes)),
        flaws.filter(F.col("reason").isNotNull()),
        flaws,
    )


# On the driver


def _check_encode(encode: str | None, pipeline: ImagePipeline) -> None:
    if encode not in (None, "jpeg", "png"):
        raise InputError("encode 'jpeg' or 'png'", repr(encode), "Choose one, or leave it out.")
    if encode and not pipeline.makes_pictures:
        raise InputError(
            f"a pipeline that ends with a picture, to encode it as {encode}",
            "one with ToCHW or ToHWC",
            "Leave out the array steps, or encode.",
        )
    if encode == "jpeg" and pipeline.mode == "RGBA":
        raise InputError("mode 'L' or 'RGB' for jpeg", "'RGBA'", "Choose encode='png'.")


def _check_columns(schema: T.StructType, image: str, boxes: str | None, path: str | None) -> None:
    kinds = {field.name: field.dataType for field in schema}
    for name in filter(None, (image, boxes, path)):
        if name not in kinds:
            raise ColumnError(
                f"a column {name!r}", f"a frame with {list(kinds)}", "Name one of its columns."
            )
    if not isinstance(kinds[image], T.BinaryType):
        raise ColumnError(
            f"the bytes of image files in column {image!r}",
            kinds[image].simpleString(),
            "Read the files with read_images.",
        )
    if boxes and not (isinstance(kinds[boxes], T.BinaryType) or _is_nested(kinds[boxes])):
        raise ColumnError(
            f"boxes as arrays of arrays in column {boxes!r}",
            kinds[boxes].simpleString(),
            "Collect the boxes of each image into an array of [xmin, ymin, xmax, ymax].",
        )


def _is_nested(kind: T.DataType) -> bool:
    return isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.ArrayType)


def _carry_vectors(frame: DataFrame) -> None:
    vectors = any(isinstance(field.dataType, T.UserDefinedType) for field in frame.schema)
    if vectors and frame.sparkSession.conf.get(_COLUMNAR, "false") != "false":
        # The result is lazy, so nobody knows when the setting could be put back.
        _log.warning("%s is set to false in this session: the frame holds vectors", _COLUMNAR)
        frame.sparkSession.conf.set(_COLUMNAR, "false")


def _columns(frame: DataFrame, image: str, path: str, boxes: str | None) -> list[Column]:
    """Image, path, reason and boxes, each null where the frame has none."""
    absent = F.lit(None).cast("string")
    names = set(frame.columns)
    return [
        F.col(quoted(image)),
        F.col(quoted(path)).cast("string") if path in names else absent,
        F.col("reason").cast("string") if "reason" in names else absent,
        F.col(quoted(boxes)) if boxes else absent,
    ]


def _made_type(work: _Work) -> T.StructType:
    cell: T.DataType = T.BinaryType()
    if work.encode is None:
        cell = T.ShortType() if _holds_bytes(work.pipeline) else T.FloatType()
        for _ in range(work.rank):
            cell = T.ArrayType(cell)
    fields = [("image", cell), ("boxes", _NUMBERS), ("reason", T.StringType())]
    return T.StructType([T.StructField(name, kind) for name, kind in fields])


def _holds_bytes(pipeline: ImagePipeline) -> bool:
    return pipeline.dtype == np.uint8


def _outputs(frame: DataFrame, image: str, output: str, boxes: str | None) -> list[Column]:
    made = {output: F.col(_MADE)["image"]}
    if boxes:
        made[boxes] = F.col(_MADE)["boxes"]
    names = [*frame.columns, *([] if output in frame.columns else [output])]
    return [made.get(name, F.col(quoted(name))).alias(name) for name in names]


def _udf(work: _Work, kind: T.DataType) -> Callable[..., Column]:
    def transform(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
        return _transformed(batches, work)

    # What looks deterministic is worked out again for every filter and column that reads it.
    made: Any = arrow_udf(transform, kind)  # type: ignore[call-overload]
    return made.asNondeterministic()  # type: ignore[no-any-return]


# In the tasks


def _transformed(batches: Iterator[tuple[pa.Array, ...]], work: _Work) -> Iterator[pa.Array]:
    task = TaskContext.get()
    partition = task.partitionId() if task else 0
    pack = _pack_made if work.whole else _pack_flaws
    rows = itertools.count()
    for arrays in batches:
        some: list[tuple[int, _Made]] = []
        size = 0
        for cells in zip(*arrays, strict=True):
            number = next(rows)
            made = _make(work, _Row(*(cell.as_py() for cell in cells)), (partition, number))
            some.append((number, made if work.whole else made._replace(image=None)))
            size += _size(made) if work.whole else 0
            if size >= _BATCH_BYTES:
                yield pack(work, partition, some)
                some, size = [], 0
        if some:
            yield pack(work, partition, some)


def _make(work: _Work, row: _Row, key: tuple[int, int]) -> _Made:
    try:
        return _Made(*_through(work, row, key), None)
    except Exception as exc:  # noqa: BLE001 - whatever a step raises, the image is a bad one
        reason = str(exc) if isinstance(exc, InputError) else f"{type(exc).__name__}: {exc}"
        if work.on_error != "fail":
            return _Made(None, None, reason)
        where = repr(row.path) if row.path is not None else f"row {key[1]} of partition {key[0]}"
        raise InputError(
            "images that can be decoded",
            f"{where} ({reason})",
            'Repair or drop it, or choose on_error="skip" or "quarantine".',
        ) from exc


def _through(
    work: _Work, row: _Row, key: tuple[int, int]
) -> tuple[Any, npt.NDArray[np.float32] | None]:
    pipeline, data = work.pipeline, row.image
    boxes = decode_ndarray(row.boxes) if isinstance(row.boxes, bytes) else row.boxes
    if data is None:
        raise InputError("the bytes of an image file", row.reason or "null", "Drop the row.")
    if work.encode is not None:
        image, moved = pipeline.picture(data, boxes if work.with_boxes else None, key)
        return _encoded(image, work.encode), moved
    if not work.with_boxes:
        return _checked(pipeline(data, key), work), None
    array, moved = pipeline.with_boxes(data, boxes, key)
    return _checked(array, work), moved


def _encoded(image: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return buffer.getvalue()


def _checked(array: npt.NDArray[Any], work: _Work) -> npt.NDArray[Any]:
    if array.ndim != work.rank:
        raise InputError(
            f"an array of {work.rank} dimensions", f"one of shape {array.shape}", "Mend the steps."
        )
    if array.dtype.kind in "iu" and not np.array_equal(array.astype(_cell_type(work)), array):
        raise InputError(
            "an array of floats, or of whole numbers that float32 holds exactly, up to 2**24",
            f"{array.dtype} from {array.min()} to {array.max()}",
            "Scale it in the last step.",
        )
    return array


def _cell_type(work: _Work) -> type[np.int16 | np.float32]:
    return np.int16 if _holds_bytes(work.pipeline) else np.float32


def _size(made: _Made) -> int:
    if made.image is None:
        return 0
    return len(made.image) if isinstance(made.image, bytes) else int(made.image.nbytes)


def _pack_flaws(work: _Work, partition: int, some: Sequence[tuple[int, _Made]]) -> pa.Array:
    return pa.StructArray.from_arrays(
        [
            pa.array([partition] * len(some), pa.int32()),
            pa.array([number for number, _ in some], pa.int64()),
            pa.array([made.reason for _, made in some], pa.string()),
        ],
        names=["partition", "row", "reason"],
    )


def _pack_made(work: _Work, partition: int, some: Sequence[tuple[int, _Made]]) -> pa.Array:
    made = [one for _, one in some]
    if work.encode is not None:
        images = pa.array([one.image for one in made], pa.binary())
    else:
        images = _nested([one.image for one in made], work.rank, _cell_type(work))
    boxes = _nested([one.boxes for one in made], 2, np.float32)
    reasons = pa.array([one.reason for one in made], pa.string())
    return pa.StructArray.from_arrays([images, boxes, reasons], names=["image", "boxes", "reason"])


def _nested(arrays: Sequence[npt.NDArray[Any] | None], rank: int, dtype: Any) -> pa.Array:
    """Arrays of this rank, of any shapes, as nested lists; null where there is none."""
    there = [array for array in arrays if array is not None]
    flat = [array.reshape(-1).astype(dtype, copy=False) for array in there]
    nested = pa.array(np.concatenate(flat) if flat else np.empty(0, dtype))
    shapes = np.array([array.shape for array in there], np.int64).reshape(-1, rank)
    # How often each array repeats the lists of a level.
    repeats = np.cumprod(np.hstack([np.ones((len(there), 1), np.int64), shapes]), axis=1)
    for level in range(rank - 1, 0, -1):
        lengths = np.repeat(shapes[:, level], repeats[:, level])
        nested = pa.ListArray.from_arrays(_offsets(lengths), nested)
    missing = np.array([array is None for array in arrays], bool)
    outer = np.zeros(len(arrays), np.int64)
    outer[~missing] = shapes[:, 0]
    return pa.ListArray.from_arrays(_offsets(outer), nested, mask=pa.array(missing))


def _offsets(lengths: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
