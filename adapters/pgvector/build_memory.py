"""How much memory the build of an index may take: as much as its graph needs, if there is so much to spare.

A graph that does not fit is built many times slower from there on. PostgreSQL takes the memory only for the build, and builds one index at
a time.
"""

from pathlib import Path
from typing import Any

import structlog

from adapters.pgvector.statements import Statements

log = structlog.get_logger(__name__)

MEGABYTE = 1024 * 1024
LEAST_MB, USUAL_MB = 64, 512
# What pgvector keeps of a row besides the vector itself: its links to 32 others, and where it is (730 to 800 bytes were measured); what
# processes that build together keep besides the graph; and a tenth for what is written meanwhile.
ROW_BYTES = 800
SHARED_MB = 4
MARGIN = 1.1
SPARED = 0.5
# The limits of a container: what it may have and what it has, as the kernel's control groups of both versions say.
CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
OWN_SETTING = "SELECT setting::bigint / 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'"


async def find_build_memory_mb(connection: Any, statements: Statements) -> int:
    """The megabytes that building the vector index of a namespace may take, from LEAST_MB on.

    On this machine at most half of what is free. Of another machine nothing is known: USUAL_MB, or what its operator has given
    ``maintenance_work_mem``, if that is more.
    """
    (rows,) = await (await connection.execute(statements.count)).fetchone()
    if connection.info.host.startswith("/"):
        most_mb = int(spare_memory_bytes() * SPARED / MEGABYTE)
    else:
        (own_mb,) = await (await connection.execute(OWN_SETTING)).fetchone()
        most_mb = max(USUAL_MB, own_mb)
    needed_mb = graph_mb(rows, statements.dimensions, is_half=statements.is_half)
    if needed_mb > most_mb:
        log.warning("a vector index is built slowly, because its graph does not fit", needed_mb=needed_mb, memory_mb=most_mb, rows=rows)
    return max(LEAST_MB, min(needed_mb, most_mb))


def graph_mb(rows: int, dimensions: int, *, is_half: bool) -> int:
    """The megabytes that the graph of so many vectors takes while it is built."""
    return int(rows * (dimensions * (2 if is_half else 4) + ROW_BYTES) * MARGIN / MEGABYTE) + SHARED_MB


def spare_memory_bytes() -> int:
    """How much memory is free on this machine, and within the limits of the container that this may be."""
    import psutil  # takes a moment to import

    spare: int = psutil.virtual_memory().available
    for limit, used in CONTROL_GROUPS:
        try:
            spare = min(spare, int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such version, or "max": no limit
            continue
    return max(spare, 0)
