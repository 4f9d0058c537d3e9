"""What an app's activities cost when it has a thousand of them, and when it has a million: to list, to add, to claim."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from adapters.postgres import EmbeddedPostgres
from tests.bench.growth.study import Panel, Series, Study, publish
from tests.bench.homeport_server import run_command, running_homeport
from tests.bench.peers.growth_timing import Request, Timer, running_timer
from tests.bench.peers.shapes import APP_ID
from tests.bench.table import QUICK, Effort, Line

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
PAGE = 50
DEEP_CALLS = 20
NAME = "growth-activities"  # also of its data directory
FIRST, PENDING, LAST = "first page", "first page of the pending, 1 in 20", "last page, by offset"
ADD, CLAIM = "add one", "claim one"
# One a second up to now, one in twenty still to be done: pending rows lie everywhere, as in an app that never did them.
FILL = """
INSERT INTO activities (id, owner_id, raw_data, status, completed_at, created_at)
SELECT uuidv7(-age), %(owner)s, json_build_object('type', 'order', 'amount', number, 'note', 'for the row ' || number),
       CASE WHEN number %% 20 = 0 THEN 'pending' ELSE 'completed' END, CASE WHEN number %% 20 <> 0 THEN now() - age END, now() - age
FROM generate_series(%(first)s::bigint, %(last)s) AS number, LATERAL (SELECT make_interval(secs => 2000000 - number)) AS of (age)
"""
PENDING_IDS = "SELECT id::text FROM activities WHERE owner_id = %s AND status = 'pending' ORDER BY random() LIMIT %s"


def measure_activities(folder: Path, effort: Effort) -> list[Line]:
    """Lists, new rows and claims of an app with 1 000 to 1 000 000 activities."""
    counts = COUNTS[:-1] if effort is QUICK else COUNTS
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (FIRST, PENDING, LAST, ADD, CLAIM)}
    run_command(folder / NAME, "apps", "register", "bench", "--id", APP_ID, "--quiet")
    run_command(folder / NAME, "apps", "grant", APP_ID, "activities.read", "activities.write")
    with (
        running_homeport(folder, NAME) as homeport,
        running_timer(homeport.base, homeport.headers) as timer,
        _connected(homeport.data_dir) as connection,
    ):
        filled = 0
        for count in counts:
            connection.execute(FILL, {"owner": APP_ID, "first": filled + 1, "last": count})
            connection.execute("VACUUM (ANALYZE) activities")
            filled = count
            for name, value in _measure(timer, connection, count, effort.calls).items():
                found[name].append((count, value))
    series = {name: Series(name, points) for name, points in found.items()}
    flat = [each for name, each in series.items() if name != LAST]
    last = series[LAST]
    each_us = (last.points[-1][1] - series[FIRST].points[-1][1]) / last.points[-1][0] * 1000
    title = f"With {counts[-1] // counts[0]:,} times as many activities, lists, additions and claims take {_range(flat)} times as long"
    notes = [
        f"The page at the end of {counts[-1]:,}, by `offset`, takes {last.points[-1][1]:.0f} ms: what comes before is counted in "
        f"the index, {each_us:.2f} µs each",
        f"p50 of {effort.calls} calls over one connection, database on disk, all rows of one app, {PAGE} on a page",
    ]
    publish(Study(NAME, title, "activities of the app", [Panel("p50 (ms)", list(series.values()))], notes), effort)
    lines = []
    for each in flat:
        values = " → ".join(f"{y:.2f}" for _, y in each.points)
        value = f"{each.factor:.2f} x, n^{each.exponent:.2f} ({values} ms)"
        lines.append(Line(NAME, f"{each.name}, p50 at {counts[-1]:,} against {counts[0]:,}", value, "≤ 2 x", each.factor <= 2))
    lines.append(Line(NAME, f"beside it, {LAST}", f"{last.points[-1][1]:.1f} ms at {counts[-1]:,}, n^{last.exponent:.2f}"))
    return lines


def _measure(timer: Timer, connection: Any, count: int, calls: int) -> dict[str, float]:
    ids = [row[0] for row in connection.execute(PENDING_IDS, [APP_ID, calls + 1]).fetchall()]
    page = f"/activities?limit={PAGE}"
    requests: dict[str, list[Request]] = {
        FIRST: [("GET", page, None)] * calls,
        PENDING: [("GET", f"{page}&status=pending", None)] * calls,
        LAST: [("GET", f"{page}&offset={count - PAGE}", None)] * DEEP_CALLS,
        ADD: [("POST", "/activities", {"raw_data": {"type": "order", "amount": number}}) for number in range(calls)],
        CLAIM: [("PATCH", f"/activities/{id}", {"status": "claimed", "locked_by": "bench"}) for id in ids],
    }
    return {name: timer.time(each).p50_ms for name, each in requests.items()}


def _range(series: list[Series]) -> str:
    factors = sorted(each.factor for each in series)
    return f"{factors[0]:.1f} to {factors[-1]:.1f}"


@contextmanager
def _connected(data_dir: Path) -> Iterator[Any]:
    """A connection of the bench to the database of a server that runs."""
    server = EmbeddedPostgres(data_dir)
    url = server.start()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
    finally:
        server.stop()
