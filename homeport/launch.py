"""How an app is started from here: its command and what goes with it, as an operator has written them down. An app never changes this."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from homeport.errors import InvalidRequest
from homeport.tools import checking

MAX_URL_LENGTH = 2000
PORT, PYTHON = "{port}", "{python}"

_OWN_VARIABLES = ("RTX_APP_ID", "RTX_APP_NAME", "RTX_PORT", "RTX_LAUNCH_ID")
_WHY_NO_KEY = (
    "RTX_API_KEY is not given to an app: with a key it would act as a developer, hold all that the key gives, and ask nobody for a "
    "permission. The app has its own id in RTX_APP_ID; grant it what it needs (homeport apps grant)."
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How an app is started. ``env`` are the names of its own variables; their values are stored apart, encrypted.

    ``{port}`` in arguments, values of variables and ``home_url`` stands for the port that the app is given, ``{python}`` in the command and
    the arguments for the Python that the server itself runs on. ``working_dir`` None is the app's own folder.
    """

    command: str
    args: tuple[str, ...] = ()
    working_dir: str | None = None
    home_url: str | None = None
    health_path: str | None = None
    autostart: bool = False
    env: tuple[str, ...] = ()

    def as_stored(self) -> dict[str, Any]:
        """As it stands in the database."""
        return asdict(self)

    def command_line(self, port: int) -> list[str]:
        """The command and its arguments, filled in."""
        return [self.command.replace(PYTHON, sys.executable), *(fill(arg, port).replace(PYTHON, sys.executable) for arg in self.args)]

    def url(self, port: int) -> str | None:
        """Where people find the app; None when it has no page."""
        return None if self.home_url is None else fill(self.home_url, port)

    def health_url(self, port: int) -> str | None:
        """What is asked to see whether the app is well; None: nothing but that it runs."""
        if self.health_path is None:
            return self.url(port)
        return urljoin(self.url(port) or f"http://127.0.0.1:{port}/", self.health_path)


def fill(text: str, port: int) -> str:
    """``text`` with the port in the place of ``{port}``."""
    return text.replace(PORT, str(port))


def read_launch(stored: Mapping[str, Any] | None) -> Launch | None:
    """What stands in the database."""
    return None if stored is None else Launch(**{**stored, "args": tuple(stored["args"]), "env": tuple(stored["env"])})


def change_launch(before: Launch | None, changes: Mapping[str, Any]) -> tuple[Launch, dict[str, str] | None]:
    """``before`` with ``changes``: fields of Launch, and ``env`` as a whole with its values; what is left out stays. None takes away.

    Returns the values of ``env`` apart; None: they stay as they are. Raises InvalidRequest for the first thing that is wrong.
    """
    if before is None and changes.get("command") is None:
        raise InvalidRequest("An app that is started from here needs a command: the name of a program, or its absolute path.")
    checked = {name: _CHECKS[name](value) for name, value in changes.items()}
    env: dict[str, str] | None = checked.pop("env", None)
    if env is not None:
        checked["env"] = tuple(sorted(env))
    return (Launch(**checked) if before is None else replace(before, **checked)), env


def _check_command(command: str | None) -> str:
    if command is None:
        raise InvalidRequest("An app cannot be left without a command. To have it not run: homeport apps stop, and autostart off.")
    return checking.check_command(command)


def _check_home_url(url: str) -> str:
    url = checking.check_text(url.strip(), "A home URL", limit=MAX_URL_LENGTH)
    try:
        parts = urlsplit(fill(url, 8100))
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or not _is_visible(url):
        raise InvalidRequest(f"A home URL must be an http or https address, such as http://127.0.0.1:{PORT}/.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidRequest("A home URL must not hold a user name, a password or a fragment.")
    return url


def _check_health_path(path: str) -> str:
    path = checking.check_text(path, "A health path", limit=MAX_URL_LENGTH)
    if not path.startswith("/") or path.startswith("//") or "#" in path or not _is_visible(path):
        raise InvalidRequest("A health path must begin with one slash, such as /health, and hold neither blanks nor a fragment.")
    return path


def _check_env(env: Mapping[str, str] | None) -> dict[str, str]:
    env = env or {}
    if len(env) > checking.MAX_ITEMS:
        raise InvalidRequest(f"An app takes at most {checking.MAX_ITEMS} environment variables.")
    for name in env:
        if name.upper() == "RTX_API_KEY":
            raise InvalidRequest(_WHY_NO_KEY)
        if name.upper() in _OWN_VARIABLES:
            raise InvalidRequest(f"{name} is set by Homeport itself, for each start. Leave it out.")
    return checking.check_env(env)


def _is_visible(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _unless_none(check: Callable[[str], str]) -> Callable[[str | None], str | None]:
    return lambda text: None if text is None else check(text)


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "command": _check_command,
    "args": lambda args: tuple(checking.check_texts(args or (), "An argument")),
    "working_dir": _unless_none(checking.check_cwd),
    "home_url": _unless_none(_check_home_url),
    "health_path": _unless_none(_check_health_path),
    "autostart": bool,
    "env": _check_env,
}
