"""A rank runs where neither PySpark nor Java is installed: only its launcher may know them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RANKS = Path(__file__).parents[3] / "src" / "zoo" / "cluster" / "ranks"
NEUTRAL = sorted(path for path in RANKS.glob("*.py") if path.name != "spark.py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", NEUTRAL, ids=lambda path: path.name)
def test_only_the_launcher_of_spark_imports_pyspark(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & {"pyspark", "py4j"}


def test_ranks_run_without_pyspark() -> None:
    program = """
import sys
for name in ("pyspark", "py4j"):
    sys.modules[name] = None
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import launcher_for
from zoo.cluster.ranks.round import launch
body = pickled(lambda member: (b"%d" % member.rank, {}), "it")
print([r.payload for r in launch(body, launcher=launcher_for("local"), ranks=2, per_executor=2)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[b'0', b'1']\n", done.stderr
