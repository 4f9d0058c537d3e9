"""What an MCP server may be called and how it may be reached. Every function returns what it was given, or raises InvalidRequest."""

import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from homeport.errors import InvalidRequest
from homeport.ids import check_name, parse_uuid

# The tools that are built in stand under this name, in rules and in what an agent is given.
BUILTIN_SERVER = "homeport"
MAX_NAME_LENGTH = 200
MAX_TEXT_LENGTH = 4000
MAX_ITEMS = 200
MAX_TIMEOUT_S = 3600.0
DEFAULT_TIMEOUT_S = 60.0

# What HTTP itself sets, or what would change where a request goes.
_RESERVED_HEADERS = frozenset({"connection", "content-length", "content-type", "host", "mcp-session-id", "transfer-encoding"})
_VARIABLE = re.compile(r"[^=\x00]+")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PLACEHOLDER = re.compile(r"\$\{[^}]+\}")


def check_server_name(name: str) -> str:
    """A server's name: up to 200 characters, slashes too. One in the form of a UUID is refused, because ids stand in the same places,
    and so is the name of the built-in tools, in whatever letters."""
    name = check_name(name, "an MCP server")
    if name.casefold() == BUILTIN_SERVER:
        raise InvalidRequest(f"'{BUILTIN_SERVER}' is the name of the tools that are built in. Choose another one for an MCP server.")
    if parse_uuid(name):
        raise InvalidRequest("The name of an MCP server must not have the form of a UUID: servers have ids of that form.")
    return name


def check_text(text: str, what: str, *, limit: int = MAX_TEXT_LENGTH) -> str:
    """Text without U+0000 that is not longer than ``limit``."""
    if len(text) > limit or "\0" in text:
        raise InvalidRequest(f"{what} must be at most {limit} characters, without U+0000.")
    return text


def check_texts(texts: Sequence[str], what: str) -> list[str]:
    """At most MAX_ITEMS texts."""
    if len(texts) > MAX_ITEMS:
        raise InvalidRequest(f"{what}: at most {MAX_ITEMS} are possible.")
    return [check_text(text, what) for text in texts]


def check_command(command: str) -> str:
    """A program: a plain name, to be looked for on the PATH, or an absolute path. It is never given to a shell."""
    command = check_text(command.strip(), "A command")
    if not command or has_controls(command):
        raise InvalidRequest("A command must be the name of a program, or its absolute path.")
    if os.path.dirname(command) and not os.path.isabs(command):
        raise InvalidRequest(f"The command '{command[:200]}' is a relative path. Give the absolute one, or a name that is on the PATH.")
    return command


def check_cwd(cwd: str) -> str:
    """An absolute path."""
    if not os.path.isabs(check_text(cwd, "A working directory")) or has_controls(cwd):
        raise InvalidRequest("A working directory must be an absolute path.")
    return cwd


def check_url(url: str) -> str:
    """An http or https address without credentials or fragment."""
    url = check_text(url.strip(), "An address")
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequest("An MCP server's URL must be an http or https address, such as https://mcp.example.com/mcp.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("An MCP server's URL must not hold a user name or password; give a header instead.")
    if parts.fragment:
        raise InvalidRequest("An MCP server's URL must not hold a fragment.")
    return url


def check_env(env: Mapping[str, str]) -> dict[str, str]:
    """Environment variables."""
    _check_count(env, "environment variables")
    for name, value in env.items():
        if not _VARIABLE.fullmatch(check_text(name, "The name of an environment variable", limit=MAX_NAME_LENGTH)):
            raise InvalidRequest(f"'{name[:80]}' cannot name an environment variable.")
        check_text(value, f"The value of {name[:80]}")
    return dict(env)


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """HTTP headers, but not those that belong to the protocol."""
    _check_count(headers, "headers")
    for name, value in headers.items():
        if len(name) > MAX_NAME_LENGTH or not _HEADER.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
            raise InvalidRequest(f"'{name[:80]}' is not a header that can be set.")
        if len(value) > MAX_TEXT_LENGTH or not (value.isascii() and value.isprintable()):
            raise InvalidRequest(f"The value of the header '{name[:80]}' must be visible ASCII characters.")
    return dict(headers)


def check_timeout(timeout_s: float) -> float:
    """Seconds that a call may take."""
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise InvalidRequest(f"A timeout must be more than 0 and at most {MAX_TIMEOUT_S:.0f} seconds.")
    return float(timeout_s)


def find_command_problem(command: str, cwd: str | None) -> str | None:
    """Why this command cannot be run here, in a sentence for people; None when it looks as if it could."""
    if shutil.which(command) is None:
        if os.path.isabs(command):
            return f"There is no program {command} on this machine. Install it, or correct the path."
        return f"The command '{command}' is not on the server's PATH. Install it, or give its absolute path."
    if cwd is not None and not Path(cwd).is_dir():
        return f"The working directory {cwd} does not exist."
    return None


def has_controls(text: str) -> bool:
    """Whether there are control characters in a text."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def has_placeholder(texts: Iterable[str]) -> bool:
    """Whether one of these texts holds ``${SOMETHING}``, which other programs fill in and this one does not."""
    return any(_PLACEHOLDER.search(text) for text in texts)


def _check_count(values: Mapping[str, str], what: str) -> None:
    if len(values) > MAX_ITEMS:
        raise InvalidRequest(f"An MCP server takes at most {MAX_ITEMS} {what}.")
