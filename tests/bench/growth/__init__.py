"""What grows with what: a row each for operations, activities, vectors and open streams, with a plot in ``docs/``.

``make bench ROW=growth`` runs all four (about 20 minutes); plain ``make bench`` leaves them out. Whatever was measured is kept in
``docs/growth.json``, from which ``docs/growth.md`` and the plots are written; a quick run writes the same into ``build/growth/``.
"""

from collections.abc import Callable
from pathlib import Path

from tests.bench.growth.activities import measure_activities
from tests.bench.growth.operations import measure_operations
from tests.bench.growth.streams import measure_streams
from tests.bench.growth.vectors import measure_vectors
from tests.bench.table import Effort, Line

GROWTH_ROWS: dict[str, Callable[[Path, Effort], list[Line]]] = {
    "growth-operations": measure_operations,
    "growth-activities": measure_activities,
    "growth-vectors": measure_vectors,
    "growth-streams": measure_streams,
}
