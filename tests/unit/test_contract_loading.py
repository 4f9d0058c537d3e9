"""The document is bundled with its names kept, and refused at start-up with file and line when it cannot be served truthfully."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from homeport.contract import ContractError, load_contract
from homeport.contract.loading import load_bundle
from homeport.http.error_bodies import ERROR_BODIES
from tests.unit.contract_app import OK, SCHEMES, handlers, operation, write_contract


async def answer() -> dict[str, Any]:
    return {}


def write(folder: Path, name: str, content: Any) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def multi_file(folder: Path, item: str) -> Path:
    write(
        folder,
        "openapi.yaml",
        {
            "openapi": "3.0.3",
            "info": {"title": "t", "version": "1"},
            "paths": {"/things": {"$ref": "paths/core/things.yaml#/things"}},
            "components": {
                "securitySchemes": SCHEMES,
                "schemas": {"Thing": {"$ref": "components/schemas/things.yaml#/Thing"}},
            },
        },
    )
    write(folder, "paths/core/things.yaml", item)
    write(
        folder,
        "components/schemas/things.yaml",
        {"Thing": {"type": "object", "properties": {"next": {"$ref": "#/Thing"}, "part": {"$ref": "#/Part"}}}, "Part": {"type": "string"}},
    )
    return folder


GOOD_ITEM = """
things:
  get:
    operationId: probe.things.answer
    x-permission: none
    security: []
    responses:
      "200":
        description: ok
        content:
          application/json:
            schema: {$ref: "../../openapi.yaml#/components/schemas/Thing"}
"""


def compile_contract(folder: Path, **functions: Any) -> Any:
    with handlers(functions or {"answer": answer}):
        return load_contract(folder, surfaces=ERROR_BODIES)


def refusal(folder: Path, **functions: Any) -> str:
    with pytest.raises(ContractError) as caught:
        compile_contract(folder, **functions)
    return str(caught.value)


def test_component_names_survive_bundling_and_recursion_stays_a_reference(tmp_path: Path) -> None:
    document = load_bundle(multi_file(tmp_path, GOOD_ITEM)).document
    assert document["paths"]["/things"]["get"]["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Thing"
    }
    assert document["components"]["schemas"]["Thing"]["properties"]["next"] == {"$ref": "#/components/schemas/Thing"}


def test_a_schema_that_the_index_does_not_name_becomes_a_component_of_its_own_name(tmp_path: Path) -> None:
    assert load_bundle(multi_file(tmp_path, GOOD_ITEM)).document["components"]["schemas"]["Part"] == {"type": "string"}


def test_the_folder_of_a_path_item_is_its_surface(tmp_path: Path) -> None:
    assert compile_contract(multi_file(tmp_path, GOOD_ITEM)).operations["probe.things.answer"].surface == "core"


def test_the_bundle_is_cached_by_content(tmp_path: Path) -> None:
    root, cache = multi_file(tmp_path / "openapi", GOOD_ITEM), tmp_path / "cache"
    first = load_bundle(root, cache)
    assert [file.name.startswith("contract-") for file in cache.iterdir()] == [True]
    assert load_bundle(root, cache) == first
    write(root, "paths/core/things.yaml", GOOD_ITEM.replace("description: ok", "description: changed"))
    assert load_bundle(root, cache).document["paths"]["/things"]["get"]["responses"]["200"]["description"] == "changed"
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("x-permission: none", "summary: x"), 4, "needs an x-permission"),
        (("security: []", "security: [{nobody: []}]"), 6, "the security scheme 'nobody' is not declared"),
        (("probe.things.answer", "probe.things.missing"), 4, "no handler for 'probe.things.missing'"),
        (("probe.things.answer", "Answer"), 4, "needs an operationId of the form"),
        (("x-permission: none", "x-permission: things.read"), 5, "a public operation cannot demand a permission"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, change: tuple[str, str], line: int, message: str) -> None:
    said = refusal(multi_file(tmp_path, GOOD_ITEM.replace(*change)))
    assert f"paths/core/things.yaml:{line}: " in said
    assert message in said


def test_a_reference_to_nothing_is_named_with_file_and_line(tmp_path: Path) -> None:
    said = refusal(multi_file(tmp_path, GOOD_ITEM.replace("schemas/Thing", "schemas/Nothing")))
    assert "paths/core/things.yaml:12: nothing is at" in said


def test_a_reference_may_not_leave_the_contracts_folder(tmp_path: Path) -> None:
    said = refusal(
        multi_file(tmp_path / "openapi", GOOD_ITEM.replace("../../openapi.yaml#/components/schemas/Thing", "../../../secret.yaml#/x"))
    )
    assert "leaves the contract's folder" in said


def test_broken_yaml_is_named_with_file_and_line(tmp_path: Path) -> None:
    assert "paths/core/things.yaml:3:" in refusal(multi_file(tmp_path, "things:\n  get: [\n  x: }"))


def test_two_operations_with_one_id_are_refused(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("answer")}, "/b": {"get": operation("answer")}})
    assert "the operationId 'probe.things.answer' is already used by GET /a" in refusal(tmp_path)


def test_two_paths_that_no_request_could_tell_apart_are_refused(tmp_path: Path) -> None:
    def item(name: str) -> dict[str, Any]:
        parameter = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        return {"get": operation(f"get_{name}", parameters=[parameter])}

    write_contract(tmp_path, {"/things/{a}": item("a"), "/things/{b}": item("b")})
    assert "the path '/things/{b}' cannot be told apart from '/things/{a}'" in refusal(tmp_path, get_a=answer, get_b=answer)


def test_a_path_parameter_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/things/{id}": {"get": operation("answer")}})
    assert "the path parameter 'id' of '/things/{id}' is not declared" in refusal(tmp_path)


def test_a_scheme_without_a_function_that_checks_it_is_refused(tmp_path: Path) -> None:
    write_contract(
        tmp_path,
        {"/a": {"get": operation("answer", security=[{"open": []}])}},
        {"securitySchemes": {"open": {"type": "apiKey", "in": "header", "name": "x-open"}}},
    )
    assert "the security scheme 'open' names no function that checks it" in refusal(tmp_path)


def test_an_operation_that_does_not_state_its_security_is_refused(tmp_path: Path) -> None:
    bare = operation("answer")
    del bare["security"]
    write_contract(tmp_path, {"/a": {"get": bare}})
    assert "states no security" in refusal(tmp_path)


def test_who_need_not_be_known_cannot_be_asked_for_a_permission(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("answer", security=[{}, {"apiKey": []}], **{"x-permission": "things.read"})}})
    assert "a public operation cannot demand a permission" in refusal(tmp_path)


def test_an_unknown_surface_is_refused(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("answer", **{"x-surface": "nowhere"})}})
    assert "unknown surface 'nowhere'" in refusal(tmp_path)


def test_openapi_3_1_is_refused(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("answer")}}, version="3.1.0")
    assert "OpenAPI 3.0 is needed, this is '3.1.0'" in refusal(tmp_path)


def test_a_schema_that_cannot_be_compiled_is_refused(tmp_path: Path) -> None:
    body = {"content": {"application/json": {"schema": {"type": "string", "pattern": "("}}}}
    write_contract(tmp_path, {"/a": {"post": operation("answer", requestBody=body)}})
    assert "POST /a:" in refusal(tmp_path)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    write_contract(tmp_path, {"/a": {"get": operation("one")}, "/b": {"get": operation("two", responses=OK)}})
    assert len(refusal(tmp_path).splitlines()) == 2
