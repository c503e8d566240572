"""Every block of Python on a page runs: the blocks of a page are one program."""

import json
import re
import subprocess
import sys
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
# One JVM has them all: a start of Spark and the imports of each page are most of its time.
RUN_ALL = """
import json, os, runpy, sys, traceback
from pathlib import Path
from zoo.orca import stop_orca_context

told = {}
for program in sorted(Path(__file__).parent.glob("*/page.py")):
    os.chdir(program.parent)  # what a page writes belongs there
    try:
        runpy.run_path(str(program), run_name="__main__")
        told[program.parent.name] = ""
    except BaseException:
        told[program.parent.name] = traceback.format_exc()
    stop_orca_context()
Path(__file__).with_suffix(".json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(
    run_program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What went wrong on each page, by its number."""
    folder = tmp_path_factory.mktemp("pages")
    for number, blocks in enumerate(PAGES.values()):
        place = folder / str(number)
        place.mkdir()
        (place / "page.py").write_text("\n".join(blocks))
    program = folder / "all.py"
    program.write_text(RUN_ALL)
    done = run_program(program)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, str] = json.loads(program.with_suffix(".json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page: str, told: dict[str, str]) -> None:
    assert told[str([*PAGES].index(page))] == ""


def test_no_page_was_missed() -> None:
    assert sum(map(len, PAGES.values())) >= 62


def test_every_guide_is_a_notebook(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "guide_notebooks.py", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    guides = (ROOT / "docs" / "guides").glob("*.md")
    guides = {page.stem for page in guides if BLOCKS.search(page.read_text())}
    assert {path.stem for path in tmp_path.iterdir()} == guides
    for path in tmp_path.iterdir():
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        blocks = BLOCKS.findall((ROOT / "docs" / "guides" / f"{path.stem}.md").read_text())
        assert code == [block.strip() for block in blocks]
        texts = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        assert "```python" not in texts
        assert "](" not in texts.replace("](http", "")
