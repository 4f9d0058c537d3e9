"""What happens to a task is posted on to the address that its app gave, in order, until it is taken or a day has nearly passed."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.outbound import Outbound
from adapters.postgres import Database, dump_json
from adapters.posting import Posting
from homeport.clock import format_time
from homeport.errors import Forbidden, TooManyRequests, UpstreamError
from homeport.ids import parse_uuid
from homeport.jobs import JobContext, Jobs
from homeport.tables import tasks
from homeport.tasks.contract_events import ACTIONS, Report
from homeport.tasks.rows import Task
from homeport.tasks.signatures import EVENT_ID_HEADER, SIGNATURE_HEADER, Signed

KIND = "task.callback"
# Five seconds after the first attempt, then four times as long each time: about eight hours in all.
MAX_ATTEMPTS = 8
MAX_OPEN = 1000
CONCURRENCY = 4
TIMEOUT_S = 10.0
CHECK_S = 2.0
GONE = 410
TRY_AGAIN = frozenset({408, 425, 429})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a task: by the program that works on it, or by this server. ``data`` is what the event carries, and has ``result`` or
    ``error`` where they apply. ``event_id`` None: it gets one."""

    report: Report
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    machine_id: str | None = None
    attempt_id: str | None = None
    event_id: str | None = None


class Callbacks:
    """Checks addresses, and posts events to them as jobs. ``secret`` signs what is posted."""

    def __init__(self, database: Database, jobs: Jobs, outbound: Outbound, secret: SecretStr | None) -> None:
        self._database = database
        self._jobs = jobs
        self._posting = Posting(outbound)
        self._secret = secret
        jobs.register(KIND, self._carry_out, max_attempts=MAX_ATTEMPTS, max_open=MAX_OPEN, concurrency=CONCURRENCY)

    async def check(self, url: str) -> None:
        """Raise InvalidRequest when nothing could be posted to ``url``: no URL that will do, or an address that is refused.

        A name that is not looked up soon is left for when something is posted: whoever hands over work does not wait for it.
        """
        try:
            async with asyncio.timeout(CHECK_S):
                await self._posting.check(url)
        except TimeoutError:
            log.info("a callback address could not be looked up in time")

    async def enqueue(self, connection: AsyncConnection, task: Task, told: Told) -> None:
        """Have an event posted, if the task has an address. One that has a thousand waiting gets no more."""
        if task.callback_url is None:
            return
        body = {
            "event": told.report,
            "action": ACTIONS[told.report],
            "event_id": told.event_id or str(uuid4()),
            "attempt_id": task.last_run.attempt_id if task.last_run else None,
            "task_uuid": str(task.id),
            "status": task.status,
            "machine_id": task.machine_id,
            "user_email": None,
            "activity_id": None,
            "table_name": None,
            "timestamp": format_time(datetime.now(UTC)),
            "data": told.data,
        }
        try:
            await self._jobs.enqueue(KIND, task.owner_id, {"body": body}, lane=str(task.id), connection=connection)
        except TooManyRequests:
            log.warning("an event is not posted: too many wait already", task_id=str(task.id), event_kind=told.report)

    async def _carry_out(self, context: JobContext) -> dict[str, Any] | None:
        """Post one event. Raises UpstreamError to have it tried again, any error below 500 to give it up."""
        body: dict[str, Any] = context.payload["body"]
        if (url := await self._find_url(body["task_uuid"])) is None:
            return None
        headers = {"Content-Type": "application/json", "User-Agent": "homeport", EVENT_ID_HEADER: body["event_id"]}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = _signed(body).sign(self._secret.get_secret_value())
        status = await self._posting.post(url, dump_json(body), headers, TIMEOUT_S)
        if 200 <= status < 300:
            return {"status": status}
        if status == GONE:
            await self._forget_url(body["task_uuid"])
        if 300 <= status < 500 and status not in TRY_AGAIN:
            raise Forbidden(f"The address answered with HTTP status {status}.", code="CALLBACK_REFUSED")
        raise UpstreamError(f"The address answered with HTTP status {status}.")

    async def _find_url(self, task_id: str) -> str | None:
        async with self._database.transaction() as connection:
            found = await connection.execute(select(tasks.c.callback_url).where(tasks.c.id == parse_uuid(task_id)))
            url: str | None = found.scalar_one_or_none()
        return url

    async def _forget_url(self, task_id: str) -> None:
        """Whoever says that nobody is there any more is not asked again."""
        async with self._database.transaction() as connection:
            await connection.execute(update(tasks).where(tasks.c.id == parse_uuid(task_id)).values(callback_url=None))


def _signed(body: Mapping[str, Any]) -> Signed:
    return Signed(
        event_id=body["event_id"],
        event=body["event"],
        task_id=body["task_uuid"],
        attempt_id=body["attempt_id"] or "",
        timestamp=body["timestamp"],
        data=body["data"],
    )
