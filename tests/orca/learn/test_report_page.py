"""The page of a fit: all of it is there, nothing that data wrote is markup."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from zoo.errors import InputError
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.learn.history import History
from zoo.orca.learn.report import End, FitReport, RankTimes, RoundFacts
from zoo.orca.learn.report_page import FitFacts, render_page

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>$\\frac$&amp;'
REPORT = FitReport(
    10.0, 1.0, 3.0, 5.5, 1_000, 3, 80_000,
    (RankTimes(0, 1_500, 0.2, 1.0, 3.5, 1.0, seconds=5.5, steps=60, host="alpha"),
     RankTimes(1, 1_500, 0.3, 0.5, 4.0, 1.0, seconds=5.5, steps=60, host="beta")),
    validate_s=0.5, shards=4, validation_rows=200,
)  # fmt: skip
MATRIX = [[40, 2, 0], [1, 30, 9], [0, 0, 18]]


def history(name: str = "val_Accuracy", count: int = 3) -> History:
    return History(
        {"epoch": k + 1, "train_loss": 1 / (k + 1), "val_loss": 1.2 / (k + 1), name: 0.5 + k / 10}
        for k in range(count)
    )


def plan(column: str = "area") -> TensorPlan:
    def spec(name: str) -> TensorSpec:
        return TensorSpec((ColumnPlan(name, "scalar", "float32"),), "float32", ())

    return TensorPlan((spec(column),), (spec("rent"),))


def facts(**changes: object) -> FitFacts:
    made = FitFacts(history(), REPORT, plan(), {"batch_size": 64, "seed": 7})
    return replace(made, **changes)  # type: ignore[arg-type]


class Tags(HTMLParser):
    """All elements of a page, with what they refer to; raises where they are not well nested."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.refers: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.refers.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]+)</h2>", page)


def test_a_fit_is_shown_whole() -> None:
    page = render_page(facts(), title="Rents")
    assert headings(page) == ["Training", "How good it is", "Where the time went", "What was run"]
    for text in ("Rents", "alpha", "beta", "preparing data 1.00 s", "seed", "area", "numpy"):
        assert text in page
    assert "3 epochs of 1,000 rows in 10.00 s" in page
    assert page.count("<svg") == 2


