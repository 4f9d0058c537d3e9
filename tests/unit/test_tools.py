"""Operations as tools: which can be one, what a tool takes, and where its arguments go."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from homeport.contract import Contract, ContractError, load_contract
from homeport.contract.tools import Tool
from homeport.errors import InvalidRequest
from homeport.http.error_bodies import ERROR_BODIES
from tests.unit.contract_app import handlers, operation, write_contract

Json = dict[str, Any]

COMPONENTS = {
    "schemas": {
        "Draft": {
            "type": "object",
            "description": "What is wanted.",
            "required": ["title"],
            "properties": {
                "title": {"type": "string", "maxLength": 10, "example": "x"},
                "tree": {"$ref": "#/components/schemas/Tree"},
                "note": {"type": "string", "nullable": True},
            },
        },
        "Tree": {
            "type": "object",
            "properties": {
                "below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
                "name": {"$ref": "#/components/schemas/Name"},
            },
        },
        "Name": {"type": "string", "nullable": True, "maxLength": 3},
        "Slug": {"type": "string", "minLength": 2},
        "Found": {"type": "object", "required": ["tree"], "properties": {"tree": {"$ref": "#/components/schemas/Tree"}}},
    }
}
DRAFT: Json = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Draft"}}}}
ID: Json = {"name": "id", "in": "path", "required": True, "description": "Which one.", "schema": {"type": "string"}}
LIMIT: Json = {"name": "topK", "in": "query", "schema": {"type": "integer", "minimum": 1}}
TAGS: Json = {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
DEEP: Json = {"name": "deep", "in": "query", "schema": {"type": "boolean"}}
TRACE: Json = {"name": "X-Trace", "in": "header", "schema": {"type": "string"}}


async def work() -> Json:
    return {}


def answers(**content: Json) -> Json:
    return {"200": {"description": "ok", "content": {name.replace("_", "/"): {"schema": schema} for name, schema in content.items()}}}


FOUND = answers(application_json={"$ref": "#/components/schemas/Found"})


def compile_paths(folder: Path, paths: Json) -> Contract:
    write_contract(folder, paths, COMPONENTS)
    names = {each["operationId"].rpartition(".")[2] for item in paths.values() for each in item.values()}
    with handlers(dict.fromkeys(names, work)):
        return load_contract(folder, surfaces=ERROR_BODIES)


def compile_one(folder: Path, path: str = "/things/{id}", method: str = "post", **members: Any) -> Tool:
    found = compile_paths(folder, {path: {method: operation("make_thing", **({"x-mcp": True, "responses": FOUND} | members))}})
    (tool,) = (each.tool for each in found.operations.values())
    assert tool is not None
    return tool


def test_parameters_and_body_become_one_closed_object(tmp_path: Path) -> None:
    parameters = [ID, LIMIT, TRACE]
    tool = compile_one(tmp_path, parameters=parameters, requestBody=DRAFT, summary="Make a thing", description="Makes one.\n")
    assert (tool.name, tool.title, tool.description) == ("make_thing", "Make a thing", "Makes one.")
    assert tool.input_schema == {
        "type": "object",
        "description": "What is wanted.",
        "properties": {
            "id": {"type": "string", "description": "Which one."},
            "topK": {"type": "integer", "minimum": 1},
            "title": {"type": "string", "maxLength": 10},
            "tree": {"$ref": "#/$defs/Tree"},
            "note": {"type": ["string", "null"]},
        },
        "required": ["id", "title"],
        "additionalProperties": False,
        "$defs": {
            "Tree": {
                "type": "object",
                "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}, "name": {"$ref": "#/$defs/Name"}},
            },
            "Name": {"type": ["string", "null"], "maxLength": 3},
        },
    }


def test_a_schema_that_refers_to_itself_stands_on_its_own(tmp_path: Path) -> None:
    tool = compile_one(tmp_path, parameters=[ID])
    assert tool.output_schema is not None
    gives = jsonschema_rs.validator_for(tool.output_schema)
    assert gives.is_valid({"tree": {"below": [{"below": [], "name": None}]}})
    assert not gives.is_valid({"tree": {"below": [{"below": [], "name": "long"}]}})


def test_a_parameter_keeps_its_description_beside_a_reference(tmp_path: Path) -> None:
    tool = compile_one(tmp_path, parameters=[ID | {"schema": {"$ref": "#/components/schemas/Slug"}}])
    assert tool.input_schema["properties"] == {"id": {"$ref": "#/$defs/Slug", "description": "Which one."}}
    assert tool.place({"id": "ab"}).path == {"id": "ab"}


def test_arguments_go_where_the_operation_expects_them(tmp_path: Path) -> None:
    tool = compile_one(tmp_path, parameters=[ID, LIMIT, TAGS, DEEP], requestBody=DRAFT)
    given = {"id": "a/b", "topK": 5.0, "tags": ["x y", "z&"], "deep": True, "title": "t", "note": None}
    assert tool.place(given) == ({"id": "a/b"}, b"topK=5&tags=x+y&tags=z%26&deep=true", {"title": "t", "note": None})
    assert tool.place({"id": "a", "topK": None, "title": "t"}) == ({"id": "a"}, b"", {"title": "t"})


def test_without_a_body_there_is_none_to_send(tmp_path: Path) -> None:
    tool = compile_one(tmp_path, "/things", "get", parameters=[LIMIT])
    assert tool.place({}) == ({}, b"", None)
    optional = {"content": {"application/json": {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}}
    assert compile_one(tmp_path, "/things", requestBody=optional).place({}).body is None
    assert compile_one(tmp_path, "/things", requestBody=optional | {"required": True}).place({}).body == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"title": "t"}, "id"),
        ({"id": "a"}, "title"),
        ({"id": 5, "title": "t"}, "/id"),
        ({"id": ["a"], "title": "t"}, "/id"),
        ({"id": "a", "title": "t", "topK": "5"}, "/topK"),
        ({"id": "a", "title": "t", "topK": 0}, "/topK"),
        ({"id": "a", "title": "t", "X-Trace": "x"}, "X-Trace"),
        ({"id": "a", "title": "t", "more": 1}, "more"),
        ({"id": "a", "title": "t", "tree": {"below": [{"name": "long"}]}}, "/tree/below/0/name"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(tmp_path: Path, arguments: Json, told: str) -> None:
    tool = compile_one(tmp_path, parameters=[ID, LIMIT, TRACE], requestBody=DRAFT)
    with pytest.raises(InvalidRequest, match=f"arguments.*{told}"):
        tool.place(arguments)


@pytest.mark.parametrize(
    ("method", "mark", "hints"),
    [
        ("get", True, (True, False, True)),
        ("post", True, (False, None, None)),
        ("post", {}, (False, None, None)),
        ("put", True, (False, None, True)),
        ("delete", {"destructive": True}, (False, True, True)),
        ("post", {"read_only": True}, (True, False, True)),
        ("post", {"destructive": False, "idempotent": True}, (False, False, True)),
        ("post", {"name": "other", "idempotent": False}, (False, None, False)),
    ],
)
def test_hints_come_from_the_mark_and_else_from_the_method(tmp_path: Path, method: str, mark: Any, hints: tuple[Any, ...]) -> None:
    tool = compile_one(tmp_path, "/things", method, **{"x-mcp": mark})
    assert (tool.is_read_only, tool.is_destructive, tool.is_idempotent) == hints


def test_audio_has_no_output_schema(tmp_path: Path) -> None:
    binary = {"type": "string", "format": "binary"}
    assert compile_one(tmp_path, "/things", responses=answers(audio_wav=binary, audio_mpeg=binary)).output_schema is None


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"x-mcp": "yes"}, "x-mcp is true, or an object"),
        ({"x-mcp": False}, "x-mcp is true, or an object"),
        ({"x-mcp": {"open": True}}, "x-mcp is true, or an object"),
        ({"x-mcp": {"read_only": "yes"}}, "true or false"),
        ({"x-mcp": {"name": 5}}, "the name is a text"),
        ({"x-mcp": {"name": "Make"}}, "'Make' cannot name a tool"),
        ({"x-mcp": {"name": "a" * 65}}, "cannot name a tool"),
        ({"parameters": [TRACE | {"required": True}]}, "needs 'X-Trace' in a header"),
        ({"parameters": [LIMIT | {"schema": {"type": "object"}}]}, "the parameter 'topK' must be"),
        ({"parameters": [TAGS | {"explode": False}]}, "the parameter 'tags' must be"),
        ({"parameters": [{**LIMIT, "name": "title"}], "requestBody": DRAFT}, "'title' is both a parameter and a property"),
        ({"requestBody": DRAFT | {"required": False}}, "a body that may be left out"),
        ({"requestBody": {"content": {"text/plain": {"schema": {"type": "string"}}}}}, "the body must be application/json"),
        ({"requestBody": {"content": {"application/json": {"schema": {"type": "array", "items": {}}}}}}, "an object with properties"),
        ({"requestBody": {"content": {"application/json": {"schema": {"anyOf": [{"type": "object"}]}}}}}, "an object with properties"),
        ({"responses": answers(text_eventstream={"type": "string"})}, "the answer must be application/json or audio"),
        ({"responses": answers(image_png={"type": "string"})}, "the answer must be application/json or audio"),
    ],
)
def test_what_cannot_be_a_tool_stops_the_start_with_file_and_line(tmp_path: Path, members: Json, reason: str) -> None:
    with pytest.raises(ContractError, match=rf"openapi\.yaml:\d+: POST /things: .*{reason}"):
        compile_one(tmp_path, "/things", **members)


def test_two_tools_cannot_share_a_name(tmp_path: Path) -> None:
    paths = {f"/{name}": {"get": operation(name, **{"x-mcp": {"name": "same"}})} for name in ("one", "two")}
    with pytest.raises(ContractError, match=r"GET /two: x-mcp: the name 'same' is already used by probe\.things\.one"):
        compile_paths(tmp_path, paths)


def test_tools_are_in_the_order_of_their_names_and_the_rest_are_none(tmp_path: Path) -> None:
    marks = {"b": True, "a": True, "c": None}
    paths = {f"/{name}": {"get": operation(name, **({"x-mcp": mark} if mark else {}))} for name, mark in marks.items()}
    assert list(compile_paths(tmp_path, paths).tools) == ["a", "b"]
