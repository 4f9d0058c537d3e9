"""Arguments of a tool, held against the schema that its server gives. The schema is a stranger's: it is bounded before it is compiled."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
import orjson

from homeport.contract.parameters import describe
from homeport.errors import FieldProblem, InvalidRequest, UpstreamError

MAX_SCHEMA_BYTES = 256 * 1024
MAX_DEPTH = 64
# How many schemas a value may be held against, references followed; one that refers to another twice, and so on, doubles it each time.
MAX_WEIGHT = 100_000
MAX_BACKTRACKS = 100_000
MAX_PROBLEMS = 10
MAX_KEPT = 2000

# A reference that does not say where in the schema it leads could not be followed here, and so not be bounded.
_REFUSED = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"})


class Arguments:
    """Compiled schemas by the fingerprint of their tool; the oldest goes first."""

    def __init__(self) -> None:
        self._compiled: dict[str, Any] = {}

    def check(self, fingerprint: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        """Raises InvalidRequest that names what is wrong with ``arguments`` (never what they hold), and UpstreamError
        (MCP_SCHEMA_UNUSABLE) for a schema that nothing can be held against."""
        if (compiled := self._compiled.get(fingerprint)) is None:
            compiled = _compile(schema)
            if len(self._compiled) >= MAX_KEPT:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[fingerprint] = compiled
        if compiled.is_valid(arguments):
            return
        problems = tuple(_problem(error) for error in islice(compiled.iter_errors(arguments), MAX_PROBLEMS))
        raise InvalidRequest(describe(problems), problems=problems)


def _compile(schema: Mapping[str, Any]) -> Any:
    try:
        if len(orjson.dumps(schema)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"it is larger than {MAX_SCHEMA_BYTES // 1024} KiB")
        if _Weight(schema).of(schema, 0) > MAX_WEIGHT:
            raise ValueError("its references multiply")
        return jsonschema_rs.validator_for(
            dict(schema),
            offline=True,
            mask="the value",
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=MAX_BACKTRACKS),
        )
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:  # orjson raises a TypeError for what is too deep
        message = "The MCP server gives a schema for this tool's arguments that cannot be used, so the tool cannot be called."
        raise UpstreamError(message, code="MCP_SCHEMA_UNUSABLE") from error


def _problem(error: Any) -> FieldProblem:
    steps = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in error.instance_path)
    return FieldProblem("body", f"/arguments{steps}", error.message)


class _Weight:
    """Counts the schemas of a schema, each as often as it is referred to. A reference back to where it stands counts as one."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def of(self, value: Any, depth: int) -> int:
        """Raises ValueError for what is nested too deeply or refers to something that is not in the schema."""
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        weight = 1
        for child in _children(value):
            if isinstance(child, str):
                weight += self._of_reference(child, depth + 1)
            else:
                weight += self.of(child, depth + 1)
        return min(weight, MAX_WEIGHT + 1)

    def _of_reference(self, reference: str, depth: int) -> int:
        if reference not in self._known:
            self._known[reference] = 1
            self._known[reference] = self.of(_follow(self._root, reference), depth)
        return self._known[reference]


def _children(value: Any) -> Iterator[Any]:
    """Objects and lists below a value, and references as text."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict | list))
        return
    for keyword, child in value.items():
        if isinstance(child, str):
            if keyword in _REFUSED:
                raise ValueError(f"it uses {keyword}")
            if keyword == "$ref":
                yield child
        elif isinstance(child, dict | list):
            yield child


def _follow(root: Mapping[str, Any], reference: str) -> Any:
    if not reference.startswith("#") or (len(reference) > 1 and reference[1] != "/"):
        raise ValueError("it refers to something outside")
    found: Any = root
    for step in reference[2:].split("/") if len(reference) > 1 else ():
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ValueError("it refers to what is not there") from error
    if not isinstance(found, dict | list):
        return {}
    return found
