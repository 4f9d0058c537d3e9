"""The ports of apps: none is given to two, and each keeps its own as long as it can."""

from itertools import chain
from uuid import UUID
from zlib import crc32

from adapters.processes import is_port_free
from homeport.errors import Conflict
from homeport.launcher.rows import ProcessRows


async def choose_port(rows: ProcessRows, app_id: UUID, kept: int | None, ports: range) -> int:
    """The port that the app has ``kept``, if it is free; else another one of ``ports``, which is written down as the app's.

    Raises Conflict when none is free, and Unavailable.
    """
    if kept is not None and kept in ports and is_port_free(kept):
        return kept
    used = await rows.used_ports()
    # Not all begin at the same one: two servers that do not know of each other hardly ever take the same port at once.
    first = crc32(app_id.bytes) % len(ports)
    for port in chain(ports[first:], ports[:first]):
        if port not in used and is_port_free(port) and await rows.take_port(app_id, port):
            return port
    raise Conflict(f"No port between {ports[0]} and {ports[-1]} is free. Set HOMEPORT_APP_PORTS to more of them.")
