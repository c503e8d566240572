import json

import numpy as np
import pytest

from zoo.orca.learn.score.packing import packed, unpacked


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, -0.0, np.nan, np.inf, 5e-324]),
        np.zeros(0),
        np.frombuffer(b"\x00\xff\x80", np.uint8),
        np.array([2**63 - 1]),
    ],
)
def test_comes_back_to_the_last_bit(array: np.ndarray) -> None:
    back = unpacked(json.loads(json.dumps(packed(array))))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


def test_no_objects() -> None:
    with pytest.raises(ValueError, match="[Oo]bject arrays cannot be saved"):
        packed(np.array([object()]))
