"""The signed-in user's token."""

import base64
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from homeport.errors import Forbidden, InvalidRequest, Unavailable
from homeport.secrets import SecretBox
from homeport.user_tokens import UserTokens, read_expiry
from tests.integration.parts import key_principal, open_parts

pytestmark = pytest.mark.anyio


def jwt(**claims: Any) -> str:
    parts = [orjson.dumps({"alg": "HS256"}), orjson.dumps(claims), b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def test_a_token_is_kept_encrypted_for_its_app_alone(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app, other = await here.app("One"), await here.app("Two")
        token = jwt(exp=time.time() + 3600)
        synced = await here.user_tokens.sync(app, f" {token}\n", "sdk")
        assert await here.user_tokens.get(app) == synced
        assert (synced.token, synced.source) == (token, "sdk")
        assert token not in repr(synced)
        assert await here.user_tokens.get(other) is None
        stored = (await here.run_sql("SELECT token FROM user_tokens"))[0][0]
        assert token.encode() not in bytes(stored)


async def test_a_new_token_replaces_the_old_one(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        first = await here.user_tokens.sync(app, jwt(exp=time.time() + 60), "sdk")
        second = await here.user_tokens.sync(app, "opaque", "other")
        assert await here.user_tokens.get(app) == second
        assert second.synced_at > first.synced_at
        assert await here.run_sql("SELECT expires_at FROM user_tokens") == [(None,)]


@pytest.mark.parametrize("token", [None, "", "  \n", "x" * 16_385, jwt(exp=1), jwt(exp=-1e300), jwt(exp=0)])
async def test_an_empty_oversized_or_expired_token_is_refused_and_the_old_one_kept(
    database_url: str, tmp_path: Path, token: str | None
) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        kept = await here.user_tokens.sync(app, "old", "sdk")
        with pytest.raises(InvalidRequest):
            await here.user_tokens.sync(app, token, "sdk")
        assert await here.user_tokens.get(app) == kept


async def test_a_token_is_gone_when_it_expires(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        await here.user_tokens.sync(app, jwt(exp=time.time() + 3600), "sdk")
        assert await here.user_tokens.has_current(app)
        await here.run_sql("UPDATE user_tokens SET expires_at = now() - interval '1 second'")
        assert await here.user_tokens.get(app) is None
        assert not await here.user_tokens.has_current(app)


@pytest.mark.parametrize(
    "token",
    ["opaque", "a.b", "a.b.c", "a.!!.c", jwt(), jwt(exp="tomorrow"), jwt(exp=True), jwt(exp=1e300), jwt(exp=None), "a.W10.c", "a.\u00e9.c"],
)
def test_a_token_that_does_not_say_when_it_expires_is_taken_to_last(token: str) -> None:
    assert read_expiry(token) is None


async def test_a_token_sealed_with_another_key_is_reported_and_can_be_replaced(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app()
        await here.user_tokens.sync(app, "old", "sdk")
        other = UserTokens(here.database, SecretBox(b"x" * 32))
        with pytest.raises(Unavailable):
            await other.get(app)
        await other.sync(app, "new", "sdk")
        kept = await other.get(app)
        assert kept is not None
        assert kept.token == "new"


async def test_an_app_that_requires_a_user_cannot_touch_activities_without_one(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        app = await here.app(requires_user=True)
        missing = str(uuid4())
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: here.activities.create(app, {}),
            lambda: here.activities.list(app),
            lambda: here.activities.get(app, missing),
            lambda: here.activities.update(app, missing, {}),
            lambda: here.activities.delete(app, missing),
        ]

        async def assert_refused() -> None:
            for call in calls:
                with pytest.raises(Forbidden, match="sdk.auth.syncSupabaseToken") as refused:
                    await call()
                assert refused.value.code == "USER_AUTH_REQUIRED"

        await assert_refused()
        await here.user_tokens.sync(app, jwt(exp=time.time() + 3600), "sdk")
        created = await here.activities.create(app, {})
        assert [each.id for each in await here.activities.list(app)] == [created.id]
        await here.run_sql("UPDATE user_tokens SET expires_at = now()")
        await assert_refused()


async def test_a_key_needs_no_user(database_url: str, tmp_path: Path) -> None:
    async with open_parts(database_url, tmp_path) as here:
        assert await here.activities.list(key_principal(uuid4())) == []
