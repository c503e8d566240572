"""ImageNet as TFRecord files: written by Spark tasks without TensorFlow, read with or without it.

The files are those that TensorFlow's own programs for ImageNet make and expect: 1024 of
`train/train-00000-of-01024` and 128 of `validation/validation-00000-of-00128`, each of
`tf.train.Example` messages with the keys `image/encoded`, `image/class/label` and so on.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import random
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from PIL import Image

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import ClusterError, ContractError, InputError, ZooError, load_extra
from zoo.orca.data.image.formats.imagenet import SPLITS, Entry, list_split, number_synsets
from zoo.orca.data.image.formats.tfrecord_file import (
    decode_example,
    encode_example,
    read_records,
    write_records,
)
from zoo.orca.data.image.image_decoder import in_mode
from zoo.orca.data.image.writing.verify import check_image
from zoo.orca.data.storage import Location, locate

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["read_examples", "read_tfrecord", "write_tfrecord"]

_log = logging.getLogger(__name__)

_FILE = re.compile(r"^(train|validation)-([0-9]{5})-of-([0-9]{5})$")
_DRAFT = re.compile(r"^\.(train|validation)-[0-9]{5}-of-[0-9]{5}\.[0-9a-f]{32}$")
_MODES = ("overwrite", "error", "errorifexists", "ignore")
_FAILED = "_failed"
# What reading or decoding a file raises, and what Pillow lets through on damaged ones.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error)


class _Written(NamedTuple):
    """What a task tells the driver: its records, the images left out, or why it has none."""

    records: int = 0
    skipped: int = 0
    error: ZooError | None = None


def write_tfrecord(format: str, output_path: str, *args: Any, **kwargs: Any) -> None:
    """Write a dataset as TFRecord files, with a Spark task for each file.

    Args:
        format: "imagenet".
        output_path: The folder in which the folders `train` and `validation` will be.
        *args: Refused: the format takes keywords.
        **kwargs: `imagenet_path`, the folder of ImageNet (see `write_imagenet`), is needed.
            `train_files=1024` and `validation_files=128` are the numbers of files, `splits` those
            to write, `seed=0` decides the order of the training images. `write_mode` is
            "overwrite", "error" or "errorifexists", or "ignore", `on_error` "fail" or "skip".

    Raises:
        InputError: The format or a keyword is unknown, or an image cannot be used.
        ContractError: `imagenet_path` is missing.
    """
    _call(_WRITERS, format, args, {"output_path": output_path, **kwargs})


def read_tfrecord(format: str, path: str, *args: Any, **kwargs: Any) -> tf.data.Dataset:
    """Read TFRecord files as a `tf.data.Dataset` of serialized examples.

    Args:
        format: "imagenet".
        path: The folder of the files, or the one that `write_tfrecord` wrote.
        *args: Refused: the format takes keywords.
        **kwargs: `is_training` is needed: True for the training files, in an order that is drawn
            anew for each epoch from `seed=0`, False for those of validation, in their order.
            Records of several files are interleaved.

    Raises:
        InputError: The format or a keyword is unknown, or files are missing.
        ContractError: `is_training` is missing.
        MissingExtraError: TensorFlow is not installed.
    """
    return _call(_READERS, format, args, {"path": path, **kwargs})


def read_examples(path: str, *, is_training: bool) -> Iterator[dict[str, list[Any]]]:
    """Read ImageNet's TFRecord files as dicts of lists, without TensorFlow, in the files' order.

    Args:
        path: As in `read_tfrecord`.
        is_training: True for the training files, False for those of validation.

    Raises:
        InputError: Files are missing or damaged.
    """
    files = _find_files(path, _split(is_training))
    return (decode_example(record) for file in files for record in read_records(file))


def _call(
    formats: Mapping[str, Callable[..., Any]], name: str, args: Any, given: dict[str, Any]
) -> Any:
    """Call what serves a format, once its keywords are known to be right."""
    if name not in formats:
        raise InputError(f"a format of {sorted(formats)}", repr(name), "Choose one of them.")
    if args:
        raise InputError("keywords after the path", repr(args), "Name each argument.")
    known = inspect.signature(formats[name]).parameters
    for keyword, parameter in known.items():
        if parameter.default is parameter.empty and keyword not in given:
            raise ContractError(
                f"the keyword {keyword} for format {name!r}", str(sorted(given)), "Add it."
            )
    unknown = given.keys() - known.keys()
    if unknown:
        raise InputError(f"keywords of {list(known)}", str(sorted(unknown)), "Correct them.")
    return formats[name](**given)


# Writing


def _write_imagenet(  # noqa: PLR0913 - one keyword for each choice, like the other formats
    output_path: str,
    imagenet_path: str,
    *,
    train_files: int = 1024,
    validation_files: int = 128,
    splits: Sequence[str] = SPLITS,
    seed: int = 0,
    write_mode: str = "overwrite",
    on_error: Literal["fail", "skip"] = "fail",
) -> None:
    if not imagenet_path:
        raise ContractError("imagenet_path as a folder", repr(imagenet_path), "Name it.")
    if on_error not in ("fail", "skip"):
        raise InputError("on_error 'fail' or 'skip'", repr(on_error), "Choose one of them.")
    if not splits:
        raise InputError(f"splits of {SPLITS}", repr(splits), "Name at least one.")
    root, target = locate(imagenet_path), locate(output_path)
    files = {"train": train_files, "validation": validation_files}
    for split in splits:
        if split not in files:
            raise InputError(f"splits of {SPLITS}", repr(split), "Choose of them.")
        _check_count(split, files[split])
    wanted = [split for split in splits if _should_write(target / split, write_mode)]
    entries = {split: list_split(root, split) for split in wanted}
    # From 1: TensorFlow's programs keep 0 for what is in no class.
    labels = {synset: number + 1 for synset, number in number_synsets(root).items()}
    if "train" in entries:
        random.Random(seed).shuffle(entries["train"])
    for split in wanted:
        _clear(target / split)
        make = partial(_make_file, root, target / split, labels, on_error)
        _write_split(split, target / split, _share_out(split, entries[split], files[split]), make)


def _check_count(split: str, count: int) -> None:
    if not isinstance(count, int) or not 1 <= count < 10**5:
        raise InputError(f"{split}_files from 1 to 99999", repr(count), "Give a number.")


def _should_write(folder: Location, write_mode: str) -> bool:
    if write_mode not in _MODES:
        raise InputError(f"write_mode as one of {_MODES}", repr(write_mode), "Choose one of them.")
    if write_mode == "overwrite" or not _record_files(folder):
        return True
    if write_mode != "ignore":
        raise InputError(
            "an output folder without record files", str(folder), "Pass write_mode='overwrite'."
        )
    _log.info("%s has record files: nothing is written", folder)
    return False


def _record_files(folder: Location) -> list[Location]:
    if not folder.is_dir():
        return []
    return sorted((entry for entry in folder.iterdir() if _FILE.match(entry.name)), key=_name)


def _name(file: Location) -> str:
    return file.name


def _clear(folder: Location) -> None:
    """Remove old record files, so that a write that stops does not leave a mixture."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files: list[Location] = list(folder.iterdir())
        for file in files:
            if _FILE.match(file.name) or _DRAFT.match(file.name) or file.name == _FAILED:
                file.unlink()
    except OSError as exc:
        raise InputError(
            "an output folder that can be written", f"{str(folder)!r} ({exc})", "Name another."
        ) from exc


