"""ONNX out of torch; as a program, of a Keras model that is opened on torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from zoo.orca.learn.score.conversion import GivenModel

__all__ = ["onnx_of"]


def onnx_of(given: GivenModel) -> bytes:
    """A model that torch computes as ONNX, with its weights in it and an open number of rows."""
    import torch

    module, shapes = given.exportable()
    example = tuple(torch.from_numpy(array) for array in given.sample)
    program = torch.onnx.export(module, example, dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def main(model: str, rows: str, made: str) -> None:
    """Export a file of Keras.

    Args:
        model: The file.
        rows: Arrays, as NumPy's archive.
        made: The ONNX file to write.
    """
    import keras

    with np.load(rows, allow_pickle=False) as held:
        sample = [held[name] for name in held.files]
    opened = keras.saving.load_model(model, safe_mode=True, compile=False)
    Path(made).write_bytes(onnx_of(GivenModel(opened, sample)))


if __name__ == "__main__":
    main(*sys.argv[1:])
