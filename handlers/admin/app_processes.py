"""The processes of apps: looked at, started, stopped. Each answer says what holds at that moment; the change follows."""

from typing import Any

from homeport.clock import format_time
from homeport.home import Home
from homeport.launcher import AppProcess


async def get_process(home: Home, app_id: str) -> dict[str, Any]:
    """Return the process of an app."""
    return _process(await home.launcher.state(app_id))


async def start_app(home: Home, app_id: str) -> dict[str, Any]:
    """Have an app run."""
    return _process(await home.launcher.start(app_id))


async def stop_app(home: Home, app_id: str) -> dict[str, Any]:
    """Have an app not run."""
    return _process(await home.launcher.stop(app_id))


async def restart_app(home: Home, app_id: str) -> dict[str, Any]:
    """End an app and start it again."""
    return _process(await home.launcher.restart(app_id))


async def get_log(home: Home, app_id: str, lines: int = 100) -> dict[str, Any]:
    """The last lines of an app's log."""
    return {"lines": await home.launcher.logs(app_id, lines)}


def _process(process: AppProcess) -> dict[str, Any]:
    known: dict[str, Any] = {name: getattr(process, name) for name in ("port", "url", "pid", "exit_code", "error")}
    if process.started_at is not None:
        known["started_at"] = format_time(process.started_at)
    return {
        "app_id": str(process.app_id),
        "state": process.state,
        "wanted": process.is_wanted,
        "restarts": process.restarts,
        **{name: value for name, value in known.items() if value is not None},
    }