def test_a_module_of_a_package_with_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package here is tensorflow-cpu."""
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    page = render_page(facts(), title="Rents")
    assert "numpy" in page
    assert "tensorflow" not in page


def test_it_needs_no_other_file_and_no_network() -> None:
    sections = {"picture": Figure(figsize=(1, 1))}
    tags = Tags(render_page(facts(), title="Rents", sections=sections))
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in tags.refers)
    assert not {"script", "link", "iframe"} & set(tags.found)


def test_what_data_wrote_is_text() -> None:
    odd = facts(
        history=history(f"val_{HOSTILE}"),
        plan=plan(HOSTILE),
        settings={HOSTILE: HOSTILE},
        evaluation={HOSTILE: 0.5, "ConfusionMatrix": MATRIX, "num_samples": 100},
        report=replace(REPORT, ranks=(replace(REPORT.ranks[0], host=HOSTILE),)),
    )
    table = pd.DataFrame({HOSTILE: [HOSTILE]})
    sections = {HOSTILE: HOSTILE, f"{HOSTILE} 2": table, f"{HOSTILE} 3": Figure(figsize=(1, 1))}
    page = render_page(odd, title=HOSTILE, classes=[HOSTILE] * 3, sections=sections)
    tags = Tags(page)
    assert not tags.handlers
    assert "script" not in tags.found
    assert all(not link.startswith("x") for link in tags.refers)
    assert tags.found.count("img") == 1


def test_a_confusion_matrix_tells_its_mistakes() -> None:
    found = {"Accuracy": 0.88, "ConfusionMatrix": MATRIX, "num_samples": 100}
    page = render_page(facts(evaluation=found), title="x", classes=["a", "b", "c"])
    assert "an evaluation of 100 rows" in page
    first = page[page.index("Most frequent mistakes") :]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", first)
    assert cells[:6] == ["b", "c", "9", "a", "b", "2"]
    assert cells[9:17] == ["a", "42", "95.2%", "97.6%", "b", "40", "75.0%", "93.8%"]


def test_a_matrix_of_validation_is_shown_without_an_evaluation() -> None:
    epochs = history()
    epochs[-1]["val_ConfusionMatrix"] = MATRIX
    page = render_page(facts(history=epochs), title="x")
    assert "Of the validation data after epoch 3." in page
    assert "Most frequent mistakes" in page


@pytest.mark.parametrize("classes", [1, 2, 40, 300])
def test_matrices_of_any_size(classes: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 50, (classes, classes)).tolist()
    page = render_page(facts(evaluation={"ConfusionMatrix": matrix}), title="x", classes=["only"])
    Tags(page)
    assert len(page) < 400_000


def test_pairs_are_drawn() -> None:
    pairs = np.random.default_rng(0).normal(size=(200, 2)).tolist()
    found = {"MAE": 0.1, "PredictionPairs": [*pairs, [1.0, float("nan")]], "num_samples": 201}
    page = render_page(facts(evaluation=found), title="x")
    assert "1 more are no finite numbers." in page
    assert "predicted minus true" in page
    assert page.count("<svg") == 4


@pytest.mark.parametrize("value", [[], [[1.0, float("inf")]], [[1.0, 1.0]]])
def test_few_pairs_and_none(value: list[list[float]]) -> None:
    Tags(render_page(facts(evaluation={"PredictionPairs": value}), title="x"))


def test_an_evaluation_alone_is_shown() -> None:
    page = render_page(FitFacts(evaluation={"MAE": 0.25, "num_samples": 9}), title="x")
    assert headings(page) == ["How good it is", "What was run"]


def test_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="Call fit or evaluate first"):
        render_page(FitFacts(), title="x")


def test_a_section_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="ndarray for 'rows'"):
        render_page(facts(), title="x", sections={"rows": np.zeros(3)})


def test_numbers_that_are_none_are_shown() -> None:
    epochs = History([{"epoch": 1, "train_loss": float("nan"), "val_loss": float("inf")}])
    page = render_page(facts(history=epochs), title="x")
    assert "<b>nan</b>" in page
    Tags(page)


def test_rounds_are_shown_when_there_were_several() -> None:
    rounds = (RoundFacts(2, 1.5, 6.0, End.RANK_LOST), RoundFacts(1, 0.5, 3.0, End.DONE))
    page = render_page(facts(report=replace(REPORT, rounds=rounds)), title="x")
    assert "a rank was lost" in page
    assert "a rank was lost" not in render_page(facts(), title="x")


def test_signs_that_a_font_lacks_do_no_harm() -> None:
    page = render_page(facts(history=history("val_精度")), title="x")
    assert "精度" in page


def test_the_template_is_part_of_the_package() -> None:
    root = Path(__file__).parents[3]
    declared = (root / "pyproject.toml").read_text()
    for path in (root / "src" / "zoo").rglob("*.jinja2"):
        pattern = path.relative_to(root / "src" / "zoo").with_name("*.jinja2").as_posix()
        assert f'"{pattern}"' in declared


@pytest.mark.slow
@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(
    fresh_python: Callable[..., subprocess.CompletedProcess[str]], package: str
) -> None:
    program = f"""
import sys
from zoo.errors import MissingExtraError
from zoo.orca.learn.report_page import FitFacts, render_page
sys.modules[{package!r}] = None
try:
    render_page(FitFacts(evaluation={{"MAE": 1.0}}), title="x")
except MissingExtraError as exc:
    print(exc)
"""
    done = fresh_python(program)
    assert "pip install 'zoo[report]'" in done.stdout, done.stderr
