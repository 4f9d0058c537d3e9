"""The signed-in user's token: handed over by one part of an app, asked for by others."""

from typing import Any

from homeport.clock import format_time
from homeport.errors import NotFound
from homeport.home import Home
from homeport.identity import Principal
from homeport.user_tokens import UserToken


async def get_user_token(home: Home, principal: Principal) -> dict[str, Any]:
    """Return the token, or not found: then nobody is signed in."""
    if (kept := await home.user_tokens.get(principal)) is None:
        raise NotFound("No user token: nobody is signed in, or the token has expired.", code="NO_USER_TOKEN")
    return {"success": True, "token": kept.token, **_status(kept)}


async def sync_user_token(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Keep a token."""
    kept = await home.user_tokens.sync(principal, body.get("token"), source="sdk")
    return {"success": True, "message": "User token synced", **_status(kept)}


def _status(kept: UserToken) -> dict[str, Any]:
    return {"hasToken": True, "syncedAt": format_time(kept.synced_at), "source": kept.source}