def _share_out(split: str, entries: Sequence[Entry], count: int) -> list[tuple[str, list[Entry]]]:
    """Cut images into as many files, whose numbers of records differ by one at most."""
    ends = [number * len(entries) // count for number in range(count + 1)]
    return [
        (f"{split}-{number:05d}-of-{count:05d}", list(entries[ends[number] : ends[number + 1]]))
        for number in range(count)
    ]


def _write_split(
    split: str,
    folder: Location,
    parts: Sequence[tuple[str, list[Entry]]],
    make: Callable[[tuple[str, list[Entry]]], _Written],
) -> None:
    context = active_session().sparkContext
    written = context.parallelize(parts, len(parts)).map(make).collect()
    (folder / _FAILED).unlink(missing_ok=True)
    for result in written:
        if result.error is not None:
            raise result.error
    if len(_record_files(folder)) != len(parts):
        raise ClusterError(
            "an output folder on storage that all hosts share",
            f"{folder}, where the driver does not see all files",
            "Write to a folder that every host mounts.",
        )
    records, skipped = (sum(column) for column in list(zip(*written, strict=True))[:2])
    _log.info("wrote %d records of split %s in %d files", records, split, len(parts))
    if skipped:
        _log.warning("skipped %d bad images of split %s", skipped, split)


def _make_file(
    root: Location,
    folder: Location,
    labels: Mapping[str, int],
    on_error: str,
    part: tuple[str, list[Entry]],
) -> _Written:
    """Write one file in a task; it gets its name when it is whole."""
    name, entries = part
    if (folder / _FAILED).exists():
        return _Written()
    draft = folder / f".{name}.{uuid.uuid4().hex}"
    skipped: list[str] = []
    try:
        records = write_records(draft, _examples(root, labels, entries, on_error, skipped))
        draft.rename(folder / name)  # type: ignore[arg-type]
    except ZooError as exc:
        return _failed(folder, draft, exc)
    except OSError as exc:
        return _failed(folder, draft, _not_written(folder / name, exc))
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return _Written(records, len(skipped))


def _failed(folder: Location, draft: Location, error: ZooError) -> _Written:
    """End a task. What failed fails again: nobody need retry it, or write what still waits."""
    with contextlib.suppress(OSError):
        (folder / _FAILED).touch()
        draft.unlink(missing_ok=True)
    return _Written(error=error)


def _not_written(file: Location, exc: OSError) -> ClusterError:
    return ClusterError(
        "an output folder that every host can write", f"{str(file)!r} ({exc})", "Make room there."
    )


def _examples(
    root: Location,
    labels: Mapping[str, int],
    entries: Sequence[Entry],
    on_error: str,
    skipped: list[str],
) -> Iterator[bytes]:
    for name, synset in entries:
        file = root / name
        try:
            data, width, height = _as_jpeg(file)
        except InputError as exc:
            if on_error == "fail":
                raise
            _log.warning("skipped %s: %s", file, exc)
            skipped.append(name)
            continue
        yield encode_example(
            {
                "image/encoded": data,
                "image/height": height,
                "image/width": width,
                "image/channels": 3,
                "image/colorspace": "RGB",
                "image/format": "JPEG",
                "image/filename": PurePosixPath(name).name,
                "image/class/label": labels[synset],
                "image/class/synset": synset,
            }
        )


def _as_jpeg(file: Location) -> tuple[bytes, int, int]:
    """Read an image; ImageNet has a PNG and some CMYK among its files, which become RGB JPEG.

    Of 16 bits a channel the upper 8 stay, as JPEG has no more.
    """
    try:
        data = file.read_bytes()
        reason = check_image(data)
        if reason is not None:
            raise ValueError(reason)
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            if image.format == "PNG" or image.mode == "CMYK":
                buffer = io.BytesIO()
                in_mode(image, "RGB", "scale").save(buffer, "JPEG", quality=100)
                data = buffer.getvalue()
    except _DAMAGE as exc:
        raise InputError(
            "a JPEG or PNG file that every host can read", f"{str(file)!r} ({exc})", "Replace it."
        ) from exc
    return data, width, height


# Reading


def _read_imagenet(path: str, is_training: bool, seed: int = 0) -> tf.data.Dataset:
    tf = load_extra("tensorflow", "tensorflow")
    files = [str(file) for file in _find_files(path, _split(is_training))]
    names = tf.data.Dataset.from_tensor_slices(files)
    if is_training:
        names = names.shuffle(len(files), seed=seed, reshuffle_each_iteration=True)
    return names.interleave(
        tf.data.TFRecordDataset,
        cycle_length=min(16, len(files)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _split(is_training: bool) -> str:
    if not isinstance(is_training, bool):
        raise InputError("is_training as True or False", repr(is_training), "Choose one of them.")
    return SPLITS[not is_training]


def _find_files(path: str, split: str) -> list[Location]:
    """The files of a split, all of them: a missing one would be training data lost in silence."""
    folder = locate(path)
    found = [
        file
        for place in (folder, folder / split)
        for file in _record_files(place)
        if file.name.startswith(f"{split}-")
    ]
    counts = {file.name.rpartition("-")[2] for file in found}
    expected = [
        f"{split}-{number:05d}-of-{count}" for count in counts for number in range(int(count))
    ]
    if not found or sorted(map(_name, found)) != sorted(expected):
        raise InputError(
            f"one whole set of files {split}-00000-of-N, ...",
            f"{folder} with {len(found)} of {len(expected)}",
            "Check the path; an unfinished write leaves fewer. Write the files again.",
        )
    return sorted(found, key=_name)


_WRITERS: dict[str, Callable[..., None]] = {"imagenet": _write_imagenet}
_READERS: dict[str, Callable[..., Any]] = {"imagenet": _read_imagenet}
