"""OpenAPI 3.0 schemas as compiled validators.

The whole document is translated once to JSON Schema 2020-12 and put in a registry; each validator is compiled from a reference into
it, so that references stay references, recursion works, and shared components are translated once.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import jsonschema_rs

from homeport.errors import FieldProblem

CONTRACT_URI = "urn:homeport:contract"
COMPONENT_PREFIX = "#/components/schemas/"
MAX_PROBLEMS = 10

# Keywords of an OpenAPI 3.0 schema that JSON Schema does not know or that only describe.
_DROPPED = frozenset({"discriminator", "xml", "externalDocs", "example", "deprecated", "readOnly", "writeOnly"})
# How 3.1 says that a text stands for bytes.
_BYTES = {"binary": {"contentMediaType": "application/octet-stream"}, "byte": {"contentEncoding": "base64"}}


class Validator:
    """One compiled schema."""

    __slots__ = ("_compiled",)

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def problems(self, instance: Any, location: str) -> tuple[FieldProblem, ...]:
        """What is wrong with ``instance``; empty when it is valid. At most MAX_PROBLEMS; never quotes the instance."""
        if self._compiled.is_valid(instance):
            return ()
        errors = (told for error in self._compiled.iter_errors(instance) for told in _innermost(error))
        return tuple(_problem(error, location) for error in islice(errors, MAX_PROBLEMS))


def _innermost(error: Any) -> Iterator[Any]:
    """The errors to tell. Of alternatives that do not match, those of the one that alone is of the value's type: it was meant."""
    alternatives = getattr(error.kind, "context", ())
    meant = [errors for errors in alternatives if not any(_is_of_another_type(each, error.instance_path) for each in errors)]
    if len(meant) != 1:
        yield error
        return
    for each in meant[0]:
        yield from _innermost(each)


def _is_of_another_type(error: Any, path: list[Any]) -> bool:
    return isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Type) and error.instance_path == path


def _problem(error: Any, location: str) -> FieldProblem:
    pointer = "".join(f"/{str(segment).replace('~', '~0').replace('/', '~1')}" for segment in error.instance_path)
    return FieldProblem(location, pointer, error.message)


class Schemas:
    """Compiles validators for schemas that stand in one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        schemas = document.get("components", {}).get("schemas", {})
        translated = {"components": {"schemas": {name: translate(schema) for name, schema in schemas.items()}}}
        self._registry = jsonschema_rs.Registry([(CONTRACT_URI, translated)])
        self._compiled: dict[str, Validator] = {}

    def compile(self, schema: dict[str, Any]) -> Validator:
        """Compile a schema of the document (or one made for it). Raises ValueError saying why it cannot be compiled."""
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference in self._compiled:
            return self._compiled[reference]
        try:
            compiled = jsonschema_rs.validator_for(
                {"$schema": "https://json-schema.org/draft/2020-12/schema", **_absolute(translate(schema))},
                registry=self._registry,
                validate_formats=True,
                mask="the value",
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(str(error)) from error
        validator = Validator(compiled)
        if isinstance(reference, str):
            self._compiled[reference] = validator
        return validator


def translate(schema: Any) -> Any:
    """A JSON Schema 2020-12 that accepts what this OpenAPI 3.0 schema accepts, without what only describes."""
    return _rewrite(schema, is_published=False)


def modernize(schema: Any) -> Any:
    """The same schema as OpenAPI 3.1 writes it: a JSON Schema 2020-12 with all that describes it."""
    return _rewrite(schema, is_published=True)


def _rewrite(schema: Any, *, is_published: bool) -> Any:
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    rewrite = partial(_rewrite, is_published=is_published)
    result: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "nullable" or (not is_published and (keyword in _DROPPED or keyword.startswith("x-"))):
            continue
        if keyword in ("properties", "patternProperties"):
            result[keyword] = {name: rewrite(each) for name, each in value.items()}
        elif keyword in ("items", "additionalProperties", "not"):
            result[keyword] = rewrite(value)
        elif keyword in ("allOf", "anyOf", "oneOf"):
            result[keyword] = [rewrite(each) for each in value]
        elif keyword == "example":
            result["examples"] = [value]
        elif is_published and keyword == "format" and value in _BYTES:
            result |= _BYTES[value]
        else:
            result[keyword] = value
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if result.get(exclusive) is True:
            result[exclusive] = result.pop(bound)
        elif result.get(exclusive) is False:
            del result[exclusive]
    if schema.get("nullable"):
        _accept_null(result)
    return result


def self_contained(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """A translated schema that stands on its own: the ``components`` that it refers to, directly or not, are below its ``$defs``."""
    definitions: dict[str, Any] = {}

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(child) for child in value]
        if not isinstance(value, dict):
            return value
        moved = {key: move(child) for key, child in value.items() if key != "$ref"}
        if "$ref" in value:
            name = value["$ref"].removeprefix(COMPONENT_PREFIX)
            if name not in definitions:
                # Noted before it is entered: a component may refer to itself.
                definitions[name] = {}
                definitions[name] = move(translate(components[name]))
            moved["$ref"] = f"#/$defs/{name}"
        return moved

    moved: dict[str, Any] = move(schema)
    return moved | {"$defs": definitions} if definitions else moved


def _accept_null(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]


def _absolute(value: Any) -> Any:
    """The same schema with its references pointing into the registry."""
    if isinstance(value, dict):
        return {
            key: f"{CONTRACT_URI}{child}" if key == "$ref" and isinstance(child, str) and child.startswith("#") else _absolute(child)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_absolute(child) for child in value]
    return value
