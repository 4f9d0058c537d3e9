"""Where rules are kept."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres import Database, notify
from homeport.errors import InvalidRequest, NotFound, TooManyRequests
from homeport.identity import Principal
from homeport.ids import parse_uuid, uuid7
from homeport.tables import tool_rules
from homeport.tools.audit import Audit
from homeport.tools.checking import has_controls
from homeport.tools.rules import EVERYBODY, Decision, ToolRule, app_subject
from homeport.tools.stored import TOOLS_CHANNEL, StoredTools

MAX_RULES = 5000
MAX_NAME_LENGTH = 200
# Of several that add rules at once, each would find room.
_LOCK = 0x746F6F6C

_COLUMNS = [column for column in tool_rules.c if column.name != "app_id"]


class ToolRules:
    """Reads and changes the rules. A change is in force in every process at once."""

    def __init__(self, database: Database, stored: StoredTools, audit: Audit) -> None:
        self._database = database
        self._stored = stored
        self._audit = audit

    async def list(self, subject: str | None = None) -> Sequence[ToolRule]:
        """The rules, by subject and pattern; only those about ``subject`` when one is given."""
        rules = (await self._stored.get()).rules.rules
        return [rule for rule in rules if subject is None or rule.subject == subject]

    async def set(
        self, subject: str, server: str, tool: str, decision: Decision, *, by: str, principal: Principal | None = None
    ) -> ToolRule:
        """Decide about a pattern of tools, in place of an earlier decision. Raises InvalidRequest, NotFound (no such app)."""
        (rule,) = await self._write(subject, {(server, tool): decision}, by, principal, is_all=False)
        return rule

    async def replace(
        self, subject: str, decisions: Mapping[tuple[str, str], Decision], *, by: str, principal: Principal | None = None
    ) -> Sequence[ToolRule]:
        """Put these rules about a subject in the place of all it has. Raises as ``set`` does."""
        return await self._write(subject, decisions, by, principal, is_all=True)

    async def remove(self, rule_id: str, *, principal: Principal | None = None) -> ToolRule:
        """Remove a rule; returns it. Raises NotFound."""
        statement = delete(tool_rules).where(tool_rules.c.id == parse_uuid(rule_id)).returning(*_COLUMNS)
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
            await notify(connection, TOOLS_CHANNEL, "rules")
        self._stored.forget()
        if row is None:
            raise NotFound("There is no such rule.")
        removed = ToolRule(**row)
        await self._audit.note("tool_rule.removed", principal, removed.pattern, rule_subject=removed.subject, decision=removed.decision)
        return removed

    async def _write(
        self, subject: str, decisions: Mapping[tuple[str, str], Decision], by: str, principal: Principal | None, *, is_all: bool
    ) -> Sequence[ToolRule]:
        app_id = _check_subject(subject)
        subject = subject if app_id is None else app_subject(app_id)
        rows = [
            {"id": uuid7(), "subject": subject, "app_id": app_id, "server": server, "tool": tool, "decision": decision, "decided_by": by}
            for (server, tool), decision in decisions.items()
            if _is_pattern(server, tool)
        ]
        try:
            async with self._database.transaction() as connection:
                await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
                if is_all:
                    await connection.execute(delete(tool_rules).where(tool_rules.c.subject == subject))
                written = [await _upsert(connection, row) for row in rows]
                if (await connection.execute(select(func.count()).select_from(tool_rules))).scalar_one() > MAX_RULES:
                    raise TooManyRequests(f"There are {MAX_RULES} rules about tools. Remove those that are not needed.")
                await notify(connection, TOOLS_CHANNEL, "rules")
        except IntegrityError as error:
            raise NotFound("App not found", code="APP_NOT_FOUND") from error
        self._stored.forget()
        for rule in written:
            await self._audit.note("tool_rule.set", principal, rule.pattern, rule_subject=rule.subject, decision=rule.decision)
        return written


async def _upsert(connection: AsyncConnection, row: Mapping[str, object]) -> ToolRule:
    statement = insert(tool_rules).values(row)
    changed = {"decision": row["decision"], "decided_by": row["decided_by"], "created_at": func.now()}
    statement = statement.on_conflict_do_update(index_elements=["subject", "server", "tool"], set_=changed)
    return ToolRule(**(await connection.execute(statement.returning(*_COLUMNS))).mappings().one())


def _check_subject(subject: str) -> UUID | None:
    """The app that a subject names, None for an agent and for everybody. Raises InvalidRequest."""
    kind, _, name = subject.partition(":")
    if kind == "app" and (app_id := parse_uuid(name)) is not None:
        return app_id
    if subject != EVERYBODY and (kind != "agent" or not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable()):
        raise InvalidRequest("A rule is about everybody, an app or an agent.")
    return None


def _is_pattern(server: str, tool: str) -> bool:
    """True. Raises InvalidRequest for what is no pattern."""
    if tool and not server:
        raise InvalidRequest("A rule about one tool names its server, too.")
    if any(len(name) > MAX_NAME_LENGTH or has_controls(name) for name in (server, tool)):
        raise InvalidRequest(f"The names of a server and of a tool are up to {MAX_NAME_LENGTH} characters without control characters.")
    return True
