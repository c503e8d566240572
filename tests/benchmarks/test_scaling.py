"""The benchmark of agreement keeps working; its figures are nobody's gate."""

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scaling.py"
KIB, MIB = 1024, 1024**2
Run = Callable[..., subprocess.CompletedProcess[str]]
SIZES = [4 * KIB * 4**k for k in range(8)]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("agreement.model")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("agreement.report")


# The fit


def timed(model: ModuleType, of: Any, noise: float = 0.0) -> list[Any]:
    """Sums that take what the function says, with errors of both signs in turn."""
    pairs = [(ranks, size) for ranks in (2, 4, 8) for size in SIZES]
    return [
        model.Point(ranks, size, of(ranks, size) * (1 + noise * (-1) ** k))
        for k, (ranks, size) in enumerate(pairs)
    ]


def ring_s(ranks: int, size: int) -> float:
    return 2 * (ranks - 1) * 40e-6 + 2 * (ranks - 1) / ranks * size * 0.5e-9


def test_fit_recovers_alpha_and_beta(model: ModuleType) -> None:
    found = model.fit(model.ring_terms(cores=8), timed(model, ring_s))
    assert found.constants == pytest.approx((40e-6, 0.5e-9))


def test_fit_bears_noise(model: ModuleType) -> None:
    points = timed(model, ring_s, noise=0.1)
    found = model.fit(model.ring_terms(cores=8), points)
    assert found.constants == pytest.approx((40e-6, 0.5e-9), rel=0.1)
    assert model.errors(found.seconds, points)[0] == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("constants", [(0.0, 1e-9), (1e-4, 0.0)], ids=["bytes", "messages"])
def test_all_costs_more_when_ranks_share_cores(
    model: ModuleType, constants: tuple[float, float]
) -> None:
    crowded = model.Fit(model.ring_terms(cores=2), constants)
    free = model.Fit(model.ring_terms(cores=8), constants)
    ratios = [crowded.seconds(n, MIB) / free.seconds(n, MIB) for n in (2, 4, 8)]
    assert ratios == pytest.approx([1, 2, 4])


def test_constants_are_never_negative(model: ModuleType) -> None:
    points = timed(model, lambda ranks, size: size * 1e-9 / ranks**3)
    assert min(model.fit(model.ring_terms(cores=8), points).constants) == 0.0


def test_fit_of_memory_recovers_its_constants(model: ModuleType) -> None:
    truth = model.Fit(model.memory_terms(cores=2), (5e-6, 300e-6, 0.1e-9))
    found = model.fit(truth.terms, timed(model, truth.seconds))
    assert found.constants == pytest.approx(truth.constants)


def test_two_levels_are_the_sum_of_both(model: ModuleType) -> None:
    memory = model.Fit(model.memory_terms(cores=4), (5e-6, 300e-6, 0.1e-9))
    ring = model.Fit(model.ring_terms(cores=4), (40e-6, 0.5e-9))
    seconds = model.two_levels(memory, ring, hosts=2, cores=4)
    # Two ranks on the two cores of each host: three waits, and 5.5 S; then a ring of two.
    assert seconds(4, MIB) == pytest.approx(15e-6 + 5.5e-10 * MIB + ring_s(2, MIB))


def test_errors_are_relative(model: ModuleType) -> None:
    points = [model.Point(2, KIB, seconds) for seconds in (1.0, 2.0, 4.0)]
    assert model.errors(lambda *_: 2.0, points) == pytest.approx((0.5, 1.0))
    assert model.errors(lambda *_: 2.0, []) is None


def test_bytes_on_paper(model: ModuleType) -> None:
    assert model.ring_bytes(4, 1000) == 1500
    assert model.touched_bytes(2, KIB) == 5 * KIB
    assert model.touched_bytes(4, MIB) == 6.25 * MIB
    assert model.touched_bytes(2, KIB, led=True) == 5.5 * KIB


