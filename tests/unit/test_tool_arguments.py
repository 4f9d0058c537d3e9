"""Arguments of tools against schemas that strangers wrote."""

from typing import Any

import pytest

from homeport.errors import InvalidRequest, UpstreamError
from homeport.tools.arguments import MAX_SCHEMA_BYTES, Arguments

Json = dict[str, Any]


def check(schema: Json, arguments: Json) -> None:
    Arguments().check("x", schema, arguments)


def test_what_fits_passes() -> None:
    check({"type": "object"}, {"anything": [1, None]})
    check({}, {})
    check({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"n": {"type": "integer"}}}, {"n": 1})
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    check(tree, {"children": [{"children": []}]})
    person = {"type": "object", "properties": {"a b": {"$ref": "#/$defs/a%20b~1c"}}, "$defs": {"a b/c": {"type": "string"}}}
    check(person, {"a b": "x"})


def test_all_that_is_wrong_is_told_and_nothing_of_the_values() -> None:
    schema = {"type": "object", "properties": {"a/b": {"type": "integer"}}, "required": ["c"], "additionalProperties": False}
    with pytest.raises(InvalidRequest) as caught:
        check(schema, {"a/b": "secret", "d": "secret"})
    assert {each.pointer for each in caught.value.problems} == {"/arguments", "/arguments/a~1b"}
    assert len(caught.value.problems) == 3
    assert "secret" not in caught.value.message
    assert all(name in caught.value.message for name in ("'d'", '"c"', "arguments/a~1b"))


def test_a_reference_back_to_where_it_stands_is_no_loop() -> None:
    tree = {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}}}
    check(tree | {"$ref": "#/$defs/a"}, {})


def nested(levels: int) -> Json:
    schema: Json = {"type": "object"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


def doubling(levels: int) -> Json:
    """A schema that a value would be held against two to the ``levels`` times."""
    steps = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{levels}": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"$schema": "https://example.com/mine"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "other.json#/a"}}},
        {"$ref": "#/$defs/missing"},
        {"properties": {"default": {"$ref": "https://example.com/schema"}}},
        {"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"},
        {"pattern": "("},
        {"description": "x" * MAX_SCHEMA_BYTES},
        nested(60),
        nested(500),
        doubling(40),
    ],
)
def test_a_schema_that_cannot_be_used_is_not_used(schema: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        check(schema, {})
    assert caught.value.code == "MCP_SCHEMA_UNUSABLE"


def test_a_pattern_that_would_take_for_ever_ends() -> None:
    with pytest.raises(InvalidRequest):
        check({"properties": {"a": {"type": "string", "pattern": r"^(a+)+(?=b)$"}}}, {"a": "a" * 60})
