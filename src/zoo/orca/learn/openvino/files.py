"""The two files of a model: written both or none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import openvino

from zoo.errors import ContractError
from zoo.orca.data.storage import Location, locate
from zoo.orca.learn.driver.keeper import write_whole

__all__ = ["graph_files", "model_place", "write_files"]


def model_place(path: Any) -> Location:
    """Where a model goes.

    Raises:
        ContractError: The path does not end in .xml.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).endswith(".xml"):
        raise ContractError(
            "a path that ends in .xml", repr(path), "The weights go beside it, in a .bin file."
        )
    return locate(path)


def graph_files(graph: Any) -> tuple[bytes, bytes]:
    """The content of both files of a graph, with weights as they are."""
    with tempfile.TemporaryDirectory(prefix="zoo-model-") as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(graph, str(xml), compress_to_fp16=False)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()


def write_files(place: Location, files: tuple[bytes, bytes]) -> None:
    """Write both; the .xml file, without which there is no model, comes last."""
    xml, weights = files
    place.unlink(missing_ok=True)  # never a graph beside the weights of another
    write_whole(str(place.with_suffix(".bin")), weights)
    write_whole(str(place), xml)
