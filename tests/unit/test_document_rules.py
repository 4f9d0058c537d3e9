"""What the document must hold, one test a rule. ``openapi/README.md`` says why."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest
import yaml
from openapi_spec_validator import OpenAPIV30SpecValidator

from homeport.contract import Operation
from homeport.contract.loading import CONTRACT_ROOT, each_operation
from homeport.contract.operations import Resolver
from homeport.contract.schemas import Schemas
from homeport.contract.tools import Tool
from tests.document import CONTRACT, DOCUMENT

Json = dict[str, Any]

OPERATIONS = {f"{method.upper()} {path}": operation for path, method, operation in each_operation(DOCUMENT)}
RESOLVE = Resolver(DOCUMENT)
SCHEMAS = Schemas(DOCUMENT)
TOOLS = CONTRACT.tools

SECURITY: dict[str, list[list[Json]]] = {
    "admin": [[{"apiKey": []}, {"apiKeyHeader": []}]],
    "core": [[]],
    # The last one: whoever has no credential may say who it is in the body.
    "local_apps": [
        [{"apiKey": []}, {"apiKeyHeader": []}, {"appId": []}],
        [],
        [{}, {"apiKey": []}, {"apiKeyHeader": []}, {"appId": []}],
    ],
    "system": [[], [{"apiKey": []}, {"apiKeyHeader": []}, {"appId": []}]],
}
FUNCTION_NAME = re.compile(
    r"(approve|cancel|close|create|decide|delete|execute|get|import|list|listen|ping|query|receive|register|remove|request|reset|restart|revoke|run|search|send|set|show|start|stop|stream|sync|test|transcribe|update|upsert)(_[a-z]+)*"
)
EDGE_STATUSES = {"400", "403", "413", "421", "500"}
ERROR_SCHEMAS = {"admin": "Problem", "core": "CoreError", "local_apps": "LocalAppsError", "system": "Problem"}
KEY_ORDER = re.compile(
    r"operationId tags summary description x-permission( x-mcp)? security( x-stream-event)?( parameters)?( requestBody)? responses"
)
# A message that is MCP's, but cannot be answered, is told so in the protocol's own terms, which its clients read.
MCP_ANSWER = {"application/json": {"$ref": "#/components/schemas/McpAnswer"}}
MCP_ERRORS = {
    ("system.mcp.send_message", "400"): MCP_ANSWER | {"application/problem+json": {"$ref": "#/components/schemas/Problem"}},
    ("system.mcp.send_message", "404"): MCP_ANSWER,
}
# Which functions there are for each method; what a POST does has many names.
VERBS = {
    "get": {"get", "list", "ping", "search", "show"},
    "put": {"set"},
    "patch": {"update"},
    "delete": {"cancel", "close", "delete", "remove", "reset", "revoke"},
}
# What OpenAPI 3.0 and JSON Schema 2020-12 say with the same words, but for `nullable` and `example`.
SCHEMA_KEYWORDS = {
    *("type", "nullable", "format", "enum", "default", "title", "description", "example", "discriminator", "readOnly", "writeOnly"),
    *("minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems", "items", "minProperties", "maxProperties"),
    *("properties", "required", "additionalProperties", "anyOf"),
}
# Names that nobody makes: they are enumerated.
ENUMERATED = {"admin.models.get_route", "admin.models.set_route", "system.document.get_docs_asset", "system.document.get_surface_document"}
# Tells what is wrong with a database by codes of its own.
OWN_ERRORS = {("local_apps.vector_config.register_config", "400")}
# Schemathesis draws a text that has a pattern and a larger bound than this character by character.
MAX_PATTERN_LENGTH = 32 * 1024


each = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
each_tool = pytest.mark.parametrize(("tool", "operation"), TOOLS.values(), ids=TOOLS)


def parameters_of(operation: Json) -> list[Json]:
    return [RESOLVE(parameter) for parameter in operation.get("parameters", [])]


def responses_of(operation: Json) -> Iterator[tuple[str, Json]]:
    for status, response in operation["responses"].items():
        yield status, RESOLVE(response)


def request_contents(operation: Json) -> Json:
    contents: Json = RESOLVE(operation.get("requestBody", {})).get("content", {})
    return contents


def success_of(operation: Json) -> str:
    """The status of success."""
    return min(status for status in operation["responses"] if status.startswith("2"))


def examples_of(content: Json) -> list[Any]:
    named = [RESOLVE(example)["value"] for example in content.get("examples", {}).values()]
    return [*named, content["example"]] if "example" in content else named


def assert_valid(schema: Json, value: Any) -> None:
    assert SCHEMAS.compile(schema).problems(value, "example") == ()


def schemas_below(schema: Json, seen: set[str] | None = None, where: str = "") -> Iterator[tuple[str, Json]]:
    """(where, schema) for a schema and all that it is made of, each reference followed once."""
    seen = set() if seen is None else seen
    reference = schema.get("$ref")
    if reference:
        if reference not in seen:
            seen.add(reference)
            yield from schemas_below(RESOLVE(schema), seen, reference.rsplit("/", 1)[-1])
        return
    yield where, schema
    for name, child in schema.get("properties", {}).items():
        yield from schemas_below(child, seen, f"{where}.{name}")
    for keyword in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(keyword), dict):
            yield from schemas_below(schema[keyword], seen, f"{where}.{keyword}")
    for keyword in ("anyOf", "oneOf", "allOf"):
        for number, child in enumerate(schema.get(keyword, [])):
            yield from schemas_below(child, seen, f"{where}.{keyword}{number}")


def request_schemas(operation: Json) -> Iterator[tuple[str, Json]]:
    for parameter in parameters_of(operation):
        yield from schemas_below(parameter["schema"], where=parameter["name"])
    for content in request_contents(operation).values():
        yield from schemas_below(content["schema"])


def all_schemas() -> list[tuple[str, Json]]:
    named = [found for name, schema in DOCUMENT["components"]["schemas"].items() for found in schemas_below(schema, where=name)]
    inline = [found for operation in OPERATIONS.values() for found in request_schemas(operation)]
    return named + inline


def test_the_bundle_is_a_valid_openapi_document() -> None:
    assert [error.message for error in OpenAPIV30SpecValidator(DOCUMENT).iter_errors()] == []


def test_the_index_only_refers_to_path_items_in_surface_folders() -> None:
    index = yaml.safe_load((CONTRACT_ROOT / "openapi.yaml").read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"paths/[a-z_]+/[a-z_]+\.yaml#/[a-z_]+", item["$ref"]) and len(item) == 1 for item in index["paths"].values())
    del index["components"]["securitySchemes"]
    indexed = [entry for entries in index["components"].values() for entry in entries.items()]
    assert [name for name, entry in indexed if list(entry) != ["$ref"] or not entry["$ref"].endswith(f"#/{name}")] == []


def test_every_component_is_listed_in_the_index() -> None:
    index = yaml.safe_load((CONTRACT_ROOT / "openapi.yaml").read_text(encoding="utf-8"))
    assert {kind: set(entries) for kind, entries in DOCUMENT["components"].items()} == {
        kind: set(entries) for kind, entries in index["components"].items()
    }


def test_every_component_is_used() -> None:
    text = orjson.dumps(DOCUMENT).decode()
    for kind, entries in DOCUMENT["components"].items():
        if kind != "securitySchemes":
            assert [name for name in entries if f'"#/components/{kind}/{name}"' not in text] == []


@pytest.mark.parametrize("file", sorted((CONTRACT_ROOT / "paths").rglob("*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_path_file_can_be_read_on_a_few_screens(file: Any) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 250


def test_operation_ids_are_unique() -> None:
    assert [name for name, count in Counter(operation["operationId"] for operation in OPERATIONS.values()).items() if count > 1] == []


@each
def test_an_operation_id_is_surface_module_and_verb_noun(operation: Json) -> None:
    surface, module, function = operation["operationId"].split(".")
    assert surface == operation["x-surface"]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", module)
    assert FUNCTION_NAME.fullmatch(function)


@each
def test_an_operation_keeps_the_order_of_its_parts(operation: Json) -> None:
    assert KEY_ORDER.fullmatch(" ".join(key for key in operation if key != "x-surface"))


@each
def test_an_operation_has_a_short_summary_and_a_description(operation: Json) -> None:
    assert 0 < len(operation["summary"]) <= 60
    assert re.fullmatch(r"[A-Z].*[^.]", operation["summary"])
    assert operation["description"].rstrip().endswith(".")


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_paths_are_kebab_case_and_nested_twice_at_most(path: str) -> None:
    segments = path.split("/")[1:]
    assert all(re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*|\{[a-z]+(_[a-z]+)*\}", segment) for segment in segments)
    assert path.count("{") <= 2


@each
def test_parameters_are_snake_case_and_shared(operation: Json) -> None:
    assert all(list(parameter) == ["$ref"] for parameter in operation.get("parameters", []))
    for parameter in parameters_of(operation):
        assert parameter["in"] in ("path", "query", "header")
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", parameter["name"]) or parameter["in"] == "header"


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_method_does_what_it_is_for(name: str) -> None:
    operation, method = OPERATIONS[name], name.partition(" ")[0].lower()
    verb = operation["operationId"].rpartition(".")[2].partition("_")[0]
    assert verb in VERBS[method] if method in VERBS else verb not in VERBS["get"] | VERBS["put"] | VERBS["patch"]
    assert "requestBody" not in operation or method not in ("get", "delete")


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation["x-surface"] == "admin"])
def test_the_admin_surface_has_a_version_and_names_of_one_form(name: str) -> None:
    operation = OPERATIONS[name]
    assert name.split(" ")[1].startswith("/admin/v1/")
    bodies = [*request_contents(operation).values(), RESOLVE(operation["responses"][success_of(operation)])["content"]["application/json"]]
    for where, schema in [found for body in bodies for found in schemas_below(body["schema"])]:
        properties = schema.get("properties", {})
        assert [each for each in properties if not re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", each)] == [], where
        assert [each for each in properties if each.endswith("_at") and properties[each].get("format") != "date-time"] == [], where


@each
def test_lists_of_the_admin_surface_come_in_pages(operation: Json) -> None:
    if operation["x-surface"] == "admin" and operation["operationId"].rpartition(".")[2].startswith("list_"):
        schema = RESOLVE(RESOLVE(operation["responses"]["200"])["content"]["application/json"]["schema"])
        parameters = {parameter["name"]: parameter["schema"] for parameter in parameters_of(operation)}
        assert schema["properties"].keys() == set(schema["required"]) == {"items", "next_cursor"}
        assert (parameters["limit"]["default"], parameters["limit"]["maximum"]) == (50, 200)
        assert "cursor" in parameters


@each
def test_an_operation_has_one_tag_that_is_described(operation: Json) -> None:
    (tag,) = operation["tags"]
    assert [entry for entry in DOCUMENT["tags"] if entry["name"] == tag and entry["description"]]


def test_every_tag_is_used() -> None:
    assert {tag["name"] for tag in DOCUMENT["tags"]} == {tag for operation in OPERATIONS.values() for tag in operation["tags"]}


@each
def test_an_operation_states_its_permission(operation: Json) -> None:
    assert re.fullmatch(r"none|[a-z]+(\.[a-z]+)+", operation["x-permission"])
    if operation["x-surface"] == "admin":
        assert operation["x-permission"].startswith("admin.")


@each
def test_an_operation_states_its_security(operation: Json) -> None:
    assert operation["security"] in SECURITY[operation["x-surface"]]
    assert (operation["security"] and {} not in operation["security"]) or operation["x-permission"] == "none"


@each
def test_texts_in_a_request_are_bounded(operation: Json) -> None:
    texts = [(where, schema) for where, schema in request_schemas(operation) if schema.get("type") == "string"]
    unbounded = [(where, schema) for where, schema in texts if not {"maxLength", "enum"} & schema.keys()]
    # A file may be as long as a body; with a bound of its own, OpenAPI Generator makes Go that does not compile.
    assert [where for where, schema in unbounded if schema.get("format") not in ("uuid", "date-time", "binary")] == []


@each
def test_lists_in_a_request_are_bounded(operation: Json) -> None:
    assert [where for where, schema in request_schemas(operation) if schema.get("type") == "array" and "maxItems" not in schema] == []


@each
def test_numbers_in_a_request_are_bounded(operation: Json) -> None:
    numbers = [(where, schema) for where, schema in request_schemas(operation) if schema.get("type") in ("integer", "number")]
    # A batch of vectors has tens of thousands; what they amount to is checked in one go when they are packed.
    numbers = [(where, schema) for where, schema in numbers if not where.lower().endswith("vector.items")]
    assert [where for where, schema in numbers if not {"minimum", "maximum"} <= schema.keys()] == []


@each
def test_optional_fields_of_local_app_requests_are_nullable_and_extra_ones_pass(operation: Json) -> None:
    if operation["x-surface"] != "local_apps":
        return
    for content in request_contents(operation).values():
        schema = RESOLVE(content["schema"])
        assert schema.get("additionalProperties", True) is True
        optional = schema["properties"].keys() - set(schema.get("required", []))
        assert [name for name in optional if not RESOLVE(schema["properties"][name]).get("nullable")] == []


@each
def test_objects_of_the_admin_surface_are_closed(operation: Json) -> None:
    if operation["x-surface"] != "admin":
        return
    answers = [content["schema"] for _, response in responses_of(operation) for content in response["content"].values()]
    found = [found for schema in answers for found in schemas_below(schema)] + list(request_schemas(operation))
    assert [where for where, schema in found if schema.get("type") == "object" and schema.get("additionalProperties") is not False] == []


@each
def test_bodies_are_named_schemas(operation: Json) -> None:
    contents = list(request_contents(operation).values())
    contents += [content for _, response in responses_of(operation) for content in response.get("content", {}).values()]
    for content in contents:
        assert content.get("schema", {}).keys() <= {"$ref"} or content["schema"] == {"type": "string"}


def test_objects_with_properties_are_named() -> None:
    assert [where for where, schema in all_schemas() if "properties" in schema and where not in DOCUMENT["components"]["schemas"]] == []


def test_schema_names_are_pascal_case() -> None:
    assert [name for name in DOCUMENT["components"]["schemas"] if not re.fullmatch(r"([A-Z][a-z]+)+", name)] == []


def test_schemas_say_nothing_that_another_version_of_openapi_says_otherwise() -> None:
    assert [(where, key) for where, schema in all_schemas() for key in schema.keys() - SCHEMA_KEYWORDS if not key.startswith("x-")] == []
    assert [where for where, schema in all_schemas() if schema.get("type") == "array" and "items" not in schema] == []
    assert {key for _, _, operation in each_operation(DOCUMENT) for key in operation} & {"callbacks", "servers", "deprecated"} == set()


def test_what_is_only_written_is_never_answered() -> None:
    answers = [
        content
        for operation in OPERATIONS.values()
        for _, response in responses_of(operation)
        for content in response.get("content", {}).values()
    ]
    found = [found for content in answers if "schema" in content for found in schemas_below(content["schema"])]
    assert [where for where, schema in found if schema.get("writeOnly")] == []
    secrets = (".api_key", ".password", ".secret")
    assert [where for where, _ in found if where.endswith(secrets)] == []
    written = [found for operation in OPERATIONS.values() for found in request_schemas(operation) if found[0].endswith(secrets)]
    assert written
    assert [where for where, schema in written if not schema.get("writeOnly")] == []


def test_nullable_stands_only_beside_a_type() -> None:
    assert [where for where, schema in all_schemas() if "nullable" in schema and not isinstance(schema.get("type"), str)] == []


def test_patterns_mean_the_same_to_python_and_to_the_validator() -> None:
    samples = ["", "a", "a.b", "a\nb", "a\0b", "é😀", "*", "llm.*", " x", "A-1", '"x"', "[DONE]", "{}", "\x85", "x y"]
    for where, schema in all_schemas():
        if "pattern" in schema:
            validator = jsonschema_rs.validator_for({"pattern": schema["pattern"]})
            for sample in samples:
                assert validator.is_valid(sample) == bool(re.search(schema["pattern"], sample)), (where, sample)


def test_texts_with_a_pattern_are_short_enough_to_be_drawn() -> None:
    assert [where for where, schema in all_schemas() if "pattern" in schema and schema.get("maxLength", 0) >= MAX_PATTERN_LENGTH] == []


@each
def test_a_request_body_has_valid_examples(operation: Json) -> None:
    for content in request_contents(operation).values():
        assert examples_of(content)
        for example in examples_of(content):
            assert_valid(content["schema"], example)


@each
def test_parameters_are_described_and_have_valid_examples(operation: Json) -> None:
    for parameter in parameters_of(operation):
        assert parameter["description"]
        assert not parameter.get("required") or examples_of(parameter)
        for example in examples_of(parameter):
            assert_valid(parameter["schema"], example)


@each
def test_every_answer_with_a_body_has_a_valid_example(operation: Json) -> None:
    for status, response in responses_of(operation):
        for media_type, content in response.get("content", {}).items():
            assert examples_of(content) or media_type == "image/png", status
            for example in examples_of(content):
                assert_valid(content["schema"], example)


@each
def test_a_stream_says_what_its_events_carry(operation: Json) -> None:
    is_stream = any("text/event-stream" in response.get("content", {}) for _, response in responses_of(operation))
    assert is_stream == ("x-stream-event" in operation)
    assert not is_stream or examples_of(RESOLVE(operation["responses"]["200"])["content"]["text/event-stream"])


@each
def test_example_events_carry_data_that_their_stream_declares(operation: Json) -> None:
    for _, response in responses_of(operation):
        for event in examples_of(response.get("content", {}).get("text/event-stream", {})):
            data = event["data"] if event["data"] == "[DONE]" else orjson.loads(event["data"])
            assert_valid(operation["x-stream-event"], data)


@each
def test_an_operation_lists_what_can_happen_at_the_edge(operation: Json) -> None:
    expected = set(EDGE_STATUSES)
    if operation["security"]:
        expected.add("401")
    if "requestBody" in operation:
        expected.add("415")
    if operation["x-surface"] in ("local_apps", "admin"):
        expected.add("503")
    if any(parameter["in"] == "path" for parameter in parameters_of(operation)):
        expected.add("404")
    assert expected <= operation["responses"].keys()


@each
def test_an_operation_names_each_status(operation: Json) -> None:
    assert all(re.fullmatch(r"[2345][0-9][0-9]", status) for status in operation["responses"])
    assert any(status.startswith("2") for status in operation["responses"])


@each
def test_errors_have_the_body_of_their_surface(operation: Json) -> None:
    schema = {"$ref": f"#/components/schemas/{ERROR_SCHEMAS[operation['x-surface']]}"}
    media_type = "application/problem+json" if schema["$ref"].endswith("Problem") else "application/json"
    for status, response in responses_of(operation):
        if int(status) >= 400:
            expected = MCP_ERRORS.get((operation["operationId"], status), {media_type: schema})
            assert {name: content["schema"] for name, content in response["content"].items()} == expected, status


@each
def test_errors_are_shared(operation: Json) -> None:
    own = {status for status, response in operation["responses"].items() if int(status) >= 400 and list(response) != ["$ref"]}
    assert [status for status in own if (operation["operationId"], status) not in OWN_ERRORS] == []


@each
def test_who_is_told_to_try_later_is_told_when(operation: Json) -> None:
    assert [
        status for status, response in responses_of(operation) if status in ("429", "503") and "Retry-After" not in response["headers"]
    ] == []


@each
def test_every_answer_has_a_request_id(operation: Json) -> None:
    for status, response in responses_of(operation):
        assert RESOLVE(response["headers"]["X-Request-Id"])["required"], status


@each
def test_a_401_says_how_to_authenticate(operation: Json) -> None:
    for status, response in responses_of(operation):
        assert ("WWW-Authenticate" in response["headers"]) == (status == "401")


@each
def test_links_lead_to_operations_with_the_parameters_they_give(operation: Json) -> None:
    by_id = {other["operationId"]: other for other in OPERATIONS.values()}
    for _, response in responses_of(operation):
        for link in response.get("links", {}).values():
            target = by_id[link["operationId"]]
            required = {parameter["name"] for parameter in parameters_of(target) if parameter.get("required")}
            assert required == link.get("parameters", {}).keys()
            (content,) = response["content"].values()
            given = [*link.get("parameters", {}).values(), *link.get("requestBody", {}).values()]
            for pointer in (text.removeprefix("$response.body#") for text in given if str(text).startswith("$response.body#")):
                assert point(examples_of(content)[0], pointer) is not None


def point(value: Any, pointer: str) -> Any:
    for segment in pointer.split("/")[1:]:
        value = value[int(segment)] if isinstance(value, list) else value[segment]
    return value


@each
def test_what_is_created_can_be_reached_by_a_link(operation: Json) -> None:
    if "201" in operation["responses"]:
        assert RESOLVE(operation["responses"]["201"])["links"]


def test_whatever_has_an_id_in_its_path_is_reached_by_a_link() -> None:
    responses = [response for operation in OPERATIONS.values() for _, response in responses_of(operation)]
    reached = {link["operationId"] for response in responses for link in response.get("links", {}).values()}
    with_id = {each["operationId"] for each in OPERATIONS.values() if any(parameter["in"] == "path" for parameter in parameters_of(each))}
    assert with_id - reached == ENUMERATED


@each_tool
def test_a_tool_is_an_operation_that_any_caller_may_be_allowed(tool: Tool, operation: Operation) -> None:
    assert operation.surface == "local_apps"
    assert {name for requirement in operation.security for name, _ in requirement.schemes} == {"apiKey", "apiKeyHeader", "appId"}
    assert operation.method != "DELETE"


@each_tool
def test_a_tool_says_what_it_does_and_whether_it_changes_anything(tool: Tool, operation: Operation) -> None:
    assert len(tool.description) >= 20
    # A client that is not told takes a tool for destructive.
    assert tool.is_read_only or tool.is_destructive is not None


@each_tool
def test_the_schemas_of_a_tool_stand_on_their_own(tool: Tool, operation: Operation) -> None:
    for schema in (tool.input_schema, tool.output_schema):
        if schema is not None:
            jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema)
            jsonschema_rs.validator_for(schema)
            assert schema["type"] == "object"
            text = orjson.dumps(schema).decode()
            assert "#/components" not in text
            assert '"nullable"' not in text


@each_tool
def test_a_tool_takes_the_examples_of_its_operation_and_gives_its_answers(tool: Tool, operation: Operation) -> None:
    raw = OPERATIONS[f"{operation.method} {operation.path}"]
    takes = jsonschema_rs.validator_for(tool.input_schema)
    parameters = {each["name"]: examples_of(each)[0] for each in parameters_of(raw) if each.get("required")}
    bodies = [example for content in request_contents(raw).values() for example in examples_of(content)]
    for body in bodies or [{}]:
        assert takes.is_valid(parameters | body)
        assert not takes.is_valid(parameters | body | {"not_known": 1})
    if tool.output_schema is not None:
        gives = jsonschema_rs.validator_for(tool.output_schema)
        content = RESOLVE(raw["responses"][str(operation.success_status)])["content"]["application/json"]
        assert all(gives.is_valid(example) for example in examples_of(content))


def test_every_surface_has_a_document_of_its_own() -> None:
    names = DOCUMENT["components"]["parameters"]["SurfaceDocumentName"]["schema"]["enum"]
    assert names == sorted({f"{operation['x-surface']}.json" for operation in OPERATIONS.values()})


def test_each_security_scheme_says_who_checks_it_and_by_which_rules() -> None:
    for scheme in DOCUMENT["components"]["securitySchemes"].values():
        assert scheme["description"]
        assert scheme["x-bearerInfoFunc" if scheme["type"] == "http" else "x-apikeyInfoFunc"].startswith("homeport.http.credentials.")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("POST /sdk/register", {"app_id": "", "app_name": None, "permissions": ["desktop.runtime-sessions"]}),
        ("POST /api/local-apps/request-permission", {"app_id": "", "app_name": None, "permission": "llm.chat"}),
        ("POST /api/local-apps/request-permission", {"app_id": None, "permission": "vectors.read", "extra": 1}),
        ("POST /activities", {"raw_data": {"text": "a\0b", "deep": [[[]]]}, "app_id": ""}),
        ("PATCH /activities/{id}", {"status": "anything", "result": None, "id": "x", "created_at": "now"}),
        ("POST /sdk/llm/chat", {"messages": [{"role": "user", "content": [{"type": "else", "n": 1}]}], "max_tokens": 1000, "x": None}),
        ("POST /sdk/llm/chat/stream", {"messages": [{"role": "user", "content": ""}], "model": "", "provider": "", "stream": True}),
        (
            "POST /sdk/llm/vectors/register",
            {"provider": "pgvector", "config": {"databaseUrl": "postgresql://h/d", "tableName": None, "x": 1}},
        ),
        ("POST /sdk/llm/vectors/register", {"provider": "homeport", "config": None, "extra": 1}),
        ("POST /sdk/llm/embed", {"input": ["Hello"], "provider": None, "model": None}),
        ("POST /sdk/llm/embed", {"input": "Hello", "provider": "", "model": "", "dimensions": None, "encoding_format": "float"}),
    ],
)
def test_bodies_as_official_clients_send_them_are_valid(name: str, body: Json) -> None:
    assert_valid(request_contents(OPERATIONS[name])["application/json"]["schema"], body)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("POST /api/local-apps/request-permission", {"app_id": "a", "permission": "a\0b"}),
        ("POST /activities", {"raw_data": None}),
        ("PATCH /activities/{id}", {"status": "a\0b"}),
        ("POST /sdk/llm/chat", {"messages": []}),
        ("POST /sdk/llm/vectors/register", {"provider": "chroma", "config": {}}),
        ("POST /sdk/llm/vectors/register", {"provider": "pgvector", "config": {"databaseUrl": "postgresql://h/d\0", "tableName": "t"}}),
        ("POST /sdk/llm/vectors/register", {"provider": "pgvector", "config": {"databaseUrl": "postgresql://h/d", "tableName": "a-b"}}),
        ("POST /sdk/llm/embed", {"input": []}),
        ("POST /sdk/llm/embed", {"input": ""}),
        ("POST /sdk/llm/embed", {"input": ["a", ""]}),
        ("POST /sdk/llm/embed", {"input": None}),
        ("POST /sdk/llm/embed", {"input": "a", "dimensions": 0}),
        ("POST /admin/v1/api-keys", {"name": "x", "scopes": []}),
        ("POST /admin/v1/api-keys", {"name": "x", "key": "mine"}),
        ("POST /admin/v1/apps", {"name": " x"}),
        ("POST /admin/v1/apps", {"name": "x", "id": "x"}),
    ],
)
def test_bodies_that_could_not_be_stored_or_meant_are_invalid(name: str, body: Json) -> None:
    schema = request_contents(OPERATIONS[name])["application/json"]["schema"]
    assert SCHEMAS.compile(schema).problems(body, "body") != ()
