"""Path, query, header and cookie parameters: from text on the wire to typed, validated arguments.

Styles: ``simple`` (path, header), ``form``, ``spaceDelimited``, ``pipeDelimited`` and ``deepObject`` (query), ``form`` (cookie), each
with and without explode. A value that cannot be read as its type stays text, so that the validator says what was expected.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

import orjson

from homeport.contract.schemas import Schemas, Validator
from homeport.errors import FieldProblem, InvalidRequest

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_SEPARATORS = {"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
_STYLES = {
    "path": ("simple",),
    "header": ("simple",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "cookie": ("form",),
}
# OpenAPI 3.0: parameters with these names are described elsewhere in the document and are ignored.
_NOT_PARAMETERS = ("accept", "content-type", "authorization")

Resolve = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter, ready to decode."""

    name: str
    argument: str
    location: str
    style: str
    explode: bool
    kind: str
    schema: Mapping[str, Any]
    properties: Mapping[str, Any]
    is_json: bool
    is_required: bool
    default: Any
    has_default: bool

    def decode(self, given: Mapping[str, list[str]]) -> Any:
        """The value among what was given, or ``_ABSENT``. Raises InvalidRequest when a single value was given twice."""
        if self.kind == "object" and self.style == "deepObject":
            return self._decode_deep_object(given)
        if self.kind == "object" and self.location in ("query", "cookie") and self.explode and not self.is_json:
            values = {key: coerce(self.properties[key], given[key][-1]) for key in self.properties if key in given}
            return values or _ABSENT
        texts = given.get(self.name)
        if texts is None:
            return _ABSENT
        if self.kind == "array" and not self.is_json:
            return self._decode_array(texts)
        if len(texts) > 1:
            raise _invalid(self.location, self.name, "was given more than once")
        return self._decode_one(texts[0])

    def _decode_one(self, text: str) -> Any:
        if self.is_json:
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise _invalid(self.location, self.name, "is not JSON") from error
        if self.kind == "object":
            return self._decode_flat_object(text)
        return coerce(self.schema, text)

    def _decode_array(self, texts: list[str]) -> list[Any]:
        items = self.schema.get("items", {})
        if self.style != "form" or not self.explode:
            texts = [part for text in texts for part in text.split(_SEPARATORS[self.style])] if texts != [""] else []
        return [coerce(items, text) for text in texts]

    def _decode_deep_object(self, given: Mapping[str, list[str]]) -> Any:
        values = {}
        for key, texts in given.items():
            if key.startswith(f"{self.name}[") and key.endswith("]"):
                name = key[len(self.name) + 1 : -1]
                values[name] = coerce(self.properties.get(name, {}), texts[-1])
        return values or _ABSENT

    def _decode_flat_object(self, text: str) -> Any:
        parts = text.split(_SEPARATORS.get(self.style, ","))
        pairs = [part.partition("=")[::2] for part in parts] if self.explode else list(zip(parts[::2], parts[1::2], strict=False))
        return {name: coerce(self.properties.get(name, {}), value) for name, value in pairs}


_ABSENT: Any = object()


