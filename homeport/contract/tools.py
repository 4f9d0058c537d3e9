"""Operations as tools (``x-mcp``): a name, one object of arguments and a JSON Schema of its own, for callers that know no HTTP.

The arguments are the operation's path and query parameters and the properties of its JSON body, side by side. They are checked against
the schema that the tool publishes, and then travel as an ordinary request, which is checked like any other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

from homeport.contract.parameters import describe
from homeport.contract.schemas import Schemas, Validator, self_contained, translate
from homeport.errors import InvalidRequest

Json = dict[str, Any]

JSON = "application/json"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HINTS = ("read_only", "destructive", "idempotent")


class PlacedArguments(NamedTuple):
    """A tool's arguments where its operation expects them. ``body`` is None when there is none to send."""

    path: dict[str, str]
    query: bytes
    body: Json | None


@dataclass(frozen=True, slots=True)
class Tool:
    """One operation as a tool. ``output_schema`` is None where the answer is not a JSON object; a hint is None where nothing is known."""

    name: str
    title: str
    description: str
    input_schema: Json
    output_schema: Json | None
    is_read_only: bool | None
    is_destructive: bool | None
    is_idempotent: bool | None
    _in_path: frozenset[str]
    _in_query: frozenset[str]
    _is_body_required: bool
    _validator: Validator

    def place(self, arguments: Mapping[str, Any]) -> PlacedArguments:
        """Check the arguments and say where each goes. A parameter that is null counts as left out. Raises InvalidRequest."""
        in_path_or_query = self._in_path | self._in_query
        given = {name: value for name, value in arguments.items() if value is not None or name not in in_path_or_query}
        problems = self._validator.problems(given, "arguments")
        if problems:
            raise InvalidRequest(describe(problems), problems=problems)
        query = {name: _texts(value) for name, value in given.items() if name in self._in_query}
        body = {name: value for name, value in given.items() if name not in in_path_or_query}
        return PlacedArguments(
            path={name: _text(value) for name, value in given.items() if name in self._in_path},
            query=urlencode(query, doseq=True).encode(),
            body=body if body or self._is_body_required else None,
        )


def compile_tool(raw: Json, method: str, parameters: list[Json], document: Json, schemas: Schemas, resolve: Any) -> Tool:
    """The tool of an operation that is marked with ``x-mcp``. ``parameters`` are resolved. Raises ValueError saying why it can be none."""
    marked = _read_mark(raw["x-mcp"])
    name = marked.get("name", raw["operationId"].rpartition(".")[2])
    if not _NAME.fullmatch(name):
        raise ValueError(f"x-mcp: '{name}' cannot name a tool: lower-case letters, digits and underscores, at most 64")
    taken = {each["in"]: frozenset(other["name"] for other in parameters if other["in"] == each["in"]) for each in parameters}
    merged, is_body_required = _merge(raw, parameters, resolve)
    components = document.get("components", {}).get("schemas", {})
    published = translate(merged)
    for parameter in parameters:
        if parameter["name"] in published["properties"] and "description" in parameter:
            published["properties"][parameter["name"]]["description"] = parameter["description"]
    is_read_only = marked.get("read_only", method in ("get", "head"))
    return Tool(
        name=name,
        title=raw.get("summary", name),
        description=raw.get("description", "").strip(),
        input_schema=self_contained(published, components),
        output_schema=_output_schema(raw, components, resolve),
        is_read_only=is_read_only,
        is_destructive=marked.get("destructive", False if is_read_only else None),
        is_idempotent=marked.get("idempotent", True if is_read_only or method in ("put", "delete") else None),
        _in_path=taken.get("path", frozenset()),
        _in_query=taken.get("query", frozenset()),
        _is_body_required=is_body_required,
        _validator=schemas.compile(merged),
    )


def _read_mark(mark: Any) -> Json:
    """What ``x-mcp`` says, as an object."""
    if mark is True:
        return {}
    if not isinstance(mark, dict) or not mark.keys() <= {"name", *_HINTS}:
        raise ValueError(f"x-mcp is true, or an object with any of: name, {', '.join(_HINTS)}")
    if not isinstance(mark.get("name", ""), str) or any(not isinstance(mark.get(hint, True), bool) for hint in _HINTS):
        raise ValueError("x-mcp: the name is a text, each of the others true or false")
    return mark


def _merge(raw: Json, parameters: list[Json], resolve: Any) -> tuple[Json, bool]:
    """(parameters and body as one closed object, must a body be sent?)."""
    properties: Json = {}
    required: list[str] = []
    for parameter in parameters:
        if not _is_argument(parameter, resolve):
            continue
        properties[parameter["name"]] = parameter["schema"]
        required += [parameter["name"]] if parameter.get("required") else []
    request_body = resolve(raw.get("requestBody", {}))
    body, is_body_required = _body(request_body, resolve), bool(request_body.get("required"))
    if clash := properties.keys() & body.get("properties", {}).keys():
        raise ValueError(f"x-mcp: '{min(clash)}' is both a parameter and a property of the body; a tool has one object of arguments")
    if not is_body_required and body.get("required"):
        raise ValueError("x-mcp: a body that may be left out cannot have properties that may not")
    merged = {"type": "object", "properties": properties | body.get("properties", {}), "additionalProperties": False}
    if needed := required + body.get("required", []):
        merged["required"] = needed
    if "description" in body:
        merged["description"] = body["description"]
    return merged, is_body_required


def _is_argument(parameter: Json, resolve: Any) -> bool:
    """Whether a parameter is one of the tool's arguments: those in headers and cookies belong to HTTP."""
    name, location = parameter["name"], parameter["in"]
    if location not in ("path", "query"):
        if parameter.get("required"):
            raise ValueError(f"x-mcp: the operation needs '{name}' in a {location}, which a tool's caller cannot send")
        return False
    schema = resolve(parameter.get("schema", {}))
    is_plain = schema.get("type") in ("string", "integer", "number", "boolean")
    is_list = schema.get("type") == "array" and location == "query" and "style" not in parameter and parameter.get("explode", True)
    if not is_plain and not is_list:
        raise ValueError(f"x-mcp: the parameter '{name}' must be a text, a number or a boolean, or in the query a list of them")
    return True


def _body(request_body: Json, resolve: Any) -> Json:
    """The schema of the JSON body; empty when the operation has no body."""
    if not request_body:
        return {}
    if JSON not in request_body["content"]:
        raise ValueError(f"x-mcp: the body must be {JSON}")
    body: Json = resolve(request_body["content"][JSON].get("schema", {}))
    if body.get("type") != "object" or "properties" not in body or body.keys() & {"allOf", "anyOf", "oneOf", "not", "nullable"}:
        raise ValueError("x-mcp: the body must be an object with properties, and nothing else")
    return body


def _output_schema(raw: Json, components: Json, resolve: Any) -> Json | None:
    """What a successful answer says; None when that is not an object."""
    successes = [resolve(response) for status, response in raw["responses"].items() if status.startswith("2")]
    contents = {media_type: content for response in successes for media_type, content in response.get("content", {}).items()}
    if other := [each for each in contents if each != JSON and not each.startswith("audio/")]:
        raise ValueError(f"x-mcp: the answer must be {JSON} or audio, not {other[0]}")
    if contents.keys() != {JSON}:
        return None
    schema = resolve(contents[JSON].get("schema", {}))
    return self_contained(translate(schema), components) if schema.get("type") == "object" and not schema.get("nullable") else None


def _texts(value: Any) -> str | list[str]:
    return [_text(each) for each in value] if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    """A plain value as it stands in a path or a query."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
