"""The environment of an app: little of the server's own, who the app is and where the server is, and what its operator has set."""

from collections.abc import Mapping

from homeport.apps import App
from homeport.launch import fill
from homeport.settings import Settings

# Whatever is not named here stays with the server: its settings, its database, the keys of model providers.
KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"}
    | {"SYSTEMROOT", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "PROGRAMDATA"}
)
LAUNCH_ID = "RTX_LAUNCH_ID"


def make_environment(
    settings: Settings, app: App, port: int, own: Mapping[str, str], *, launch_id: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment that an app is started with. ``own`` is what its operator has set; ``launch_id`` tells what belongs to this start."""
    environment = {name: value for name, value in inherited.items() if name.upper() in KEPT or name.upper().startswith("LC_")}
    environment |= {
        # So that lines of Python programs are in the log when they are written.
        "PYTHONUNBUFFERED": "1",
        "SERVER_URL": settings.base_url,
        "REALTIMEX_BASE_URL": settings.base_url,
    }
    if settings.contract_secret is not None:
        environment["RTX_CONTRACT_CALLBACK_SECRET"] = settings.contract_secret.get_secret_value()
    environment |= {name: fill(value, port) for name, value in own.items()}
    return environment | {"RTX_APP_ID": str(app.id), "RTX_APP_NAME": app.name, "RTX_PORT": str(port), LAUNCH_ID: launch_id}
