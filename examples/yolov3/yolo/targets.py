"""Targets: which cell and anchor stands for which object; and boxes from what a network says."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from yolo.boxes import Array
from zoo.errors import InputError

__all__ = ["Targets", "assign", "decode", "padded"]

# exp() of this is a box of thousands of anchors: more would be no number.
_MOST_LOG = 8.0


def padded(rows: Array, most: int, owner: str) -> Array:
    """Objects (n, 5) of an image as an array (most, 5), in which rows of zeros are no objects.

    Raises:
        InputError: There are more: they would be learned as background.
    """
    if len(rows) > most:
        raise InputError(f"at most {most} objects", f"{len(rows)} ({owner})", "Raise the limit.")
    return np.pad(rows, ((0, most - len(rows)), (0, 0)))


class Targets(NamedTuple):
    """What is wanted of the boxes of an output that stand for objects: tensors (batch, objects).

    Attributes:
        slot: The place of the box among all of the output, by row, column and anchor.
        taken: 1 where the object is this output's, else 0.
        place: (..., 2): where the middle lies in its cell, from 0 to 1.
        size: (..., 2): logarithms of width and height in anchors.
        scale: 2 less the area, so that small objects count more (as Darknet has it).
    """

    slot: Any
    taken: Any
    place: Any
    size: Any
    scale: Any


def assign(boxes: Any, anchors: Array, mask: tuple[int, ...], cells: int) -> Targets:
    """Give each object to the anchor whose shape is most like its own, in the cell of its middle.

    Where two objects of an image want one box, the later one has it.

    Args:
        boxes: (batch, objects, 4) corners relative to the square; no object has no area.
        anchors: All of the network, as parts of the square's side.
        mask: Those of this output.
        cells: Of a side of this output.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    middle = (boxes[..., 2:] + boxes[..., :2]) / 2
    valid = ops.all(size > 0, axis=-1)
    size = ops.where(valid[..., None], size, 1.0)
    priors = ops.convert_to_tensor(anchors, size.dtype)
    shared = ops.prod(ops.minimum(size[..., None, :], priors), axis=-1)
    areas = ops.prod(size, axis=-1, keepdims=True) + ops.prod(priors, axis=-1)
    best = ops.argmax(shared / (areas - shared), axis=-1)
    # Among those of this output; no number of it where the anchor is another's.
    own = ops.cast(ops.equal(best[..., None], ops.convert_to_tensor(mask, best.dtype)), size.dtype)
    number = ops.cast(ops.argmax(own, axis=-1), "int32")
    at = ops.minimum(ops.floor(middle * cells), cells - 1)
    row, column = ops.cast(at[..., 1], "int32"), ops.cast(at[..., 0], "int32")
    slot = (row * cells + column) * len(mask) + number
    taken = ops.cast(valid, size.dtype) * ops.sum(own, axis=-1)
    mine = ops.sum(own[..., None] * ops.take(priors, np.array(mask), axis=0), axis=-2)
    wanted = ops.log(size / ops.where(taken[..., None] > 0, mine, 1.0))
    return Targets(
        slot,
        taken * (1 - _overtaken(slot, taken)),
        middle * cells - at,
        wanted,
        2 - ops.prod(size, axis=-1),
    )


def _overtaken(slot: Any, taken: Any) -> Any:
    """1 for objects whose box a later one wants, too."""
    count = slot.shape[1]
    later = np.triu(np.ones((count, count), "float32"), 1)
    same = ops.cast(ops.equal(slot[:, :, None], slot[:, None, :]), taken.dtype)
    return ops.max(same * ops.cast(later, taken.dtype) * taken[:, None, :], axis=-1)


def decode(outputs: Any, anchors: Array, mask: tuple[int, ...]) -> Any:
    """Corners (batch, cells * cells * anchors, 4) from an output of the network.

    Args:
        outputs: (batch, cells, cells, anchors, 5 + classes).
        anchors: All of the network, as parts of the square's side.
        mask: Those of this output.
    """
    cells, count = outputs.shape[1], len(mask)
    rows, columns = np.mgrid[:cells, :cells]
    corner = np.stack([columns, rows], axis=-1)[:, :, None]
    # Tensors, since torch's do not mix with arrays while there are gradients.
    corner = ops.convert_to_tensor(corner, outputs.dtype)
    priors = ops.convert_to_tensor(anchors[list(mask)], outputs.dtype)
    middle = (ops.sigmoid(outputs[..., :2]) + corner) / cells
    half = ops.exp(ops.minimum(outputs[..., 2:4], _MOST_LOG)) * priors / 2
    corners = ops.concatenate([middle - half, middle + half], axis=-1)
    return ops.reshape(corners, (-1, cells * cells * count, 4))
