"""The bench: its rows say what they measure, and what they conclude from figures is right. Measuring itself is `make bench`."""

import ast
import inspect
import tomllib
from pathlib import Path

import numpy as np
import pytest

from adapters.pgvector.index_keeper import INDEXED_ROWS
from tests.bench.clusters import NEAREST, PARTS, Clusters, id_of, recall
from tests.bench.rows import ROWS
from tests.bench.table import QUICK, Effort, Line, Measured, added_ms, ratio, write_table

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
