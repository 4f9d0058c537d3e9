"""The bench: its rows say what they measure, and what they conclude from figures is right. Measuring itself is `make bench`."""

import ast
import inspect
import tomllib
from pathlib import Path

import numpy as np
import pytest

from adapters.pgvector.index_keeper import INDEXED_ROWS
from tests.bench.clusters import NEAREST, PARTS, Clusters, id_of, recall
from tests.bench.report import Run, missing_targets, peers, select_rows, subject
from tests.bench.rows import DESIGNED, ROWS
from tests.bench.table import QUICK, Effort, Line, Measured, added_ms, ratio, seconds, write_table

ROOT = Path(__file__).parents[2]


def test_every_row_says_what_it_measures() -> None:
    for name, measure in ROWS.items():
        assert inspect.getdoc(measure), name
        assert list(inspect.signature(measure).parameters) == ["folder", "effort"], name
    assert len(set(ROWS.values())) == len(ROWS)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/bench/peers").glob("*.py")), ids=lambda path: path.stem)
def test_every_peer_can_be_read_and_says_what_it_is(path: Path) -> None:
    # Some run in an environment of their own, with packages that are not here.
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_peers_that_are_declared_are_locked() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["bench"]
    lock = (ROOT / "requirements-bench.txt").read_text(encoding="utf-8")
    for requirement in wanted:
        assert f"\n{requirement.partition('>=')[0].partition('[')[0]}==" in lock


def test_a_missed_target_is_said_and_a_line_without_one_is_neither_met_nor_missed() -> None:
    ours, theirs = Measured.of([90, 100, 110]), Measured.of([200, 200, 200])
    missed = ratio("row", "what", ours, theirs, 0.6)
    assert (missed.is_met, missed.value) == (False, "0.50 x (±10%; 100 against 200 requests/s)")
    assert ratio("row", "what", ours, theirs, 0.5).is_met
    late = added_ms("row", "what", Measured.of([3.0]), Measured.of([1.0]), 1.5)
    assert (late.is_met, late.value) == (False, "2.00 ms (±0.00; 3.00 against 1.00 ms)")
    table = write_table([missed, Line("row", "beside it", "1")]).splitlines()
    assert table[-2].endswith("| ≥ 0.6 x | **no** |")
    assert table[-1].endswith("| 1 |  |  |")


def test_what_the_design_asks_for_is_a_row_and_is_shown_as_lines_show_it() -> None:
    assert DESIGNED.keys() <= ROWS.keys()
    one = Measured.of([1.0])
    formed = [ratio("row", "what", one, one, 2.0), added_ms("row", "what", one, one, 1.5), seconds("row", "what", [1.0], 6.0)]
    assert [line.target for line in formed] == ["≥ 2 x", "≤ 1.5 ms", "≤ 6 s"]
    assert missing_targets(formed, ("≤ 6 s", "≥ 2 x")) == []
    assert missing_targets(formed, ("≥ 20 x", "≤ 6 s")) == ["≥ 20 x"]


def test_a_row_is_named_alone_or_with_those_that_begin_with_it() -> None:
    assert select_rows(ROWS, "chat") == ["chat"]
    assert select_rows(ROWS, "vectors") == ["vectors-upsert", "vectors-query", "vectors-filter"]
    assert select_rows(ROWS, None) == [*ROWS]
    assert select_rows(ROWS, "vect") == []


def test_an_interrupted_run_goes_on_with_what_it_has_measured_of_the_same_code(tmp_path: Path) -> None:
    file, page = tmp_path / "bench.json", tmp_path / "bench.md"
    met, missed = Line("ping", "GET", "3.00 x", "≥ 2 x"), Line("chat", "p50", "2.00 ms", "≤ 1.5 ms", is_met=False)
    run = Run.resume(Effort(), file)
    assert run.lines == {}
    run.add("ping", [met], 1.5, file)
    again = Run.resume(Effort(), file)
    assert (again.lines, again.minutes) == ({"ping": [met]}, {"ping": 1.5})
    # What was measured otherwise, or of other code, does not belong to it.
    assert Run.resume(QUICK, file).lines == {}
    file.write_text(file.read_text(encoding="utf-8").replace(subject(), "another"), encoding="utf-8")
    assert Run.resume(Effort(), file).lines == {}
    again.add("chat", [missed, Line("chat", "beside it", "5 ms")], 2.0, file)
    text = again.publish(page, file)
    assert not file.exists()
    assert page.read_text(encoding="utf-8") == text
    assert "1 of 2 are met" in text
    assert subject().partition(" ")[0] in text
    assert "| chat | p50 | 2.00 ms | ≤ 1.5 ms | **no** |" in text.splitlines()


def test_the_page_names_the_release_of_every_peer() -> None:
    wanted = {"fastapi", "starlette", "litellm", "chromadb", "lancedb", "procrastinate", "psycopg", "mcp"}
    assert peers().keys() == wanted
    assert all(number[0].isdigit() for number in peers().values())


def test_a_quick_run_is_shorter_and_still_has_an_index_to_search() -> None:
    usual = Effort()
    assert QUICK.rounds < usual.rounds
    assert QUICK.vectors < usual.vectors
    assert QUICK.vectors > INDEXED_ROWS


def test_the_nearest_are_those_with_the_largest_cosine_among_all_and_within_a_part() -> None:
    clusters = Clusters.make(2_000, PARTS * 2)
    assert np.allclose(np.linalg.norm(clusters.vectors, axis=1), 1, atol=1e-5)
    similar = clusters.queries @ clusters.vectors.T
    for query, rows in enumerate(clusters.find_nearest()):
        assert set(rows) == set(np.argsort(-similar[query])[:NEAREST].tolist())
    for query, rows in enumerate(clusters.find_nearest_in_parts()):
        part = range(query % PARTS, 2_000, PARTS)
        assert set(rows) == set(sorted(part, key=lambda row: -similar[query, row])[:NEAREST])


def test_recall_is_the_share_of_the_nearest_that_was_found() -> None:
    nearest = [[1, 2], [3, 4]]
    assert recall([["doc-1", "doc-2"], ["doc-4", "doc-3"]], nearest) == 1
    assert recall([[id_of(1), "doc-9"], []], nearest) == 0.25
    with pytest.raises(RuntimeError, match="1 answers to 2 queries"):
        recall([[]], nearest)
