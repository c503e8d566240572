"""Every block of Python on a page runs: the blocks of a page are one program."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# It goes on from the files of its example, which tests/examples runs.
NO_PROGRAM = ROOT / "docs" / "guides" / "million-images.md"
PAGES = {
    page.relative_to(ROOT).as_posix(): found
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
    if page != NO_PROGRAM and (found := BLOCKS.findall(page.read_text()))
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(
    page: str, run_program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    # What a page writes belongs here.
    place = f"import os\nos.chdir({str(tmp_path)!r})\n"
    program.write_text(place + "\n".join(PAGES[page]))
    done = run_program(program)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_no_page_was_missed() -> None:
    assert sum(map(len, PAGES.values())) >= 56
