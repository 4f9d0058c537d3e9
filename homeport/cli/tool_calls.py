"""Arguments of a tool as a person types them, and what it gave as a person reads it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import typer

from homeport.cli.writing import print_json, say

if TYPE_CHECKING:
    from homeport.tools import ToolOutput


def read_arguments(given: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """One JSON object, or ``NAME=VALUE`` each: a value is JSON, unless the schema wants a text there or it cannot be read as JSON."""
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            arguments: dict[str, Any] = orjson.loads(given[0])
        except orjson.JSONDecodeError as error:
            raise typer.BadParameter(f"this is not JSON: {error}") from error
        return arguments
    values = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"'{text}' is not NAME=VALUE.")
        values[name] = value if _is_text(schema, name) else _read_json(value)
    return values


def print_output(output: "ToolOutput", *, is_json: bool) -> None:
    """Print a tool's result: its texts as they are, and a word about anything else."""
    if is_json:
        known = {"content": output.content, "isError": output.is_error, "structuredContent": output.structured}
        return print_json({name: value for name, value in known.items() if value is not None})
    for block in output.content:
        text = block.get("text")
        told = _without_controls(text) if isinstance(text, str) else f"[{block.get('type')}: {block.get('mimeType', 'see --json')}]"
        typer.echo(told, err=output.is_error)
    if not output.content:
        say("It gave nothing.")


def _is_text(schema: Mapping[str, Any], name: str) -> bool:
    properties = schema.get("properties")
    known = properties.get(name) if isinstance(properties, dict) else None
    return isinstance(known, dict) and known.get("type") == "string"


def _read_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _without_controls(text: str) -> str:
    """What a stranger wrote, without what would steer a terminal."""
    return "".join(character for character in text if character.isprintable() or character in "\n\t")
