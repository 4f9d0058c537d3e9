"""One operation of the contract, compiled: what a request to it must look like, who may send it, and what it may answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from homeport.contract.parameters import Parameters
from homeport.contract.schemas import Schemas, Validator
from homeport.contract.tools import Tool, compile_tool

JSON_TYPES = ("application/json", "application/merge-patch+json")
FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Body:
    """The request body of one media type. ``files`` are the names of a form's binary parts."""

    media_type: str
    validator: Validator | None
    properties: Mapping[str, Any] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    required_files: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SecurityRequirement:
    """One alternative of an operation's security: the schemes that must all accept the request. Without any, nobody need be known."""

    schemes: tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """Everything that is known about one operation before a request arrives."""

    id: str
    method: str
    path: str
    surface: str
    permission: str | None
    security: tuple[SecurityRequirement, ...]
    parameters: Parameters
    bodies: Mapping[str, Body]
    is_body_required: bool
    success_status: int
    responses: Mapping[tuple[str, str], Validator | None]
    # What the data of a stream's events says, besides the event around it.
    event_validator: Validator | None
    # None for what only HTTP callers can use.
    tool: Tool | None

    def response_validator(self, status: int, media_type: str) -> tuple[bool, Validator | None]:
        """(is this answer in the contract?, its validator). Wildcard statuses (``4XX``) and ``default`` count."""
        for code in (str(status), f"{status // 100}XX", "default"):
            if (code, media_type) in self.responses:
                return True, self.responses[code, media_type]
        return False, None


def compile_operation(path: str, method: str, item: dict[str, Any], document: dict[str, Any], schemas: Schemas) -> Operation:
    """Compile one checked operation. Raises ValueError saying what cannot be compiled."""
    raw = item[method]
    resolve = Resolver(document)
    declared = {(each["in"], each["name"]): each for each in map(resolve, [*item.get("parameters", []), *raw.get("parameters", [])])}
    request_body = resolve(raw.get("requestBody", {}))
    permission = raw["x-permission"]
    schemes = document.get("components", {}).get("securitySchemes", {})
    security = tuple(
        SecurityRequirement(tuple((name, schemes[name]) for name in alternative))
        for alternative in raw.get("security", document.get("security", []))
    )
    responses = {code: resolve(response) for code, response in raw.get("responses", {}).items()}
    return Operation(
        id=raw["operationId"],
        method=method.upper(),
        path=path,
        surface=raw["x-surface"],
        permission=None if permission == "none" else permission,
        security=security,
        parameters=Parameters(list(declared.values()), schemas, resolve, is_strict=bool(raw.get("x-strict-query"))),
        bodies={
            media_type.lower(): _compile_body(media_type.lower(), content.get("schema", {}), schemas, resolve)
            for media_type, content in request_body.get("content", {}).items()
        },
        is_body_required=bool(request_body.get("required")),
        success_status=next((int(code) for code in sorted(responses) if code.isdigit() and code.startswith("2")), 200),
        responses={
            (code.upper() if code != "default" else code, media_type.lower()): schemas.compile(content["schema"])
            if "schema" in content
            else None
            for code, response in responses.items()
            for media_type, content in (response.get("content") or {"": {}}).items()
        },
        event_validator=schemas.compile(raw["x-stream-event"]) if "x-stream-event" in raw else None,
        tool=compile_tool(raw, method, list(declared.values()), document, schemas, resolve) if "x-mcp" in raw else None,
    )


class Resolver:
    """Follows references inside one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def __call__(self, value: dict[str, Any]) -> dict[str, Any]:
        """The object itself, or what its ``$ref`` points at."""
        seen = 0
        while "$ref" in value:
            target: Any = self._document
            for segment in value["$ref"].removeprefix("#/").split("/"):
                target = target[segment.replace("~1", "/").replace("~0", "~")]
            value = target
            seen += 1
            if seen > 50:
                raise ValueError(f"the reference '{value['$ref']}' leads in a circle")
        return value


def _compile_body(media_type: str, schema: dict[str, Any], schemas: Schemas, resolve: Resolver) -> Body:
    if media_type in FORM_TYPES:
        return _compile_form(media_type, resolve(schema), schemas, resolve)
    is_json = media_type in JSON_TYPES or media_type.endswith("+json")
    return Body(media_type, schemas.compile(schema) if is_json and schema else None)


def _compile_form(media_type: str, schema: dict[str, Any], schemas: Schemas, resolve: Resolver) -> Body:
    """A form's text fields are validated as one object; its binary parts are only required to be there."""
    properties = {name: resolve(each) for name, each in schema.get("properties", {}).items()}
    files = frozenset(name for name, each in properties.items() if _is_binary(each, resolve))
    required = schema.get("required", [])
    fields = {
        **schema,
        "properties": {name: each for name, each in schema.get("properties", {}).items() if name not in files},
        "required": [name for name in required if name not in files],
    }
    if not fields["required"]:
        del fields["required"]
    return Body(media_type, schemas.compile(fields), properties, files, files & frozenset(required))


def _is_binary(schema: dict[str, Any], resolve: Resolver) -> bool:
    if schema.get("type") == "array":
        return _is_binary(resolve(schema.get("items", {})), resolve)
    return schema.get("type") == "string" and schema.get("format") == "binary"
