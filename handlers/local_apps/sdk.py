"""What every client asks first: who am I, and where may I keep files."""

from datetime import UTC, datetime
from typing import Any

from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal


async def ping(principal: Principal) -> dict[str, Any]:
    """Say who is calling; an id that is not known is left out."""
    pong = {"success": True, "message": "pong", "mode": "development" if principal.kind == "key" else "production"}
    app = {} if principal.app_id is None else {"appId": principal.app_id}
    return {**pong, **app, "timestamp": format_time(datetime.now(UTC))}


async def get_data_dir(home: Home, principal: Principal) -> dict[str, Any]:
    """Return the caller's own folder."""
    return {"success": True, "dataDir": str(await home.apps.data_dir(principal))}
