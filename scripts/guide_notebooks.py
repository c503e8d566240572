"""Make a notebook of every guide whose blocks are a program: `guide_notebooks.py FOLDER`.

The page is the source, whose blocks the tests run; the site offers the notebook beside it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import v4

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def notebook_of(page: str) -> nbformat.NotebookNode:
    """A cell for each block of Python, and one for the text before it.

    Args:
        page: A page in Markdown.
    """
    cells = []
    for number, part in enumerate(_PYTHON.split(page)):
        if not (text := part.strip()):
            continue
        # Links to other pages lead nowhere from a file that somebody has taken home.
        cell = v4.new_code_cell(text) if number % 2 else v4.new_markdown_cell(_unlinked(text))
        cell["id"] = f"part-{number}"  # the same at every run
        cells.append(cell)
    return v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def _unlinked(text: str) -> str:
    return re.sub(r"!?\[([^\]]*)\]\((?!https?:)[^)]*\)", r"*\1*", text)


def programs() -> dict[str, str]:
    """The guides that have blocks of Python, by name."""
    pages = {page.stem: page.read_text() for page in sorted(GUIDES.glob("*.md"))}
    return {name: page for name, page in pages.items() if _PYTHON.search(page)}


def write_notebooks(folder: Path) -> None:
    """Write the notebooks of all guides."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in programs().items():
        nbformat.write(notebook_of(page), folder / f"{name}.ipynb")


if __name__ == "__main__":
    write_notebooks(Path(sys.argv[1]))
