"""Grants, and the handshake by which an app asks for permissions."""

from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from homeport.errors import AppError, Conflict, InvalidRequest, NotFound, TooManyRequests
from homeport.grants import PermissionRequest
from homeport.permissions import Answer
from tests.integration.parts import Parts, eventually, open_parts

pytestmark = pytest.mark.anyio

UNKNOWN = "7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09"


class Asking:
    """An app that waits for an answer in the background."""

    def __init__(self, parts: Parts, app_id: str, *permissions: str) -> None:
        self.answer: Answer | None = None
        self.error: AppError | None = None
        self._parts, self._app_id, self._permissions = parts, app_id, permissions

    async def run(self) -> None:
        try:
            self.answer = await self._parts.permissions.register(self._app_id, "Calls itself this", self._permissions)
        except AppError as error:
            self.error = error

    async def __aenter__(self) -> "Asking":
        self._exit = AsyncExitStack()
        self._exit.enter_context(anyio.fail_after(5))
        tasks = await self._exit.enter_async_context(anyio.create_task_group())
        self.cancel = tasks.cancel_scope.cancel
        tasks.start_soon(self.run)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._exit.aclose()


async def pending(parts: Parts, count: int = 1) -> list[PermissionRequest]:
    """The pending requests, as soon as there are ``count``."""

    async def read() -> list[PermissionRequest]:
        return (await parts.permissions.list_requests(state="pending")).items

    return await eventually(read, lambda found: len(found) == count)


# The three policies.


async def test_allow_grants_everything_but_the_administration(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_policy="allow") as here:
        app = await here.app()
        answer = await here.permissions.register(str(app.id), None, ["llm.chat", "admin.keys.write", "activities.read"])
        assert (answer.granted, answer.denied, answer.undecided) == (["llm.chat", "activities.read"], ["admin.keys.write"], [])
        grants = (await here.permissions.list_grants(app.id)).items
        assert [(grant.permission, grant.state, grant.decided_by) for grant in grants] == [
            ("activities.read", "granted", "policy:allow"),
            ("llm.chat", "granted", "policy:allow"),
        ]
        assert (await here.permissions.list_requests()).items == []


async def test_manifest_grants_what_is_declared_and_forgets_that_it_denied_the_rest(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_policy="manifest") as here:
        app = await here.app(permissions=["llm.chat"])
        answer = await here.permissions.register(str(app.id), None, ["llm.chat", "llm.embed"])
        assert (answer.granted, answer.denied, answer.undecided) == (["llm.chat"], ["llm.embed"], [])
        assert [grant.permission for grant in (await here.permissions.list_grants(app.id)).items] == ["llm.chat"]
        await here.apps.update(str(app.id), permissions=["llm.chat", "llm.embed"])
        assert await here.permissions.request(str(app.id), None, "llm.embed")


@pytest.mark.parametrize("policy", ["allow", "manifest", "prompt"])
async def test_what_a_person_denied_stays_denied_at_once_under_every_policy(database_url: str, tmp_path: Path, policy: str) -> None:
    async with open_parts(database_url, tmp_path, permission_policy=policy, permission_wait_s=600) as here:
        app = await here.app(permissions=["llm.chat"])
        await here.permissions.set_grant(app.id, "llm.chat", "denied", "test")
        with anyio.fail_after(5):
            answer = await here.permissions.register(str(app.id), None, ["llm.chat"])
            assert not await here.permissions.request(str(app.id), None, "llm.chat")
        assert (answer.denied, answer.message) == (["llm.chat"], "All permissions already processed")


@pytest.mark.parametrize("policy", ["allow", "manifest"])
async def test_a_policy_does_not_overrule_a_person_who_decides_at_the_same_time(database_url: str, tmp_path: Path, policy: str) -> None:
    async with open_parts(database_url, tmp_path, permission_policy=policy) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app(permissions=["llm.chat"])
        deny = f"INSERT INTO grants (app_id, permission, state, decided_by) VALUES ('{app.id}', 'llm.chat', 'denied', 'person')"
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with AsyncExitStack() as both:
            connection = await both.enter_async_context(there.database.transaction())
            await connection.exec_driver_sql("SELECT FROM apps FOR UPDATE")
            await connection.exec_driver_sql(deny)
            async with Asking(here, str(app.id), "llm.chat") as asking:
                await eventually(lambda: there.run_sql(waiting), lambda rows: rows[0][0] == 1)
                await both.aclose()
        assert asking.answer is not None
        assert asking.answer.denied == ["llm.chat"]


