"""The record of what is done with tools: one event in the database and one line in the log for each thing that is done."""

from typing import Any

import structlog

from homeport.errors import AppError
from homeport.events import Events
from homeport.identity import Principal

log = structlog.get_logger("audit")


class Audit:
    """Writes both. Never give it what was said: no arguments, no results, no secrets."""

    def __init__(self, events: Events) -> None:
        self._events = events

    async def note(self, kind: str, principal: Principal | None, subject: str, **data: Any) -> None:
        """Note that ``principal`` (None: the operator, at the command line) did something to ``subject``.

        Nothing fails because of it: an event that cannot be written is in the log all the same, and that it is missing, too.
        """
        known = {name: value for name, value in data.items() if value is not None}
        who = principal.label if principal is not None else "cli"
        try:
            await self._events.record(kind, principal=principal, subject=subject, data={"by": who} | known)
        except AppError as error:
            known["event_lost"] = error.message
        log.info(kind, logger="audit", who=who, who_id=str(principal.id) if principal is not None else None, subject=subject, **known)
