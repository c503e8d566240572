from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zoo.orca import OrcaContext


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a text file, and return its path."""

    def write_text(text: str | bytes, name: str = "a.csv") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_text


@pytest.fixture
def pandas_backend() -> Iterator[None]:
    before = OrcaContext.pandas_read_backend
    OrcaContext.pandas_read_backend = "pandas"
    yield
    OrcaContext.pandas_read_backend = before
