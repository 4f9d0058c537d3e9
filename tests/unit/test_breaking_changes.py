"""What breaks those who rely on an older contract, one case a kind; and that this contract breaks nobody who relies on the last release."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest

from homeport.contract import __main__ as commands
from homeport.contract.__main__ import RELEASED
from homeport.contract.changes import breaking_changes
from homeport.contract.loading import load_bundle

Json = dict[str, Any]
Change = Callable[[Json, Json], object]

THING: Json = {
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "name": {"type": "string", "minLength": 1, "maxLength": 10, "pattern": "^[a-z]*$"},
        "size": {"type": "number", "minimum": 0, "maximum": 9, "nullable": True},
        "state": {"type": "string", "enum": ["new", "old"]},
        "parts": {"type": "array", "maxItems": 3, "items": {"$ref": "#/components/schemas/Thing"}},
        "by": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "more": {"type": "object", "additionalProperties": {"type": "string"}},
        "limit": {"type": "integer", "default": 5},
    },
}
OLD: Json = {
    "openapi": "3.0.3",
    "info": {"title": "things", "version": "1"},
    "paths": {
        "/things/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 36}}],
            "put": {
                "operationId": "core.things.set_thing",
                "x-permission": "things.write",
                "x-mcp": True,
                "security": [{"key": []}, {"key": [], "app": []}],
                "parameters": [{"name": "mode", "in": "query", "schema": {"type": "string", "enum": ["soft", "hard"]}}],
                "x-stream-event": {"$ref": "#/components/schemas/Thing"},
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Draft"}},
                        "text/plain": {"schema": {"type": "string"}},
                    }
                },
                "responses": {
                    "200": {
                        "description": "It.",
                        "headers": {"ETag": {"required": True, "schema": {"type": "string"}}},
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}},
                            "text/plain": {"schema": {"type": "string"}},
                        },
                    },
                    "404": {"$ref": "#/components/responses/Missing"},
                },
            },
        }
    },
    "components": {
        "schemas": {"Thing": THING, "Draft": {**deepcopy(THING), "properties": deepcopy(THING["properties"])}},
        "responses": {"Missing": {"description": "No."}},
    },
}
OLD["components"]["schemas"]["Draft"]["properties"]["parts"]["items"] = {"$ref": "#/components/schemas/Draft"}


def changed(change: Change) -> list[str]:
    """What breaks when the change is made. It gets the document, and its only operation."""
    new = deepcopy(OLD)
    change(new, new["paths"]["/things/{id}"]["put"])
    return breaking_changes(OLD, new)


def schema(document: Json, name: str) -> Json:
    found: Json = document["components"]["schemas"][name]
    return found


def put(path: str, value: object) -> Change:
    """Set what a dotted path of a schema leads to: ``Draft.properties.name.maxLength``."""

    def change(document: Json, _: Json) -> None:
        *way, last = path.split(".")
        target: Json = document["components"]["schemas"]
        for name in way:
            target = target[name]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return change


def rename(document: Json, _: Json) -> None:
    text = orjson.dumps(document).replace(b"Draft", b"ThingDraft").replace(b"schemas/Thing", b"schemas/Item")
    document.update(orjson.loads(text))
    document["components"]["schemas"] = {
        name.replace("Thing", "Item") if name == "Thing" else name: each for name, each in document["components"]["schemas"].items()
    }
    document["components"]["schemas"]["ItemDraft"] = document["components"]["schemas"].pop("ThingDraft")


def inline(document: Json, operation: Json) -> None:
    operation["responses"]["404"] = document["components"]["responses"].pop("Missing")
    operation["parameters"] += document["paths"]["/things/{id}"].pop("parameters")


BREAKING: list[tuple[Change, str]] = [
    (lambda document, _: document["paths"].clear(), "the operation is gone"),
    (lambda _, operation: operation.update(operationId="core.things.put_thing"), "the operationId 'core.things.set_thing' is now"),
    (lambda _, operation: operation.update({"x-permission": "things.admin"}), "it now needs the permission 'things.admin' instead"),
    (lambda _, operation: operation["security"].pop(0), "it can no longer be called with key"),
    (lambda _, operation: operation["security"].pop(1), "it can no longer be called with app and key"),
    (lambda _, operation: operation.pop("x-mcp"), "the tool 'set_thing' is gone"),
    (lambda _, operation: operation.update({"x-mcp": {"name": "store"}}), "the tool 'set_thing' is now called 'store'"),
    (lambda _, operation: operation["parameters"].clear(), "the query parameter 'mode' is gone"),
    (lambda _, operation: operation["parameters"][0].update(required=True), "the query parameter 'mode' is now required"),
    (lambda _, operation: operation["parameters"][0].update(explode=False), "the query parameter 'mode' has another 'explode'"),
    (
        lambda _, operation: operation["parameters"].append({"name": "n", "in": "query", "required": True}),
        "the new query parameter 'n' is required",
    ),
    (lambda _, operation: operation["parameters"][0]["schema"]["enum"].remove("hard"), "'mode': 'hard' is no longer taken"),
    (lambda document, _: document["paths"]["/things/{id}"]["parameters"][0]["schema"].update(maxLength=9), "maxLength is now 9, not 36"),
    (lambda _, operation: operation["requestBody"].update(required=True), "a request body is now required"),
    (lambda _, operation: operation["requestBody"]["content"].pop("text/plain"), "a request body of text/plain is no longer taken"),
    (put("Draft.required", ["id", "name", "size"]), "the request body/size: it is now required"),
    (put("Draft.properties.size", None), "the request body/size: it is gone"),
    (put("Draft.properties.size.nullable", False), "the request body/size: null is no longer taken"),
    (put("Draft.properties.size.type", "integer"), "the request body/size: number is no longer taken"),
    (put("Draft.properties.size.minimum", 1), "the request body/size: minimum is now 1, not 0"),
    (put("Draft.properties.name.minLength", 2), "the request body/name: minLength is now 2, not 1"),
    (put("Draft.properties.name.maxLength", 9), "the request body/name: maxLength is now 9, not 10"),
    (put("Draft.properties.name.pattern", "^a"), "the request body/name: pattern is now '^a'"),
    (put("Draft.properties.name.enum", ["a"]), "the request body/name: only 'a' is taken now"),
    (put("Draft.properties.state.enum", ["new"]), "the request body/state: 'old' is no longer taken"),
    (put("Draft.properties.parts.maxItems", 2), "the request body/parts: maxItems is now 2, not 3"),
    (put("Draft.properties.parts.uniqueItems", True), "the request body/parts: uniqueItems is now True"),
    (put("Draft.properties.parts.items", {"type": "string"}), "the request body/parts/items: object is no longer taken"),
    (put("Draft.properties.by.anyOf", [{"type": "string"}]), "the request body/by: alternative 2 is no longer taken"),
    (put("Draft.properties.more.additionalProperties.maxLength", 5), "the request body/more/*: maxLength is now 5, not None"),
    (put("Draft.properties.limit.default", 6), "the request body/limit: the default 5 is now 6"),
    (put("Draft.additionalProperties", False), "the request body: other properties are no longer taken"),
    (lambda _, operation: operation["responses"].pop("404"), "the status 404 is gone"),
    (lambda _, operation: operation["responses"].update({"202": {"description": "Later."}}), "success may now have the status 202"),
    (lambda _, operation: operation["responses"]["200"]["content"].pop("text/plain"), "the answer 200 no longer comes as text/plain"),
    (lambda _, operation: operation["responses"]["200"].pop("headers"), "the header ETag of the answer 200 is gone"),
    (
        lambda _, operation: operation["responses"]["200"]["headers"]["ETag"].pop("required"),
        "the header ETag of the answer 200 may now be missing",
    ),
    (put("Thing.required", ["id"]), "the answer 200/name: it may now be missing"),
    (put("Thing.properties.size", None), "the answer 200/size: it is gone"),
    (put("Thing.properties.size", None), "the data of an event/size: it is gone"),
    (put("Thing.properties.name.nullable", True), "the answer 200/name: it may now be null"),
    (put("Thing.properties.limit.type", "number"), "the answer 200/limit: it may now be number"),
    (put("Thing.properties.size.maximum", 10), "the answer 200/size: maximum is now 10, not 9"),
    (put("Thing.properties.name.maxLength", None), "the answer 200/name: maxLength is now None, not 10"),
    (put("Thing.properties.id.format", None), "the answer 200/id: format was 'uuid', now None"),
    (put("Thing.properties.state.enum", ["new", "old", "odd"]), "the answer 200/state: 'odd' is new"),
    (put("Thing.properties.state.enum", None), "the answer 200/state: it is no longer only 'new', 'old'"),
    (put("Thing.properties.by.anyOf", [{"type": "boolean"}]), "the answer 200/by: there was no alternative like the new 1"),
    (put("Thing.properties.parts.items", {}), "the answer 200/parts/items: it may now be array or boolean"),
]


@pytest.mark.parametrize(("change", "sentence"), BREAKING, ids=[sentence for _, sentence in BREAKING])
def test_what_breaks_clients_is_told_with_where_it_is(change: Change, sentence: str) -> None:
    found = changed(change)
    assert [each for each in found if each.startswith("PUT /things/{id}: ") and sentence in each] != [], found


HARMLESS: dict[str, Change] = {
    "a path": lambda document, _: document["paths"].update({"/new": {"get": {"operationId": "core.things.list_things", "responses": {}}}}),
    "an operation": lambda document, operation: document["paths"]["/things/{id}"].update(
        get=operation | {"operationId": "core.things.get_thing"}
    ),
    "a version": lambda document, _: document["info"].update(version="2"),
    "other words": lambda _, operation: operation.update(summary="Another", description="Another.", tags=["Another"]),
    "no permission": lambda _, operation: operation.update({"x-permission": "none"}),
    "another credential": lambda _, operation: operation["security"].append({"app": []}),
    "no credential": lambda _, operation: operation.update(security=[]),
    "an optional parameter": lambda _, operation: operation["parameters"].append(
        {"name": "n", "in": "query", "schema": {"type": "string"}}
    ),
    "another value of a parameter": lambda _, operation: operation["parameters"][0]["schema"]["enum"].append("other"),
    "another media type of a request": lambda _, operation: operation["requestBody"]["content"].update({"text/csv": {}}),
    "another error": lambda _, operation: operation["responses"].update({"503": {"description": "Later."}}),
    "another header": lambda _, operation: operation["responses"]["200"]["headers"].update({"Date": {"schema": {"type": "string"}}}),
    "other names of schemas": rename,
    "the same, written in place": inline,
    "a property that need not be sent": put("Draft.required", ["id"]),
    "a property of a request": put("Draft.properties.new", {"type": "string"}),
    "a wider bound": put("Draft.properties.size.maximum", 10),
    "no bound": put("Draft.properties.name.maxLength", None),
    "no pattern": put("Draft.properties.name.pattern", None),
    "a request that may be null": put("Draft.properties.name.nullable", True),
    "a wider type": put("Draft.properties.limit.type", "number"),
    "another value of a request": put("Draft.properties.state.enum", ["new", "old", "odd"]),
    "any value of a request": put("Draft.properties.state.enum", None),
    "another alternative, in another order": put(
        "Draft.properties.by.anyOf", [{"type": "integer"}, {"type": "boolean"}, {"type": "string"}]
    ),
    "a property that is always there": put("Thing.required", ["id", "name", "size"]),
    "a property of an answer": put("Thing.properties.new", {"type": "string"}),
    "an answer that is never null": put("Thing.properties.size.nullable", False),
    "a narrower type": put("Thing.properties.size.type", "integer"),
    "a narrower answer": put("Thing.properties.name.maxLength", 9),
    "fewer values in an answer": put("Thing.properties.state.enum", ["new"]),
    "fewer alternatives in an answer": put("Thing.properties.by.anyOf", [{"type": "integer"}]),
    "another description": put("Thing.properties.limit.description", "More about it."),
    "an answer without other properties": put("Thing.additionalProperties", False),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_adds_or_only_says_more_breaks_nobody(change: Change) -> None:
    assert changed(change) == []


def test_this_contract_breaks_nobody_who_relies_on_the_last_release() -> None:
    assert breaking_changes(orjson.loads(RELEASED.read_bytes()), load_bundle().document) == []


def test_freezing_keeps_the_document_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = tmp_path / "released" / "openapi.json"
    monkeypatch.setattr(commands, "RELEASED", frozen)
    assert commands.main(["freeze"]) == 0
    assert b"InfoFunc" not in frozen.read_bytes()
    assert orjson.loads(frozen.read_bytes())["paths"] == load_bundle().document["paths"]


def test_every_operation_of_the_last_release_is_compared() -> None:
    released = orjson.loads(RELEASED.read_bytes())
    gone = breaking_changes(released, released | {"paths": {}})
    assert len(gone) == sum(len(item.keys() & {"get", "put", "post", "patch", "delete"}) for item in released["paths"].values()) > 100
