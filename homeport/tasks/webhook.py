"""What apps send to the webhook: work that they hand over, reports on it, pings.

Here is found out who sent it and whether it is genuine, and seen to that it counts once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database
from homeport.errors import InvalidRequest, Unauthorized
from homeport.identity import Identity, Principal, principal_without_grants
from homeport.tables import tasks, webhook_events
from homeport.tasks.callbacks import Told
from homeport.tasks.changes import Changes
from homeport.tasks.contract_events import (
    ATTEMPT_PREFIX,
    MAX_ATTEMPT_ID,
    ContractEvent,
    Report,
    as_report,
    canonical_attempt_id,
    canonical_event,
    is_report,
)
from homeport.tasks.rows import Task, find_task
from homeport.tasks.signatures import Signed

if TYPE_CHECKING:
    from homeport.tasks.tasks import Order, Tasks

PERMISSION = "webhook.trigger"
SIGNER = "signature"


@dataclass(frozen=True, slots=True)
class Message:
    """What has come in, in the contract's terms.

    ``app_id`` is what the body says, for clients that send no header. ``order`` is the work of a trigger. ``data`` is what the event
    carries besides the task's id, the machine, the time and the attempt, in the order in which it came; that is also what is signed.
    """

    event: str
    order: "Order"
    app_id: str | None = None
    app_name: str | None = None
    event_id: str | None = None
    attempt_id: object = None
    task_id: str | None = None
    machine_id: str | None = None
    timestamp: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    signature: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message. ``is_repeated``: its event had come before, and nothing was done again."""

    event: ContractEvent
    app_name: str | None = None
    task_id: str | None = None
    calendar_event_id: str | None = None
    status: str | None = None
    auto_run: bool | None = None
    event_id: str | None = None
    attempt_id: str | None = None
    is_repeated: bool = False


class Webhook:
    """Takes messages in. ``secrets`` are those that signatures may be made with; without any they mean nothing."""

    def __init__(self, database: Database, identity: Identity, tasks: "Tasks", changes: Changes, secrets: Sequence[SecretStr]) -> None:
        self._database = database
        self._identity = identity
        self._tasks = tasks
        self._changes = changes
        self._secrets = [secret.get_secret_value() for secret in secrets]

    async def receive(self, principal: Principal | None, message: Message) -> Receipt:
        """Do what a message says. ``principal`` is None for one that came without a credential.

        An event id that its owner has sent before is answered as it was then, and nothing is done again. A report that is signed needs
        nobody who sends it, if it is fresh and has an event id.

        Raises InvalidRequest (UNKNOWN_EVENT among others), Unauthorized (MISSING_APP_ID, INVALID_APP_ID, INVALID_SIGNATURE),
        PermissionMissing (``webhook.trigger``), and NotFound, Conflict and TooManyRequests as tasks do.
        """
        if (event := canonical_event(message.event)) is None:
            raise InvalidRequest(f"There is no event '{message.event[:80]}'; the contract lists them.", code="UNKNOWN_EVENT")
        if event == "system.ping":
            return Receipt(event, app_name=message.app_name or (principal.name if principal else None), event_id=message.event_id)
        is_genuine = self._check_signature(event, message)
        principal = principal or await self._by_body(message.app_id)
        if principal is not None:
            principal = await self._identity.require(principal, PERMISSION)
            if principal is None:
                raise Unauthorized("This credential is not valid any more.", code="INVALID_API_KEY")
        if is_report(event):
            return await self._report(as_report(event), principal, message, is_genuine=is_genuine)
        if principal is None:
            raise _nobody()
        await self._tasks.check(message.order)
        return await self._trigger(principal, message)

    async def _trigger(self, principal: Principal, message: Message) -> Receipt:
        attempt_id = _attempt_id(message)
        async with self._database.transaction() as connection:
            if (before := await _begin(connection, principal.owner_id, message)) is not None:
                return before
            task = await self._tasks.trigger(connection, principal, message.order, app_name=message.app_name, attempt_id=attempt_id)
            receipt = _receipt("task.trigger", task, message, attempt_id)
            await _remember(connection, principal.owner_id, message, receipt)
        return receipt

    async def _report(self, event: Report, principal: Principal | None, message: Message, *, is_genuine: bool) -> Receipt:
        if principal is None and not is_genuine:
            raise _nobody()
        if not message.task_id:
            raise InvalidRequest("Say which task this is about: payload.task_uuid.")
        attempt_id = _attempt_id(message)
        told = Told(event, message.data, message.machine_id or None, attempt_id, message.event_id)
        mine = () if principal is None else (tasks.c.owner_id == principal.owner_id,)
        async with self._database.transaction() as connection:
            found = await find_task(connection, message.task_id, *mine)
            if (before := await _begin(connection, found.owner_id, message)) is not None:
                return before
            task = await find_task(connection, message.task_id, *mine, lock=True)
            who = principal or principal_without_grants(task.caller)
            task = await self._changes.apply(connection, task, told, principal=who, by=principal.label if principal else SIGNER)
            receipt = _receipt(event, task, message, attempt_id)
            await _remember(connection, task.owner_id, message, receipt)
        return receipt

    async def _by_body(self, app_id: str | None) -> Principal | None:
        """The app that the body names; None when it names none."""
        if not (app_id := (app_id or "").strip()):
            return None
        if (app := await self._identity.authenticate_app(app_id)) is None:
            raise Unauthorized(f"Invalid app ID: {app_id[:100]}", code="INVALID_APP_ID")
        return app

    def _check_signature(self, event: ContractEvent, message: Message) -> bool:
        """Whether the message is signed so that nobody else need be known: rightly, lately, and not to be repeated.

        Beside a credential the signature has to be right, but may be old: who holds the credential could make a new one anyway.
        """
        if not self._secrets or not message.signature:
            return False
        signed = Signed(
            event_id=message.event_id or "",
            event=event,
            task_id=message.task_id or "",
            attempt_id=_attempt_id(message) or "",
            timestamp=message.timestamp or "",
            data=message.data,
        )
        if not signed.is_signed_by(self._secrets, message.signature):
            raise Unauthorized("The signature of this event is wrong.", code="INVALID_SIGNATURE")
        return bool(message.event_id) and signed.is_fresh(datetime.now(UTC))


