"""The bench of growth: what it concludes from figures, the page that it writes, and the documents that it makes."""

import inspect
import math
from pathlib import Path

import pytest

from adapters.pgvector import build_memory
from adapters.pgvector.build_memory import MEGABYTE, graph_mb, spare_memory_bytes
from homeport.contract.loading import each_operation, load_bundle
from tests.bench.growth import GROWTH_ROWS
from tests.bench.growth.study import Panel, Series, Study, show, write_page
from tests.bench.peers.growth_server import FIRST, write_document
from tests.bench.peers.growth_timing import Times
from tests.bench.peers.shapes import LAST
from tests.bench.report import select_rows
from tests.bench.rows import ALL_ROWS, ROWS


def test_rows_of_growth_are_measured_only_when_they_are_asked_for() -> None:
    for name, measure in GROWTH_ROWS.items():
        assert inspect.getdoc(measure), name
        assert list(inspect.signature(measure).parameters) == ["folder", "effort"], name
    assert not ROWS.keys() & GROWTH_ROWS.keys()
    assert select_rows(ALL_ROWS, "growth") == list(GROWTH_ROWS)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, -1.0])
def test_a_slope_is_the_exponent_with_which_a_cost_grows(exponent: float) -> None:
    series = Series("cost", [(n, 3 * n**exponent) for n in (10, 100, 1000)])
    assert math.isclose(series.exponent, exponent, abs_tol=1e-9)
    assert math.isclose(series.factor, 100**exponent)
    assert series.says().startswith(f"cost: n^{series.exponent:.2f}, ")


def test_what_was_too_small_to_be_seen_does_not_bend_a_slope() -> None:
    assert math.isclose(Series("cost", [(1, 0), (10, 2), (100, 20)]).exponent, 1)
    assert Series("cost", [(1, 0), (10, 2)]).factor == math.inf


def test_the_page_has_the_finding_the_slopes_and_every_figure() -> None:
    points = [(10.0, 1.0), (100.0, 12.345)]
    panels = [Panel("p50 (ms)", [Series("list", points)]), Panel("share", [Series("recall", points[:1])], is_log=False)]
    page = write_page([Study("growth-x", "Ten times as much", "things", panels, ["A note"], "2026-01-01, a machine")])
    assert "## Ten times as much\n\n![Ten times as much](growth-x.svg)\n\n- list: n^1.09, 12.35 times from 10 to 100.\n- A note.\n" in page
    head, figures = ["| things | 10 | 100 | grows as |", "|---|---:|---:|---:|"], ["| list: p50 (ms) | 1.00 | 12.3 | n^1.09 |"]
    assert "\n".join([*head, *figures, "| recall: share | 1.00 |  |  |"]) in page
    assert "`make bench ROW=growth-x` · 2026-01-01, a machine" in page


def test_figures_are_shown_with_the_digits_that_count() -> None:
    assert [show(value) for value in (0, 0.01234, 1.234, 12.34, 123.4, 12_345)] == ["0", "0.0123", "1.23", "12.3", "123", "12,345"]


def test_the_middle_and_the_95th_of_100_times() -> None:
    assert Times.of([each / 1000 for each in range(100)]) == Times(49.5, 95.0)
    assert Times.of([0.002]) == Times(2.0, 2.0)


@pytest.mark.parametrize("count", [10, 300])
def test_a_document_is_cut_down_or_multiplied_and_stays_whole(tmp_path: Path, count: int) -> None:
    write_document(tmp_path, count)
    document = load_bundle(tmp_path).document
    operations = [operation for _, _, operation in each_operation(document)]
    assert len(operations) == count
    assert len({operation["operationId"] for operation in operations}) == count
    assert next(iter(document["paths"])) == FIRST
    assert list(document["paths"])[-1] == LAST
    assert len(document["components"]["schemas"]) > count / 2


def test_the_graph_of_an_index_gets_as_much_memory_as_was_measured_that_it_takes() -> None:
    # 2 274 and 1 060 bytes a row were seen for 384 and 64 numbers, when builds with too little stopped being in memory.
    for dimensions, seen_bytes in ((384, 2274), (64, 1060)):
        needed = 1_000_000 * seen_bytes / MEGABYTE
        assert needed < graph_mb(1_000_000, dimensions, is_half=False) < needed * 1.2
    assert graph_mb(1_000_000, 3072, is_half=True) < graph_mb(1_000_000, 2000, is_half=False)


def test_a_container_has_only_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(build_memory, "CONTROL_GROUPS", [(str(limit), str(used))])
    machine = spare_memory_bytes()
    assert machine > 0
    limit.write_text("max\n", encoding="ascii")
    used.write_text("1000\n", encoding="ascii")
    assert spare_memory_bytes() > 1_000_000
    limit.write_text("5000\n", encoding="ascii")
    assert spare_memory_bytes() == 4000
    limit.write_text("500\n", encoding="ascii")
    assert spare_memory_bytes() == 0