async def test_prompt_waits_for_a_person_and_answers_with_the_decision(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app(permissions=["llm.chat"])
        async with Asking(here, str(app.id), "llm.chat", "llm.embed") as asking:
            first, second = await pending(here, 2)
            assert (first.permission, first.app_id, first.app_slug, first.app_name) == ("llm.chat", app.id, "app", "Calls itself this")
            decided = await here.permissions.decide(str(first.id), "granted", "test")
            assert decided.state == "granted"
            assert decided.decided_at is not None
            await here.permissions.decide(str(second.id), "denied", "test")
        assert asking.answer == Answer(["llm.chat"], ["llm.embed"], [], "Permissions decided")
        grants = (await here.permissions.list_grants(app.id)).items
        assert [(grant.permission, grant.state, grant.decided_by) for grant in grants] == [
            ("llm.chat", "granted", "test"),
            ("llm.embed", "denied", "test"),
        ]


async def test_a_grant_is_in_force_when_the_app_is_told(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app()
        async with Asking(here, str(app.id), "llm.chat") as asking:
            (request,) = await pending(there)
            cached = await here.identity.authenticate_app(str(app.id))
            assert cached is not None
            assert cached.decide("llm.chat") == "undecided"
            await there.permissions.decide(str(request.id), "granted", "test")
        assert asking.answer is not None
        assert asking.answer.granted == ["llm.chat"]
        principal = await here.identity.authenticate_app(str(app.id))
        assert principal is not None
        assert principal.decide("llm.chat") == "granted"


async def test_a_grant_made_directly_answers_the_app_and_closes_its_request(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app()
        async with Asking(here, str(app.id), "llm.chat") as asking:
            (request,) = await pending(there)
            await there.permissions.set_grant(app.id, "llm.chat", "denied", "test")
        assert asking.answer is not None
        assert asking.answer.denied == ["llm.chat"]
        assert (await here.permissions.get_request(str(request.id))).state == "denied"


async def test_a_decision_is_found_and_in_force_although_its_notification_was_lost(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, recheck_s=0.05) as here:
        app = await here.app()
        async with Asking(here, str(app.id), "llm.chat") as asking:
            await pending(here)
            await here.run_sql(
                "INSERT INTO grants (app_id, permission, state, decided_by) VALUES (:id, 'llm.chat', 'granted', 'sql')", id=app.id
            )
        assert asking.answer is not None
        assert asking.answer.granted == ["llm.chat"]
        principal = await here.identity.authenticate_app(str(app.id))
        assert principal is not None
        assert principal.decide("llm.chat") == "granted"


async def test_a_decision_is_found_when_the_notification_connection_broke(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, recheck_s=600, permission_wait_s=600) as here:
        app = await here.app()
        async with Asking(here, str(app.id), "llm.chat") as asking:
            await pending(here)
            await here.run_sql(
                "INSERT INTO grants (app_id, permission, state, decided_by) VALUES (:id, 'llm.chat', 'granted', 'sql')", id=app.id
            )
            await here.drop_listeners()
        assert asking.answer is not None
        assert asking.answer.granted == ["llm.chat"]


async def test_when_nobody_decides_the_app_is_told_and_the_request_stays(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0.05) as here:
        app = await here.app()
        await here.permissions.set_grant(app.id, "llm.embed", "granted", "test")
        answer = await here.permissions.register(str(app.id), None, ["llm.embed", "llm.chat"])
        assert (answer.granted, answer.denied, answer.undecided) == (["llm.embed"], [], ["llm.chat"])
        assert f"homeport apps grant {app.id} llm.chat" in answer.message
        (first,) = await pending(here)
        assert first.app_name == "App"
        assert not await here.permissions.request(str(app.id), "Other name", "llm.chat")
        assert await pending(here) == [first]
        await here.permissions.decide(str(first.id), "granted", "test")
        assert await here.permissions.request(str(app.id), None, "llm.chat")


async def test_two_processes_asking_for_the_same_share_one_request(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app()
        async with Asking(here, str(app.id), "llm.chat") as one, Asking(there, str(app.id), "llm.chat", "llm.embed") as two:
            for request in await pending(here, 2):
                await there.permissions.decide(str(request.id), "granted", "test")
        assert one.answer is not None
        assert one.answer.granted == ["llm.chat"]
        assert two.answer is not None
        assert two.answer.granted == ["llm.chat", "llm.embed"]


async def test_an_app_that_goes_away_frees_its_place_and_leaves_its_request(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeport.permissions.MAX_WAITERS", 1)
    async with open_parts(database_url, tmp_path) as here:
        app, other = await here.app("One"), await here.app("Two")
        async with Asking(here, str(app.id), "llm.chat") as asking:
            await pending(here)
            with pytest.raises(TooManyRequests):
                await here.permissions.register(str(other.id), None, ["llm.chat"])
            asking.cancel()
        assert asking.answer is None
        assert len(await pending(here)) == 1
        async with Asking(here, str(other.id), "llm.chat") as asking:
            requests = await pending(here, 2)
            await here.permissions.decide(str(requests[1].id), "granted", "test")
        assert asking.answer is not None
        assert asking.answer.granted == ["llm.chat"]


async def test_an_app_cannot_pile_up_requests(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeport.permissions.MAX_PENDING_PER_APP", 3)
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here:
        app = await here.app()
        await here.permissions.register(str(app.id), None, ["a.one", "a.two", "a.three"])
        with pytest.raises(TooManyRequests, match="3 permission requests"):
            await here.permissions.request(str(app.id), None, "a.four")
        assert not await here.permissions.request(str(app.id), None, "a.one")
        assert len(await pending(here, 3)) == 3


async def test_an_app_that_is_removed_while_it_waits_is_not_found(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app()
        async with Asking(here, str(app.id), "llm.chat") as asking:
            await pending(here)
            await there.apps.remove(str(app.id))
        assert isinstance(asking.error, NotFound)
        assert asking.error.code == "APP_NOT_FOUND"


@pytest.mark.parametrize("policy", ["allow", "manifest", "prompt"])
@pytest.mark.parametrize(
    ("app_id", "error", "code"),
    [
        (None, InvalidRequest, "MISSING_APP_ID"),
        ("", InvalidRequest, "MISSING_APP_ID"),
        (UNKNOWN, NotFound, "APP_NOT_FOUND"),
        ("x", NotFound, "APP_NOT_FOUND"),
    ],
)
async def test_only_a_registered_app_can_ask(
    database_url: str, tmp_path: Path, policy: str, app_id: str | None, error: type[Exception], code: str
) -> None:
    async with open_parts(database_url, tmp_path, permission_policy=policy) as here:
        with pytest.raises(error) as refused:
            await here.permissions.register(app_id, "App", [])
        assert refused.value.code == code  # type: ignore[attr-defined]
        with pytest.raises(error):
            await here.permissions.request(app_id, None, "llm.chat")
        assert (await here.permissions.list_requests()).items == []


async def test_nobody_is_asked_about_the_administration_or_about_nonsense(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=600) as here:
        app = await here.app()
        with anyio.fail_after(5):
            assert not await here.permissions.request(str(app.id), None, "admin.keys.write")
            answer = await here.permissions.register(str(app.id), None, [])
            assert answer == Answer([], [], [], "All permissions already processed")
        for nonsense in ("*", "llm.*", "LLM", ""):
            with pytest.raises(InvalidRequest):
                await here.permissions.request(str(app.id), None, nonsense)
        assert (await here.permissions.list_requests()).items == []


async def test_the_name_that_an_app_gives_itself_cannot_disturb_a_terminal(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here:
        app = await here.app()
        await here.permissions.request(str(app.id), "\x1b[2JNotes\x00\u202e" + "x" * 300, "llm.chat")
        (request,) = await pending(here)
        assert request.app_name.startswith("[2JNotes  xxx")
        assert request.app_name.isprintable()
        assert len(request.app_name) <= 200


# Decisions.


async def test_a_request_is_decided_once(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here:
        app = await here.app()
        await here.permissions.request(str(app.id), None, "llm.chat")
        (request,) = await pending(here)
        first = await here.permissions.decide(str(request.id), "denied", "one")
        assert await here.permissions.decide(str(request.id), "denied", "two") == first
        with pytest.raises(Conflict, match="already denied"):
            await here.permissions.decide(str(request.id), "granted", "two")
        (grant,) = (await here.permissions.list_grants(app.id)).items
        assert (grant.state, grant.decided_by) == ("denied", "one")


async def test_of_two_contrary_decisions_at_once_one_wins_and_is_the_grant(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here, open_parts(database_url, tmp_path) as there:
        app = await here.app()
        names = [f"a.p{number}" for number in range(20)]
        await here.permissions.register(str(app.id), None, names)
        outcomes: dict[str, list[str]] = {name: [] for name in names}

        async def decide(parts: Parts, request: PermissionRequest, decision: Any) -> None:
            with suppress(Conflict):  # the other one won
                await parts.permissions.decide(str(request.id), decision, decision)
                outcomes[request.permission].append(decision)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for request in await pending(here, 20):
                    tasks.start_soon(decide, here, request, "granted")
                    tasks.start_soon(decide, there, request, "denied")
        grants = {grant.permission: [grant.state] for grant in (await here.permissions.list_grants(app.id)).items}
        assert grants == outcomes


@pytest.mark.parametrize("request_id", [UNKNOWN, "x"])
async def test_a_request_that_is_not_there_is_not_found(database_url: str, tmp_path: Path, request_id: str) -> None:
    async with open_parts(database_url, tmp_path) as here:
        with pytest.raises(NotFound):
            await here.permissions.get_request(request_id)
        with pytest.raises(NotFound):
            await here.permissions.decide(request_id, "granted", "test")


async def test_a_decision_can_be_changed_and_forgotten(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here:
        app = await here.app()
        granted = await here.permissions.set_grant(app.id, "llm.chat", "granted", "one")
        denied = await here.permissions.set_grant(app.id, "llm.chat", "denied", "two")
        assert (granted.state, denied.state, denied.decided_by) == ("granted", "denied", "two")
        assert denied.decided_at > granted.decided_at
        assert await here.permissions.reset_grant(app.id, "llm.chat") == denied
        with pytest.raises(NotFound, match="no decision about 'llm.chat'"):
            await here.permissions.reset_grant(app.id, "llm.chat")
        answer = await here.permissions.register(str(app.id), None, ["llm.chat"])
        assert answer.undecided == ["llm.chat"]


async def test_resetting_an_app_forgets_its_decisions_only(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app, other = await here.app("One"), await here.app("Two")
        for principal in (app, other):
            await here.permissions.set_grant(principal.id, "llm.chat", "granted", "test")
            await here.permissions.set_grant(principal.id, "llm.embed", "denied", "test")
        assert {grant.permission for grant in await here.permissions.reset_grants(app.id)} == {"llm.chat", "llm.embed"}
        assert (await here.permissions.list_grants(app.id)).items == []
        assert len((await here.permissions.list_grants(other.id)).items) == 2


async def test_an_app_that_is_not_there_cannot_be_given_anything(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        with pytest.raises(NotFound):
            await here.permissions.set_grant(uuid4(), "llm.chat", "granted", "test")
        with pytest.raises(NotFound):
            await here.permissions.reset_grants(uuid4())
        app = await here.app()
        with pytest.raises(InvalidRequest, match="cannot be given to an app"):
            await here.permissions.set_grant(app.id, "admin.keys.read", "granted", "test")


async def test_grants_and_requests_are_listed_page_by_page(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path, permission_wait_s=0) as here:
        app = await here.app()
        await here.permissions.register(str(app.id), None, [f"a.p{number}" for number in range(5)])
        first = await here.permissions.list_requests(state="pending", limit=3)
        second = await here.permissions.list_requests(state="pending", limit=3, cursor=first.next_cursor)
        assert [request.permission for request in first.items + second.items] == [f"a.p{number}" for number in range(5)]
        assert second.next_cursor is None
        with pytest.raises(InvalidRequest):
            await here.permissions.list_requests(state="denied", cursor=first.next_cursor)
        for request in first.items:
            await here.permissions.decide(str(request.id), "granted", "test")
        grants = await here.permissions.list_grants(app.id, limit=2)
        rest = await here.permissions.list_grants(app.id, limit=2, cursor=grants.next_cursor)
        assert [grant.permission for grant in grants.items + rest.items] == ["a.p0", "a.p1", "a.p2"]