class Parameters:
    """All parameters of one operation."""

    def __init__(self, declared: list[dict[str, Any]], schemas: Schemas, resolve: Resolve, *, is_strict: bool) -> None:
        """``is_strict``: query parameters that are not declared are refused. Raises ValueError for what cannot be compiled."""
        parameters = [
            compile_parameter(each, resolve)
            for each in declared
            if not (each["in"] == "header" and each["name"].lower() in _NOT_PARAMETERS)
        ]
        self.names = frozenset(parameter.argument for parameter in parameters)
        self.always_given = frozenset(parameter.argument for parameter in parameters if parameter.is_required or parameter.has_default)
        self._groups: list[tuple[str, list[Parameter], Validator]] = []
        for location in ("path", "query", "header", "cookie"):
            group = [parameter for parameter in parameters if parameter.location == location]
            if group:
                self._groups.append((location, group, schemas.compile(_group_schema(location, declared))))
        self._known_query = frozenset(parameter.name for parameter in parameters if parameter.location == "query")
        self._has_deep_objects = any(parameter.kind == "object" for parameter in parameters)
        self._is_strict = is_strict and not self._has_deep_objects

    def decode(self, path: Mapping[str, str], query: bytes, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
        """Arguments by Python name. Raises InvalidRequest naming everything that is wrong."""
        arguments: dict[str, Any] = {}
        if self._is_strict and query:
            self._refuse_unknown(_parse_query(query))
        for location, group, validator in self._groups:
            given = _given(location, path, query, headers)
            decoded = {parameter.name: value for parameter in group if (value := parameter.decode(given)) is not _ABSENT}
            problems = validator.problems(decoded, location)
            if problems:
                raise InvalidRequest(describe(problems), problems=problems)
            for parameter in group:
                if parameter.name in decoded:
                    arguments[parameter.argument] = decoded[parameter.name]
                elif parameter.has_default:
                    arguments[parameter.argument] = parameter.default
        return arguments

    def _refuse_unknown(self, given: Mapping[str, list[str]]) -> None:
        for name in given:
            if name not in self._known_query:
                known = ", ".join(sorted(self._known_query)) or "none"
                raise _invalid("query", name, f"is not a parameter of this operation (it knows: {known})")


def compile_parameter(declared: dict[str, Any], resolve: Resolve) -> Parameter:
    """One parameter of the document. Raises ValueError when its style is not one that this server reads."""
    location = declared["in"]
    is_json = "content" in declared
    schema = resolve(next(iter(declared["content"].values())).get("schema", {}) if is_json else declared.get("schema", {}))
    style = declared.get("style", _STYLES[location][0])
    if style not in _STYLES[location]:
        raise ValueError(f"parameter '{declared['name']}': the style '{style}' is not supported in {location}")
    return Parameter(
        name=declared["name"].lower() if location == "header" else declared["name"],
        argument=argument_name(declared["name"]),
        location=location,
        style=style,
        explode=declared.get("explode", style == "form"),
        kind=next((kind for kind in ("array", "object") if kind in _types(schema)), "scalar"),
        schema={**schema, "items": resolve(schema.get("items", {}))},
        properties={name: resolve(each) for name, each in schema.get("properties", {}).items()},
        is_json=is_json,
        is_required=bool(declared.get("required")),
        default=schema.get("default"),
        has_default="default" in schema,
    )


def argument_name(name: str) -> str:
    """The Python name of a parameter: ``topK`` and ``top-k`` are ``top_k``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()


def coerce(schema: Mapping[str, Any], text: str) -> Any:
    """Read text as the schema's type where it clearly is one; otherwise leave it text."""
    types = _types(schema)
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    return text


def describe(problems: tuple[FieldProblem, ...]) -> str:
    """One sentence for people: ``body/messages/0/role: … ; query/limit: …``."""
    return "; ".join(f"{problem.location}{problem.pointer}: {problem.detail}" for problem in problems)


def _types(schema: Mapping[str, Any]) -> set[str]:
    types = {schema["type"]} if isinstance(schema.get("type"), str) else set()
    for keyword in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(keyword, ()):
            types |= _types(each)
    return types


def _group_schema(location: str, declared: list[dict[str, Any]]) -> dict[str, Any]:
    group = [each for each in declared if each["in"] == location]
    names = {id(each): each["name"].lower() if location == "header" else each["name"] for each in group}
    return {
        "type": "object",
        "properties": {
            names[id(each)]: next(iter(each["content"].values())).get("schema", {}) if "content" in each else each.get("schema", {})
            for each in group
        },
        "required": [names[id(each)] for each in group if each.get("required")],
    }


def _given(location: str, path: Mapping[str, str], query: bytes, headers: Mapping[bytes, bytes]) -> Mapping[str, list[str]]:
    if location == "path":
        return {name: [value] for name, value in path.items()}
    if location == "query":
        return _parse_query(query)
    if location == "header":
        return {name.decode("latin-1"): [value.decode("latin-1")] for name, value in headers.items()}
    try:
        cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError as error:
        raise InvalidRequest("The Cookie header cannot be read.") from error
    return {name: [morsel.value] for name, morsel in cookies.items()}


def _parse_query(query: bytes) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    if query:
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000)
        except ValueError as error:
            raise InvalidRequest("The query string is not percent-encoded UTF-8.") from error
        for name, value in pairs:
            given.setdefault(name, []).append(value)
    return given


def _invalid(location: str, name: str, detail: str) -> InvalidRequest:
    problem = FieldProblem(location, f"/{name}", detail)
    return InvalidRequest(describe((problem,)), problems=(problem,))
