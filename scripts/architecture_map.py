"""Write the map of folders into `docs/architecture.md`, from the docstrings of the packages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- map, written by `make format` -->", "<!-- end of the map -->"
COLUMN = 24


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A package and those inside it, each with the first line of its docstring."""
    says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    name = f"{'  ' * depth}{folder.name if depth else 'src/zoo'}/"
    yield f"{name:<{COLUMN}}{says.partition(chr(10))[0]}".rstrip()
    for inside in sorted(folder.glob("*/__init__.py")):
        yield from lines(inside.parent, depth + 1)


def with_map(page: str) -> str:
    """The text of the page with the map as it should be."""
    drawn = "\n".join([BEGIN, "", "```text", *lines(ROOT / "src" / "zoo"), "```", "", END])
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: drawn, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
