"""What a new bundle would break for those who rely on an older one, each as a sentence that says where.

Structures are compared, not names of schemas: renaming one changes no request and no answer. The rule behind it is the same everywhere:
whatever could be sent to the old contract may be sent to the new one (requests), and whatever the new one may answer, the old one
could have answered (answers). Fields and error statuses that are added break nobody, because clients are told to pass over what they do not
know.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from homeport.contract.loading import each_operation
from homeport.contract.operations import Resolver

Json = dict[str, Any]

UPPER_BOUNDS = ("maximum", "maxLength", "maxItems", "maxProperties")
LOWER_BOUNDS = ("minimum", "minLength", "minItems", "minProperties")
# What is only compared as a whole: whether one pattern accepts all that another accepts, nobody can say.
OPAQUE = ("allOf", "pattern", "format", "multipleOf", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum", "not")
TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})


def breaking_changes(old: Json, new: Json) -> list[str]:
    """One sentence for everything that ``new`` breaks, in the order of ``old``; empty when clients of ``old`` need not notice."""
    return list(_Comparison(old, new).run())


@dataclass(frozen=True, slots=True)
class _Side:
    """One direction: the documents of those who give a value and of those who have to take it."""

    is_request: bool
    give: Resolver
    take: Resolver

    def say(self, request: str, answer: str) -> str:
        return request if self.is_request else answer


@dataclass(slots=True)
class _Comparison:
    old: Json
    new: Json
    resolve_old: Resolver = field(init=False)
    resolve_new: Resolver = field(init=False)

    def __post_init__(self) -> None:
        self.resolve_old, self.resolve_new = Resolver(self.old), Resolver(self.new)

    def run(self) -> Iterator[str]:
        kept = {(path, method): operation for path, method, operation in each_operation(self.new)}
        for path, method, before in each_operation(self.old):
            where = f"{method.upper()} {path}"
            after = kept.get((path, method))
            if after is None:
                yield f"{where}: the operation is gone"
                continue
            for change in self._operation(self.old["paths"][path], before, self.new["paths"][path], after):
                yield f"{where}: {change}"

    def _operation(self, old_item: Json, before: Json, new_item: Json, after: Json) -> Iterator[str]:
        if before["operationId"] != after["operationId"]:
            yield f"the operationId '{before['operationId']}' is now '{after['operationId']}'"
        yield from _caller(before, after, self.old, self.new)
        yield from _tool(before, after)
        old_parameters = _parameters(old_item, before, self.resolve_old)
        yield from self._parameters(old_parameters, _parameters(new_item, after, self.resolve_new))
        yield from self._body(self.resolve_old(before.get("requestBody", {})), self.resolve_new(after.get("requestBody", {})))
        yield from self._responses(before["responses"], after["responses"])
        if "x-stream-event" in before:
            yield from self._answer(before["x-stream-event"], after.get("x-stream-event", {}), "the data of an event")

    def _parameters(self, before: dict[tuple[str, str], Json], after: dict[tuple[str, str], Json]) -> Iterator[str]:
        for (location, name), parameter in before.items():
            where = f"the {location} parameter '{name}'"
            changed = after.get((location, name))
            if changed is None:
                yield f"{where} is gone"
                continue
            if changed.get("required") and not parameter.get("required"):
                yield f"{where} is now required"
            yield from (f"{where} has another '{key}'" for key in ("style", "explode") if parameter.get(key) != changed.get(key))
            yield from self._request(parameter.get("schema", {}), changed.get("schema", {}), where)
        for (location, name), parameter in after.items():
            if parameter.get("required") and (location, name) not in before:
                yield f"the new {location} parameter '{name}' is required"

    def _body(self, before: Json, after: Json) -> Iterator[str]:
        if after.get("required") and not before.get("required"):
            yield "a request body is now required"
        for media_type, content in before.get("content", {}).items():
            if media_type not in after.get("content", {}):
                yield f"a request body of {media_type} is no longer taken"
            else:
                yield from self._request(content.get("schema", {}), after["content"][media_type].get("schema", {}), "the request body")

    def _responses(self, before: Json, after: Json) -> Iterator[str]:
        for status, old_response in before.items():
            if status not in after:
                yield f"the status {status} is gone"
                continue
            response, changed = self.resolve_old(old_response), self.resolve_new(after[status])
            yield from self._headers(response.get("headers", {}), changed.get("headers", {}), status)
            for media_type, content in response.get("content", {}).items():
                if media_type not in changed.get("content", {}):
                    yield f"the answer {status} no longer comes as {media_type}"
                else:
                    schema = changed["content"][media_type].get("schema", {})
                    yield from self._answer(content.get("schema", {}), schema, f"the answer {status}")
        yield from (f"success may now have the status {status}" for status in after if status.startswith("2") and status not in before)

    def _headers(self, before: Json, after: Json, status: str) -> Iterator[str]:
        for name, old_header in before.items():
            where = f"the header {name} of the answer {status}"
            if name not in after:
                yield f"{where} is gone"
                continue
            header, changed = self.resolve_old(old_header), self.resolve_new(after[name])
            if header.get("required") and not changed.get("required"):
                yield f"{where} may now be missing"
            yield from self._answer(header.get("schema", {}), changed.get("schema", {}), where)

    def _request(self, before: Json, after: Json, where: str) -> Iterator[str]:
        side = _Side(is_request=True, give=self.resolve_old, take=self.resolve_new)
        yield from (f"{where}{change}" for change in _differences(before, after, side, "", frozenset()))

    def _answer(self, before: Json, after: Json, where: str) -> Iterator[str]:
        side = _Side(is_request=False, give=self.resolve_new, take=self.resolve_old)
        yield from (f"{where}{change}" for change in _differences(after, before, side, "", frozenset()))


def _parameters(item: Json, operation: Json, resolve: Resolver) -> dict[tuple[str, str], Json]:
    each = map(resolve, [*item.get("parameters", []), *operation.get("parameters", [])])
    return {(parameter["in"], parameter["name"]): parameter for parameter in each}


def _caller(before: Json, after: Json, old: Json, new: Json) -> Iterator[str]:
    """Who may call: an alternative that is added or a permission that is no longer needed keeps nobody out."""
    kept = [sorted(each) for each in after.get("security", new.get("security", [])) or [{}]]
    for alternative in before.get("security", old.get("security", [])) or [{}]:
        if sorted(alternative) not in kept and [] not in kept:
            yield f"it can no longer be called with {' and '.join(sorted(alternative)) or 'no credential'}"
    permission, needed = before.get("x-permission", "none"), after.get("x-permission", "none")
    if needed not in ("none", permission):
        yield f"it now needs the permission '{needed}' instead of '{permission}'"


def _tool(before: Json, after: Json) -> Iterator[str]:
    names = [_tool_name(operation) for operation in (before, after)]
    if names[0] is not None and names[0] != names[1]:
        yield f"the tool '{names[0]}' {'is gone' if names[1] is None else f'is now called {names[1]!r}'}"


def _tool_name(operation: Json) -> str | None:
    mark = operation.get("x-mcp")
    own_name = operation["operationId"].rpartition(".")[2]
    return None if mark is None else mark.get("name", own_name) if isinstance(mark, dict) else own_name


def _differences(given: Json, taken: Json, side: _Side, at: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    """Why something that ``given`` accepts may not be what ``taken`` accepts. ``at`` is the way to it, ``seen`` the pairs on that way."""
    pair = (given.get("$ref", ""), taken.get("$ref", ""))
    if all(pair):
        if pair in seen:
            return
        seen |= {pair}
    given, taken = side.give(given), side.take(taken)
    alternatives, accepted = _alternatives(given, side.give), _alternatives(taken, side.take)
    if len(alternatives) == len(accepted) == 1:
        yield from _of_one(alternatives[0], accepted[0], side, at, seen)
        return
    for number, alternative in enumerate(alternatives, 1):
        if not any(_is_within(alternative, each, side, seen) for each in accepted):
            yield f"{at}: {side.say(f'alternative {number} is no longer taken', f'there was no alternative like the new {number}')}"


def _is_within(given: Json, taken: Json, side: _Side, seen: frozenset[tuple[str, str]]) -> bool:
    return next(_differences(given, taken, side, "", seen), None) is None


def _alternatives(schema: Json, resolve: Resolver) -> list[Json]:
    """The alternatives of a schema, each with what it says besides them."""
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            beside = {key: value for key, value in schema.items() if key not in (keyword, "discriminator", "description")}
            return [beside | resolve(each) for each in schema[keyword]] if beside else schema[keyword]
    return [schema]


def _of_one(given: Json, taken: Json, side: _Side, at: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    given, taken = side.give(given), side.take(taken)
    if strange := _types(given) - _types(taken):
        names = " or ".join(sorted(strange))
        yield f"{at}: {side.say(f'{names} is no longer taken', f'it may now be {names}')}"
    if side.is_request and "default" in given and given["default"] != taken.get("default"):
        yield f"{at}: the default {given['default']!r} is now {taken.get('default')!r}"
    yield from (f"{at}: {text}" for text in _values(given, taken, side))
    yield from (f"{at}: {text}" for text in _bounds(given, taken, side))
    yield from _object(given, taken, side, at, seen)
    if "items" in taken or "items" in given:
        yield from _differences(given.get("items", {}), taken.get("items", {}), side, f"{at}/items", seen)


def _types(schema: Json) -> frozenset[str]:
    """The JSON types that a schema accepts; whatever is a number may be an integer."""
    if "type" not in schema:
        return TYPES
    types = {schema["type"]} | ({"integer"} if schema["type"] == "number" else set())
    return frozenset(types | {"null"} if schema.get("nullable") else types)


def _values(given: Json, taken: Json, side: _Side) -> Iterator[str]:
    if "enum" not in taken:
        return
    if "enum" not in given:
        yield side.say(f"only {_listed(taken['enum'])} is taken now", f"it is no longer only {_listed(taken['enum'])}")
    elif others := [value for value in given["enum"] if value not in taken["enum"]]:
        yield f"{_listed(others)} {side.say('is no longer taken', 'is new')}"


def _listed(values: list[Any]) -> str:
    return ", ".join(repr(value) for value in values)


def _bounds(given: Json, taken: Json, side: _Side) -> Iterator[str]:
    for keyword in (*UPPER_BOUNDS, *LOWER_BOUNDS):
        bound, other = taken.get(keyword), given.get(keyword)
        if bound is None or (keyword in LOWER_BOUNDS and not bound and keyword != "minimum"):
            continue
        is_further = other is None or (other > bound if keyword in UPPER_BOUNDS else other < bound)
        # What an enumeration lists, it bounds itself.
        if is_further and "enum" not in given:
            yield side.say(f"{keyword} is now {bound}, not {other}", f"{keyword} is now {other}, not {bound}")
    for keyword in OPAQUE:
        if keyword in taken and given.get(keyword) != taken[keyword] and "enum" not in given:
            yield side.say(f"{keyword} is now {taken[keyword]!r}", f"{keyword} was {taken[keyword]!r}, now {given.get(keyword)!r}")


def _object(given: Json, taken: Json, side: _Side, at: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    given_properties, taken_properties = given.get("properties", {}), taken.get("properties", {})
    for name in sorted(set(taken.get("required", [])) - set(given.get("required", []))):
        yield f"{at}/{name}: {side.say('it is now required', 'it may now be missing')}"
    for name in given_properties if side.is_request else taken_properties:
        if name not in given_properties or name not in taken_properties:
            yield f"{at}/{name}: it is gone"
    for name in given_properties.keys() & taken_properties.keys():
        yield from _differences(given_properties[name], taken_properties[name], side, f"{at}/{name}", seen)
    extra, accepted = given.get("additionalProperties", True), taken.get("additionalProperties", True)
    if accepted is False and extra is not False and side.is_request:
        yield f"{at}: other properties are no longer taken"
    elif accepted not in (True, False) and extra is not False:
        yield from _differences({} if extra is True else extra, accepted, side, f"{at}/*", seen)
