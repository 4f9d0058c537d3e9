"""What an agent may be made of. Every function returns what it was given, as it is stored, or raises InvalidRequest."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from homeport.errors import InvalidRequest
from homeport.ids import check_name
from homeport.slugs import check_slug

MAX_DESCRIPTION = 2000
MAX_INSTRUCTIONS = 100_000
MAX_TOOLS = 100
MAX_PATTERN = 401
MAX_REFERENCE = 200

_PATTERN = re.compile(r"\*|[^*/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*/[^\x00-\x1f\x7f-\x9f]+")


def check_agent_slug(slug: str) -> str:
    """A slug, which may begin with @."""
    check_slug(slug.removeprefix("@"))
    return slug


def check_tools(patterns: Sequence[str]) -> list[str]:
    """Patterns of tools: ``server/tool``, ``server/*`` or ``*``, each once. What they name need not be there yet."""
    if len(patterns) > MAX_TOOLS:
        raise InvalidRequest(
            f"An agent takes at most {MAX_TOOLS} patterns of tools, not {len(patterns)}. SERVER/* stands for all of a server."
        )
    return [*dict.fromkeys(_check_pattern(pattern) for pattern in patterns)]


def _check_pattern(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN or not _PATTERN.fullmatch(pattern):
        raise InvalidRequest(f"'{pattern[:80]}' names no tool: write SERVER/TOOL, SERVER/* for all of a server's, or '*' for all.")
    return pattern


def _check_text(text: str, what: str, limit: int) -> str:
    if len(text) > limit:
        raise InvalidRequest(f"{what} at most {limit} characters, not {len(text)}.")
    if "\0" in text:
        raise InvalidRequest(f"{what} no character U+0000.")
    return text


def _check_reference(text: str, what: str) -> str | None:
    text = text.strip()
    if len(text) > MAX_REFERENCE or any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidRequest(f"{what} has at most {MAX_REFERENCE} characters, without control characters.")
    return text or None


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "display_name": lambda name: check_name(name, "an agent"),
    "description": lambda text: _check_text(text, "A description has", MAX_DESCRIPTION),
    "hub_id": lambda text: _check_reference(text, "The id in a hub"),
    "instructions": lambda text: _check_text(text, "Instructions have", MAX_INSTRUCTIONS),
    "provider": lambda text: _check_reference(text, "The name of a provider"),
    "model": lambda text: _check_reference(text, "The name of a model"),
    "tools": check_tools,
}
