"""What built-in tools have in common: schemas as models read them, and results that are bounded."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from homeport.tools import ToolOutput

MAX_JSON = 2000


def schema(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """The schema of a tool's arguments: an object with these properties and no others."""
    return {"type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False}


def output(text: str, structured: Any = None) -> ToolOutput:
    """A result: ``text`` for the model, ``structured`` for programs."""
    return ToolOutput([{"type": "text", "text": text}], structured=structured)


def cut(text: str, limit: int) -> str:
    """``text`` with at most ``limit`` characters; that it was cut is said at its end."""
    return text if len(text) <= limit else f"{text[:limit]}… (cut, {len(text)} characters in all)"


def show_json(value: Any, limit: int = MAX_JSON) -> str:
    """A JSON value as text, cut to ``limit`` characters."""
    return cut(orjson.dumps(value).decode(), limit)
