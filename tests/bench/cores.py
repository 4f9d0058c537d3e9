"""Which core does what: servers have the first, the load on them the second, so that it does not slow them."""

import os
from collections.abc import Iterable
from contextlib import suppress

SERVER_CORE = 0
LOAD_CORE = 1


def pin(core: int | None) -> None:
    """Keep this process and its children on one core, where the system can do that and there are several; None: on all of them."""
    if core is not None and hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def pin_running(pids: Iterable[int], core: int = SERVER_CORE) -> None:
    """Keep processes that run, and their children, on one core from now on."""
    if not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) == 1:
        return
    import psutil  # which the peers' environment has not

    processes = [psutil.Process(pid) for pid in pids]
    for process in [*processes, *(child for each in processes for child in each.children(recursive=True))]:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # a child of the database has ended
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core})
