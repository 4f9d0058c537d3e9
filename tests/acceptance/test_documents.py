"""The published documents and the API browser."""

import re
from collections.abc import Iterator

import httpx
import pytest
import yaml

from homeport.contract import load_contract
from homeport.contract.modern import to_openapi_31
from homeport.http.error_bodies import ERROR_BODIES
from tests.acceptance.servers import TIMEOUT_S, Server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


def test_json_and_yaml_are_the_same_document_and_it_is_the_one_that_is_enforced(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert yaml.safe_load(http.get("/openapi.yaml").text) == document
    enforced = load_contract(surfaces=ERROR_BODIES).operations
    published = {
        operation["operationId"] for item in document["paths"].values() for operation in item.values() if "operationId" in operation
    }
    assert published == set(enforced)


def test_the_same_document_is_there_as_openapi_3_1(http: httpx.Client) -> None:
    document, modern = http.get("/openapi.json").json(), http.get("/openapi-3.1.json").json()
    assert modern == to_openapi_31(document)
    assert modern["openapi"] == "3.1.0"


def test_this_server_holds_its_answers_against_the_document(server: Server) -> None:
    assert {process.environ()["HOMEPORT_VALIDATE_RESPONSES"] for process in server.processes()} == {"true"}


def test_component_names_survive_and_how_credentials_are_checked_does_not(http: httpx.Client) -> None:
    text = http.get("/openapi.json").text
    assert '"Activity"' in text
    assert '"$ref":"#/components/schemas/ChatRequest"' in text
    assert "InfoFunc" not in text


@pytest.mark.parametrize(
    "path", ["/openapi.json", "/openapi-3.1.json", "/openapi.yaml", "/openapi/local_apps.json", "/docs/assets/swagger-ui.css"]
)
def test_a_document_that_has_not_changed_is_not_sent_again(http: httpx.Client, path: str) -> None:
    first = http.get(path)
    again = http.get(path, headers={"If-None-Match": f'"old", W/{first.headers["etag"]}'})
    other = http.get(path, headers={"If-None-Match": '"old"'})
    assert (first.status_code, again.status_code, again.content, other.status_code) == (200, 304, b"", 200)
    assert again.headers["etag"] == first.headers["etag"]


def test_each_surface_has_a_document_of_its_own_with_just_what_it_uses(http: httpx.Client) -> None:
    document = http.get("/openapi/admin.json").json()
    assert all(path.startswith("/admin/v1/") for path in document["paths"])
    assert "ApiKey" in document["components"]["schemas"]
    assert "ChatRequest" not in document["components"]["schemas"]
    assert "appId" not in document["components"]["securitySchemes"]


def test_an_unknown_document_is_refused_by_name(http: httpx.Client) -> None:
    response = http.get("/openapi/nowhere.json")
    assert response.status_code in (400, 404)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/docs", "/swagger"])
def test_the_api_browser_loads_all_it_needs_from_this_server_and_nothing_from_elsewhere(http: httpx.Client, path: str) -> None:
    page = http.get(path)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 5
    for link in links:
        assert link.startswith("/docs/assets/")
        asset = http.get(link)
        assert asset.status_code == 200
        assert asset.headers["content-type"] in ("text/css", "text/javascript", "image/png")


@pytest.mark.parametrize("name", ["index.html", "..%2F__init__.py", "%2e%2e", "swagger-ui.js.map"])
def test_no_other_file_can_be_had_through_the_api_browser(http: httpx.Client, name: str) -> None:
    assert http.get(f"/docs/assets/{name}").status_code in (400, 404)
