"""Approvals: asked, waited for and decided, across processes, and whatever becomes of the one that asked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import anyio
import pytest

from homeport.agents.approvals import Outcome
from homeport.agents.stored_approvals import MAX_SHOWN_ARGUMENTS, Approval, Decision
from homeport.errors import Conflict, InvalidRequest, NotFound
from tests.integration.approval_parts import ApprovalParts, open_approvals
from tests.integration.parts import key_principal

pytestmark = pytest.mark.anyio

PERMISSION = "mcp.tools.time.echo"


@pytest.fixture
async def here(database_url: str, tmp_path: Path) -> AsyncIterator[ApprovalParts]:
    async with open_approvals(database_url, tmp_path) as parts:
        yield parts


async def wait(parts: ApprovalParts, approval: Approval) -> Outcome:
    with anyio.fail_after(5):
        return await parts.approvals.wait(approval)


async def is_waiting(parts: ApprovalParts) -> None:
    """Return when somebody waits for an answer."""
    with anyio.fail_after(5):
        while not len(parts.approvals._waiters):
            await anyio.lowlevel.checkpoint()


async def test_a_question_is_asked_once_and_told_without_its_arguments(here: ApprovalParts) -> None:
    app = await here.parts.app("Order Desk")
    run = await here.add_run(app)
    asked = await here.ask(app, run, arguments={"text": "private"})
    again = await here.ask(app, run, arguments={"text": "other"}, wait_s=1.0)
    assert again == asked
    assert (asked.state, asked.app_id, asked.app_slug, asked.arguments, asked.is_cut) == (
        "pending",
        app.id,
        "order-desk",
        '{"text":"private"}',
        False,
    )
    assert (asked.expires_at - asked.requested_at).total_seconds() == 60
    (event,) = await here.told(run)
    assert (event.kind, event.app_id) == ("agent.approval.requested", app.id)
    assert event.data == {
        "by": "app:Order Desk",
        "approval_id": str(asked.id),
        "agent": "@agent",
        "server": "time",
        "tool": "echo",
        "permission": PERMISSION,
    }


@pytest.mark.parametrize("decision", ["granted", "denied"])
async def test_an_answer_of_another_process_is_in_force_at_once(database_url: str, tmp_path: Path, decision: Decision) -> None:
    async with open_approvals(database_url, tmp_path / "one") as one, open_approvals(database_url, tmp_path / "two") as two:
        app = await one.parts.app()
        asked = await one.ask(app)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait(one, asked))
            await is_waiting(one)
            decided = await two.approvals.decide(str(asked.id), decision, "key:operator")
        assert waiting.result() == decision
        assert (decided.state, decided.decided_by) == (decision, "key:operator")
        assert decided.decided_at is not None
        assert await wait(two, asked) == decision, "also for whoever asks later"
        assert [event.kind for event in await one.told(asked.run_id)] == ["agent.approval.requested", "agent.approval.decided"]
        assert (await one.told(asked.run_id))[1].data["decision"] == decision


async def test_an_answer_is_found_although_its_notification_was_lost(database_url: str, tmp_path: Path) -> None:
    async with open_approvals(database_url, tmp_path, recheck_s=0.05) as here:
        asked = await here.ask(await here.parts.app())
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait(here, asked))
            await is_waiting(here)
            await here.parts.run_sql("UPDATE approvals SET state = 'denied'")
        assert waiting.result() == "denied"


async def test_a_wait_looks_again_when_the_connection_was_lost(here: ApprovalParts) -> None:
    asked = await here.ask(await here.parts.app())
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait(here, asked))
        await is_waiting(here)
        await here.parts.run_sql("UPDATE approvals SET state = 'granted'")
        await here.parts.drop_listeners()
    assert waiting.result() == "granted"


@pytest.mark.parametrize("state", ["granted", "denied"])
async def test_what_is_decided_about_the_permission_meanwhile_answers_the_question(
    database_url: str, tmp_path: Path, state: Decision
) -> None:
    async with open_approvals(database_url, tmp_path / "one") as one, open_approvals(database_url, tmp_path / "two") as two:
        app = await one.parts.app()
        asked = await one.ask(app)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait(one, asked))
            await is_waiting(one)
            await two.parts.permissions.set_grant(app.id, "mcp.tools.time.other", state, "cli")
            await two.parts.permissions.set_grant(app.id, PERMISSION, state, "cli")
        assert waiting.result() == state
        found = await two.approvals.get(str(asked.id))
        assert (found.state, found.decided_by) == (state, "cli")


async def test_a_question_that_nobody_answers_expires_and_stays_so(here: ApprovalParts) -> None:
    asked = await here.ask(await here.parts.app(), wait_s=0.05)
    assert await wait(here, asked) == "expired"
    with pytest.raises(Conflict, match="no longer waits") as caught:
        await here.approvals.decide(str(asked.id), "granted", "cli")
    assert caught.value.code == "APPROVAL_EXPIRED"
    assert (await here.told(asked.run_id))[1].data["decision"] == "expired"
    assert not await here.approvals.mark_used(asked.id)


async def test_questions_for_which_nobody_waits_expire_as_well(here: ApprovalParts) -> None:
    app = await here.parts.app()
    old, new = await here.ask(app, wait_s=0.0), await here.ask(app)
    with pytest.raises(Conflict):
        await here.approvals.decide(str(old.id), "granted", "cli")
    assert await here.approvals.expire_old() == 1
    assert await here.approvals.expire_old() == 0
    states = {found.id: found.state for found in (await here.approvals.list()).items}
    assert states == {old.id: "expired", new.id: "pending"}


async def test_the_questions_of_a_run_end_with_it_and_none_is_asked_afterwards(here: ApprovalParts) -> None:
    app = await here.parts.app()
    run = await here.add_run(app)
    asked, other = await here.ask(app, run), await here.ask(app)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait(here, asked))
        await is_waiting(here)
        async with here.parts.database.transaction() as connection:
            await here.approvals.expire_run(connection, run)
    assert waiting.result() == "expired"
    assert (await here.approvals.get(str(other.id))).state == "pending"
    await here.parts.run_sql("UPDATE agent_runs SET state = 'failed' WHERE id = :run", run=run)
    with pytest.raises(Conflict) as caught:
        await here.ask(app, run, call_id="call-2")
    assert caught.value.code == "RUN_ENDED"


async def test_a_question_that_is_gone_is_answered_like_one_that_has_expired(here: ApprovalParts) -> None:
    asked = await here.ask(await here.parts.app())
    await here.parts.run_sql("DELETE FROM agent_sessions")
    assert await wait(here, asked) == "expired"


async def test_the_call_that_was_allowed_is_made_once_however_many_try(here: ApprovalParts) -> None:
    asked = await here.ask(await here.parts.app())
    assert not await here.approvals.mark_used(asked.id)
    await here.approvals.decide(str(asked.id), "granted", "cli")
    assert sorted(await asyncio.gather(*(here.approvals.mark_used(asked.id) for _ in range(5)))) == [False] * 4 + [True]
    assert (await here.approvals.get(str(asked.id))).used_at is not None


async def test_of_two_answers_the_first_one_counts(here: ApprovalParts) -> None:
    asked = await here.ask(await here.parts.app())
    decisions: list[Decision] = ["granted", "denied"] * 3
    answers = await asyncio.gather(
        *(here.approvals.decide(str(asked.id), decision, "cli") for decision in decisions), return_exceptions=True
    )
    state = (await here.approvals.get(str(asked.id))).state
    assert [isinstance(answer, Approval) for answer in answers] == [decision == state for decision in decisions]
    assert len(await here.told(asked.run_id)) == 2
    other: Decision = "denied" if state == "granted" else "granted"
    with pytest.raises(Conflict, match=f"already {state}"):
        await here.approvals.decide(str(asked.id), other, "cli")


async def test_a_remembered_answer_becomes_the_permission_of_the_app(here: ApprovalParts) -> None:
    app = await here.parts.app()
    one, two = await here.ask(app), await here.ask(app, permission="agent.fetch")
    await here.approvals.decide(str(one.id), "granted", "cli", remember=True)
    await here.approvals.decide(str(two.id), "denied", "cli", remember=True)
    await here.approvals.decide(str(two.id), "denied", "cli", remember=True)
    grants = (await here.parts.permissions.list_grants(app.id)).items
    assert [(grant.permission, grant.state, grant.decided_by) for grant in grants] == [
        ("agent.fetch", "denied", "cli"),
        (PERMISSION, "granted", "cli"),
    ]
    with pytest.raises(Conflict):
        await here.approvals.decide(str(two.id), "granted", "cli", remember=True)
    assert len((await here.parts.permissions.list_grants(app.id)).items) == 2


async def test_nothing_can_be_remembered_for_a_key(here: ApprovalParts) -> None:
    asked = await here.ask(key_principal((await here.parts.app()).id))
    assert (asked.app_id, asked.app_slug) == (None, None)
    with pytest.raises(InvalidRequest, match="works for an API key"):
        await here.approvals.decide(str(asked.id), "granted", "cli", remember=True)
    assert (await here.approvals.get(str(asked.id))).state == "pending"
    assert (await here.approvals.decide(str(asked.id), "granted", "cli")).state == "granted"


@pytest.mark.parametrize(("policy", "declared", "expected"), [("allow", [], "granted"), ("manifest", [PERMISSION], "granted")])
async def test_where_the_policy_grants_permissions_nobody_is_waited_for(
    database_url: str, tmp_path: Path, policy: str, declared: list[str], expected: str
) -> None:
    async with open_approvals(database_url, tmp_path, permission_policy=policy) as here:
        asked = await here.ask(await here.parts.app(permissions=declared))
        assert await wait(here, asked) == expected
        assert (await here.approvals.get(str(asked.id))).decided_by == f"policy:{policy}"


async def test_what_a_manifest_does_not_declare_is_asked_for(database_url: str, tmp_path: Path) -> None:
    async with open_approvals(database_url, tmp_path, permission_policy="manifest") as here:
        asked = await here.ask(await here.parts.app(permissions=["llm.chat"]), wait_s=0.05)
        assert await wait(here, asked) == "expired"


async def test_long_arguments_are_shown_in_part_and_marked(here: ApprovalParts) -> None:
    app = await here.parts.app()
    long = await here.ask(app, arguments={"text": "ü" * 20_000})
    exact = await here.ask(app, arguments={"text": "x" * (MAX_SHOWN_ARGUMENTS - len('{"text":""}'))})
    assert (len(long.arguments), long.is_cut) == (MAX_SHOWN_ARGUMENTS, True)
    assert (len(exact.arguments), exact.is_cut) == (MAX_SHOWN_ARGUMENTS, False)


async def test_what_a_model_writes_is_kept_whatever_it_is(here: ApprovalParts) -> None:
    asked = await here.ask(
        await here.parts.app(), arguments={"text": "a\0b\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")}
    )
    assert asked.arguments == '{"text":"a\\u0000b😀"}'


async def test_approvals_are_listed_oldest_first_by_pages_and_states(here: ApprovalParts) -> None:
    app = await here.parts.app()
    asked = [(await here.ask(app)).id for _ in range(3)]
    await here.approvals.decide(str(asked[1]), "denied", "cli")
    page = await here.approvals.list(limit=2)
    assert [each.id for each in page.items] == asked[:2]
    assert [each.id for each in (await here.approvals.list(limit=2, cursor=page.next_cursor)).items] == asked[2:]
    assert [each.id for each in (await here.approvals.list(state="pending")).items] == [asked[0], asked[2]]
    with pytest.raises(InvalidRequest):
        await here.approvals.list(state="denied", cursor=page.next_cursor)


async def test_an_approval_is_found_by_the_beginning_of_its_id(here: ApprovalParts) -> None:
    app = await here.parts.app()
    asked = await here.ask(app)
    assert await here.approvals.find(str(asked.id)[:8].upper()) == asked
    assert await here.approvals.find(str(asked.id)) == asked
    for text in ("", "zz", "%", "_", f"{asked.id}0", "\0"):
        with pytest.raises(NotFound):
            await here.approvals.find(text)
    twin = await here.ask(app)
    await here.parts.run_sql("UPDATE approvals SET id = :twin WHERE id = :id", id=twin.id, twin=UUID(f"{str(asked.id)[:-12]}000000000000"))
    with pytest.raises(InvalidRequest, match="Several"):
        await here.approvals.find(str(asked.id)[:8])
    with pytest.raises(NotFound):
        await here.approvals.get(str(asked.id)[:8])
