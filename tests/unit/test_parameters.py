"""Parameters of every place and style reach the handler as their types; what does not fit is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from homeport.contract import ContractError
from tests.unit.contract_app import build, client, operation

pytestmark = pytest.mark.anyio

NUMBERS = {"type": "array", "items": {"type": "integer"}, "maxItems": 3}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "number"}}, "required": ["x"]}


def parameter(location: str, schema: dict[str, Any], name: str = "value", **members: Any) -> dict[str, Any]:
    return {"name": name, "in": location, "schema": schema, **members}


async def ask(folder: Path, declared: dict[str, Any], url: str, headers: dict[str, str] | None = None, surface: str = "local_apps") -> Any:
    async def show(value: Any = "absent") -> dict[str, Any]:
        return {"value": value}

    path = "/p/{value}" if declared["in"] == "path" else "/p"
    app = build(folder, {path: {"get": operation("show", parameters=[declared], **{"x-surface": surface})}}, {"show": show})
    async with client(app) as http:
        response = await http.get(url, headers=headers)
    return response.json()["value"] if response.status_code == 200 else (response.status_code, response.json())


@pytest.mark.parametrize(
    ("declared", "url", "expected"),
    [
        (parameter("query", {"type": "integer"}), "/p?value=7", 7),
        (parameter("query", {"type": "integer", "default": 50}), "/p", 50),
        (parameter("query", {"type": "integer"}), "/p", "absent"),
        (parameter("query", {"type": "number"}), "/p?value=1.5e1", 15.0),
        (parameter("query", {"type": "boolean"}), "/p?value=true", True),
        (parameter("query", {"type": "string"}), "/p?value=7", "7"),
        (parameter("query", {"type": "string"}), "/p?value=", ""),
        (parameter("query", {"type": "string"}), "/p?value=%C3%BC%20a+b", "ü a b"),
        (parameter("query", {"anyOf": [{"type": "integer"}, {"type": "string"}]}), "/p?value=x", "x"),
        (parameter("query", NUMBERS), "/p?value=1&value=2", [1, 2]),
        (parameter("query", NUMBERS, explode=False), "/p?value=1,2", [1, 2]),
        (parameter("query", NUMBERS, style="pipeDelimited", explode=False), "/p?value=1|2", [1, 2]),
        (parameter("query", NUMBERS, style="spaceDelimited", explode=False), "/p?value=1%202", [1, 2]),
        (parameter("query", POINT, style="deepObject", explode=True), "/p?value[x]=1&value[y]=2.5", {"x": 1, "y": 2.5}),
        (parameter("query", POINT), "/p?x=1&y=2.5", {"x": 1, "y": 2.5}),
        (parameter("query", POINT, explode=False), "/p?value=x,1,y,2.5", {"x": 1, "y": 2.5}),
        ({"name": "value", "in": "query", "content": {"application/json": {"schema": POINT}}}, '/p?value={"x":1}', {"x": 1}),
        (parameter("path", {"type": "string"}, required=True), "/p/a%2Fb", "a/b"),
        (parameter("path", NUMBERS, required=True), "/p/1,2", [1, 2]),
        (parameter("path", POINT, required=True, explode=True), "/p/x=1,y=2", {"x": 1, "y": 2.0}),
    ],
)
async def test_a_parameter_arrives_as_its_type(tmp_path: Path, declared: dict[str, Any], url: str, expected: Any) -> None:
    assert await ask(tmp_path, declared, url) == expected


async def test_headers_and_cookies_are_parameters_too(tmp_path: Path) -> None:
    assert await ask(tmp_path, parameter("header", {"type": "integer"}, name="Value"), "/p", {"value": "3"}) == 3
    assert await ask(tmp_path, parameter("cookie", {"type": "integer"}), "/p", {"cookie": "a=b; value=3"}) == 3


@pytest.mark.parametrize(
    ("declared", "url"),
    [
        (parameter("query", {"type": "integer"}), "/p?value=seven"),
        (parameter("query", {"type": "integer", "maximum": 5}), "/p?value=6"),
        (parameter("query", {"type": "integer"}), "/p?value=1&value=2"),
        (parameter("query", {"type": "integer"}, required=True), "/p"),
        (parameter("query", {"type": "boolean"}), "/p?value=True"),
        (parameter("query", NUMBERS), "/p?value=1&value=2&value=3&value=4"),
        (parameter("query", POINT, style="deepObject", explode=True), "/p?value[y]=2"),
        (parameter("query", {"type": "string"}), "/p?value=%ff"),
        ({"name": "value", "in": "query", "content": {"application/json": {"schema": POINT}}}, "/p?value={"),
    ],
)
async def test_what_does_not_fit_is_a_400(tmp_path: Path, declared: dict[str, Any], url: str) -> None:
    status, body = await ask(tmp_path, declared, url)
    assert (status, body["code"]) == (400, "VALIDATION_ERROR")


async def test_a_query_parameter_that_is_not_declared_is_refused_on_our_own_surfaces_only(tmp_path: Path) -> None:
    declared = parameter("query", {"type": "integer"})
    assert await ask(tmp_path, declared, "/p?value=1&extra=2") == 1
    status, body = await ask(tmp_path, declared, "/p?value=1&extra=2", surface="admin")
    assert (status, body["errors"][0]["pointer"]) == (400, "/extra")


async def test_a_style_that_is_not_supported_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="the style 'matrix' is not supported in path"):
        await ask(tmp_path, parameter("path", {"type": "string"}, required=True, style="matrix"), "/p/1")


async def test_a_multipart_form_is_sorted_into_typed_fields_and_files(tmp_path: Path) -> None:
    async def upload(body: Any, files: Any) -> dict[str, Any]:
        return {"body": body, "file": (await files["file"][0].read()).decode(), "name": files["file"][0].filename}

    schema = {
        "type": "object",
        "required": ["file", "count"],
        "properties": {
            "count": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "file": {"type": "string", "format": "binary"},
        },
    }
    body = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    app = build(tmp_path, {"/u": {"post": operation("upload", requestBody=body)}}, {"upload": upload})
    async with client(app) as http:
        good = await http.post("/u", data={"count": "3", "tags": ["a", "b"]}, files={"file": ("a.txt", b"hello")})
        no_file = await http.post("/u", data={"count": "3"}, files={"other": ("a.txt", b"hello")})
        bad = await http.post("/u", data={"count": "x"}, files={"file": ("a.txt", b"hello")})
        broken = await http.post("/u", content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=x"})
    assert good.json() == {"body": {"count": 3, "tags": ["a", "b"]}, "file": "hello", "name": "a.txt"}
    assert [response.status_code for response in (no_file, bad, broken)] == [400, 400, 400]
