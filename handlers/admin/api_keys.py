"""API keys. The key itself appears once, in the answer that creates it."""

from typing import Any

from homeport.clock import format_time, parse_time
from homeport.home import Home
from homeport.identity import Principal
from homeport.keys import ApiKey


async def list_api_keys(home: Home, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
    """List all keys, newest first."""
    return (await home.keys.list(limit=limit, cursor=cursor)).render(_api_key)


async def create_api_key(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Create a key, at most as mighty as the one that creates it."""
    scopes = body.get("scopes", ["*"])
    key, text = await home.keys.create(body["name"], scopes, parse_time(body.get("expires_at")), principal.granted)
    return _api_key(key) | {"key": text}


async def get_api_key(home: Home, key_id: str) -> dict[str, Any]:
    """Return one key."""
    return _api_key(await home.keys.get(key_id))


async def revoke_api_key(home: Home, key_id: str) -> dict[str, Any]:
    """Revoke a key for good."""
    return _api_key(await home.keys.revoke(key_id))


def _api_key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "created_at": format_time(key.created_at),
        "expires_at": format_time(key.expires_at),
        "last_used_at": format_time(key.last_used_at),
        "revoked_at": format_time(key.revoked_at),
    }
