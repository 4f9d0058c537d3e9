"""The document as OpenAPI 3.1 says what the document says: both forms are valid, and they take and refuse the same."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4, DRAFT202012

from homeport.contract.loading import each_operation
from homeport.contract.modern import to_openapi_31
from homeport.contract.operations import Resolver
from homeport.contract.schemas import Schemas
from tests.document import DOCUMENT

Json = dict[str, Any]

MODERN = to_openapi_31(DOCUMENT)
RESOLVE = Resolver(DOCUMENT)
SCHEMAS = Schemas(DOCUMENT)
MUTATIONS = 12
# What is put in the place of something: each type, what is empty, what is too long or too large, what cannot be stored.
REPLACEMENTS = (None, True, 0, -1, 1.5, 10**12, "", "x", "a\0b", "x" * 100_000, [], ["x"], {}, {"x": None})


def escape(segment: str) -> str:
    return segment.replace("~", "~0").replace("/", "~1").replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def examples_of(content: Json) -> list[Any]:
    named = [RESOLVE(each)["value"] for each in content.get("examples", {}).values()]
    return [*named, content["example"]] if "example" in content else named


def contents(value: Json, pointer: str) -> Iterator[tuple[str, Json]]:
    """(pointer of a schema, what has it and examples of it) for a request body or an answer that stands at ``pointer``."""
    while "$ref" in value:
        pointer = value["$ref"]
        value = RESOLVE(value)
    for media_type, content in value.get("content", {}).items():
        yield f"{pointer}/content/{escape(media_type)}/schema", content
    for name, header in value.get("headers", {}).items():
        yield f"{header.get('$ref', f'{pointer}/headers/{name}')}/schema", RESOLVE(header)


def places() -> dict[str, Json]:
    """Whatever has a schema and examples, by the pointer of the schema."""
    found: Json = {}
    for path, method, operation in each_operation(DOCUMENT):
        at = f"#/paths/{escape(path)}/{method}"
        for number, parameter in enumerate(operation.get("parameters", [])):
            found[f"{parameter.get('$ref', f'{at}/parameters/{number}')}/schema"] = RESOLVE(parameter)
        found |= dict(contents(operation.get("requestBody", {}), f"{at}/requestBody"))
        for status, response in operation["responses"].items():
            found |= dict(contents(response, f"{at}/responses/{status}"))
        if "x-stream-event" in operation:
            events = examples_of(RESOLVE(operation["responses"]["200"])["content"]["text/event-stream"])
            data = [orjson.loads(event["data"]) if event["data"].startswith("{") else event["data"] for event in events]
            found[f"{at}/x-stream-event"] = {
                "schema": operation["x-stream-event"],
                "examples": {str(n): {"value": v} for n, v in enumerate(data)},
            }
    return found


PLACES = {pointer: place for pointer, place in places().items() if "schema" in place and examples_of(place)}


def mutated(value: Any, random: Random) -> Any:
    """The same value with one thing in it replaced, removed or added."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = random.choice(list(value))
        match random.randrange(4):
            case 0:
                return {other: each for other, each in value.items() if other != name}
            case 1:
                return value | {"not_known": random.choice(REPLACEMENTS)}
            case _:
                return value | {name: mutated(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [*value[:place], mutated(value[place], random), *value[place + 1 :]]
    return random.choice(REPLACEMENTS)


def judge(document: Json, validator: Any, dialect: Any) -> Callable[[str, Any], bool]:
    """Whether a schema of the document accepts a value, as that validator of jsonschema sees it. Formats are checked, too."""
    formats = FormatChecker()
    formats.checkers = dict(validator.FORMAT_CHECKER.checkers)
    # Not among the formats that jsonschema checks by itself.
    formats.checks("uri-reference")(lambda value: not isinstance(value, str) or value.isprintable())
    registry = Registry().with_resource("urn:document", Resource.from_contents(document, default_specification=dialect))

    def accepts(pointer: str, value: Any) -> bool:
        schema = {"$ref": f"urn:document{pointer}"}
        is_valid: bool = validator(schema, registry=registry, format_checker=formats).is_valid(value)
        return is_valid

    return accepts


ACCEPTS_30 = judge(DOCUMENT, OAS30Validator, DRAFT4)
ACCEPTS_31 = judge(MODERN, Draft202012Validator, DRAFT202012)


@pytest.mark.parametrize("document", [DOCUMENT, MODERN], ids=["3.0", "3.1"])
def test_both_forms_are_valid(document: Json) -> None:
    validator = {"3.0": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}[document["openapi"][:3]]
    assert [error.message for error in validator(document).iter_errors()] == []


@pytest.mark.parametrize("pointer", PLACES)
def test_both_forms_take_and_refuse_the_same(pointer: str) -> None:
    place, random = PLACES[pointer], Random(pointer)
    examples = examples_of(place)
    enforced = SCHEMAS.compile(place["schema"])
    for example in examples:
        assert ACCEPTS_31(pointer, example), example
    for value in [*examples, *(mutated(random.choice(examples), random) for _ in range(MUTATIONS))]:
        # What the server enforces, what 3.0 says to another validator, and what 3.1 says to a third.
        judged = (enforced.problems(value, "") == (), ACCEPTS_30(pointer, value), ACCEPTS_31(pointer, value))
        assert judged in ((True,) * 3, (False,) * 3), (value, enforced.problems(value, ""))


def test_much_is_taken_and_much_is_refused() -> None:
    random = Random("all")
    judged = [ACCEPTS_31(pointer, mutated(random.choice(examples_of(place)), random)) for pointer, place in PLACES.items()]
    assert min(judged.count(True), judged.count(False)) > len(judged) / 5


def test_nothing_of_3_0_is_left_and_nothing_else_is_changed() -> None:
    texts = [
        orjson.dumps(MODERN["components"]["schemas"]),
        orjson.dumps([each["schema"] for each in MODERN["components"]["parameters"].values()]),
    ]
    for keyword in (b'"nullable"', b'"example":', b'"binary"', b'"byte"'):
        assert not any(keyword in text for text in texts)
    assert MODERN["openapi"] == "3.1.0"
    assert {name for name in DOCUMENT if DOCUMENT[name] != MODERN[name]} - {"paths"} == {"openapi", "components"}
    assert [operation["operationId"] for *_, operation in each_operation(MODERN)] == [
        operation["operationId"] for *_, operation in each_operation(DOCUMENT)
    ]
    for name in ("securitySchemes", "examples"):
        assert MODERN["components"][name] == DOCUMENT["components"][name]