def test_efficiency_falls_with_time(model: ModuleType) -> None:
    assert model.efficiency(0.5, 0.0) == 1.0
    assert model.efficiency(0.5, 0.5) == 0.5


# The findings


def found_with(report: ModuleType, excess: float = 1.0) -> Any:
    """Findings of sums that follow the ring exactly and send so many times its bytes."""
    sums, steps = [], []
    for ranks in (2, 4):
        for way, hosts in ((report.MEMORY, 1), (report.NETWORK, ranks)):
            for size in SIZES:
                sent = excess * report.ring_bytes(hosts, size)
                sums.append(report.Sum(way, ranks, hosts, size, ring_s(ranks, size), sent))
            steps.append(report.Step(way, ranks, 1024, True, 1e-3, 1e-4))
    return report.findings(4, sums, steps)


def test_held_out_sizes_have_errors_of_their_own(report: ModuleType) -> None:
    found = found_with(report)
    assert max(found.errors(report.NETWORK)) < 1e-9
    assert max(found.errors(report.MEMORY)) > 0.1  # no ring, so the other formula cannot fit
    assert found.errors(report.TWO_HOSTS) is None


@pytest.mark.parametrize(("excess", "holds"), [(1.05, True), (1.2, False)])
def test_claim_is_about_the_bytes_of_large_sums(
    report: ModuleType, excess: float, holds: bool
) -> None:
    found = found_with(report, excess)
    (claim,) = found.claims()
    assert claim.measured == pytest.approx(excess)
    assert claim.holds == holds
    assert ("BELOW" in found.tables()["claims"]) != holds


def test_prediction_takes_the_dearer_byte(report: ModuleType) -> None:
    _, fast, ours = found_with(report).links
    assert fast.beta == pytest.approx(0.08e-9)
    assert ours.beta == pytest.approx(0.5e-9)


def test_prediction_grows_with_ranks(report: ModuleType) -> None:
    found = found_with(report).predictions(1e6)
    alone = [seconds for _, of, link, seconds in found if (of, link.name) == (1, "10 Gbit/s")]
    assert len(alone) == 7
    assert alone == sorted(alone)


# The program


@pytest.fixture(scope="module")
def output(run_program: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scaling")
    files = ("--json", f"{folder}/numbers.json", "--write", f"{folder}/page.md")
    done = run_program(SCRIPT, "--quick", "--ranks", 2, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads((folder / "numbers.json").read_text())
    return {"text": done.stdout, "numbers": numbers, "page": (folder / "page.md").read_text()}


def test_tables_are_printed_and_written(output: dict[str, Any]) -> None:
    heads = ["| one host ", "| a host each ", "| 1,024 in all", "| 1,024 ", "| claim ", "| 2 ranks"]
    for text in (output["text"], output["page"]):
        assert not [head for head in heads if head not in text]


def test_page_is_filled_and_says_what_is_assumed(output: dict[str, Any]) -> None:
    assert "$" not in output["page"]
    assert f"{output['numbers']['machine']['cores']} cores" in output["page"]
    assert "**Nothing below was measured.**" in output["page"]


def test_ranks_send_what_a_ring_needs(output: dict[str, Any]) -> None:
    sums = {(s["way"], s["size"]): s["sent"] for s in output["numbers"]["sums"]}
    assert MIB <= sums["a host each", MIB] <= 1.1 * MIB
    assert sums["one host", MIB] == 0
    assert output["numbers"]["claims"][0]["holds"]


def test_steps_are_timed(output: dict[str, Any]) -> None:
    steps = output["numbers"]["steps"]
    assert [(s["way"], s["rows"]) for s in steps] == [
        ("one host", 1024), ("one host", 2048), ("a host each", 1024), ("a host each", 2048)
    ]  # fmt: skip
    assert all(s["agreeing"] > 0 and s["seconds"] > 0 for s in steps)


def test_one_rank_alone_is_refused(run_program: Run) -> None:
    done = run_program(SCRIPT, "--ranks", 1)
    assert done.returncode == 2
    assert "2 or more must be among them" in done.stderr