def _attempt_id(message: Message) -> str | None:
    attempt_id = canonical_attempt_id(message.attempt_id)
    if attempt_id is not None and (len(attempt_id) > MAX_ATTEMPT_ID + len(ATTEMPT_PREFIX) or "\0" in attempt_id):
        raise InvalidRequest(f"An attempt_id has at most {MAX_ATTEMPT_ID} characters, and none of them is U+0000.")
    return attempt_id


def _nobody() -> Unauthorized:
    return Unauthorized("Missing required header: x-app-id", code="MISSING_APP_ID")


async def _begin(connection: AsyncConnection, owner_id: UUID, message: Message) -> Receipt | None:
    """Take note of an event; what was answered when it has come before. One that is being taken in elsewhere is waited for."""
    if not message.event_id:
        return None
    key = {"owner_id": owner_id, "event_id": message.event_id}
    noted = insert(webhook_events).values(**key, answer={}).on_conflict_do_nothing().returning(webhook_events.c.event_id)
    if (await connection.execute(noted)).first() is not None:
        return None
    found = select(webhook_events.c.answer).where(webhook_events.c.owner_id == owner_id, webhook_events.c.event_id == message.event_id)
    return replace(Receipt(**(await connection.execute(found)).scalar_one()), is_repeated=True)


async def _remember(connection: AsyncConnection, owner_id: UUID, message: Message, receipt: Receipt) -> None:
    if message.event_id:
        noted = (webhook_events.c.owner_id == owner_id, webhook_events.c.event_id == message.event_id)
        await connection.execute(update(webhook_events).where(*noted).values(answer=asdict(receipt)))


def _receipt(event: ContractEvent, task: Task, message: Message, attempt_id: str | None) -> Receipt:
    return Receipt(
        event,
        task_id=str(task.id),
        calendar_event_id=str(task.calendar_event_id),
        status=task.status,
        auto_run=task.auto_run,
        event_id=message.event_id,
        attempt_id=task.last_run.attempt_id if task.last_run else attempt_id,
    )
