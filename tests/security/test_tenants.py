"""What belongs to one caller does not exist for another: every operation of the document that takes the id of something owned."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.acceptance.servers import TIMEOUT_S, Admin, Server
from tests.security.wire import OPERATIONS, RESOLVE, Json, body_of, path_of

# Ids of what is nobody's own, with the reason. Every other parameter of a path that callers may send names something that is owned.
SHARED = {
    "/openapi/{name}": "the document is public",
    "/docs/assets/{name}": "the API browser's own files are public",
    "/workspaces/{slug}/threads": "workspaces and threads are the operator's, for all",
    "/contracts/local-app/v1/capabilities/{capability_id}": "agents are the operator's, for all",
    "/sdk/mcp/servers/{server}/tools": "MCP servers are the operator's; rules say who may use which tool",
    "/sdk/mcp/servers/{server}/tools/{tool}/execute": "MCP servers are the operator's; rules say who may use which tool",
}
OWNED = {
    name: each
    for name, each in OPERATIONS.items()
    if "{" in each[1] and each[1] not in SHARED and each[2]["x-surface"] != "admin"
}  # fmt: skip
LISTS = ("/activities?limit=200", "/sdk/llm/vectors/workspaces", "/sdk/llm/vectors/config")
OTHERS = ("another app", "another key", "another key in the name of another app")
SCOPES = ("activities.*", "agent.*", "api.*", "vectors.*", "llm.*", "webhook.*")
GRANTED = ("activities.read", "activities.write", "agent.chat", "api.task", "vectors.read", "vectors.write", "llm.embed", "webhook.trigger")
MARK = "belongs to the owner alone"


@dataclass(frozen=True)
class Owner:
    """Somebody who owns one of each: ``ids`` by the path below which they are found."""

    headers: dict[str, str]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client without credentials."""
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S * 4, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def owners(client: httpx.Client, admin: Admin) -> dict[str, Owner]:
    """An app and a key, each with one of everything that can be owned."""
    app = {"x-app-id": admin.register("Owner", granted=GRANTED)}
    key = {"authorization": f"Bearer {admin.create_key(*SCOPES)['key']}"}
    return {"an app's": Owner(app, make_one_of_each(client, app)), "a key's": Owner(key, make_one_of_each(client, key))}


@pytest.fixture(scope="module")
def others(admin: Admin) -> dict[str, dict[str, str]]:
    """The headers of those who own nothing, and may do everything."""
    app_id = admin.register("Other", granted=GRANTED)
    other_key, key = admin.create_key(*SCOPES)["key"], admin.create_key(*SCOPES)["key"]
    headers = ({"x-app-id": app_id}, {"x-api-key": other_key}, {"x-api-key": key, "x-app-id": app_id})
    return dict(zip(OTHERS, headers, strict=True))


def make_one_of_each(client: httpx.Client, headers: dict[str, str]) -> dict[str, str]:
    """Make what an owner can own; returns the ids."""

    def make(path: str, body: Json) -> Any:
        answer = client.post(path, headers=headers, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    documents = [{"id": "mine.md", "text": f"What {MARK}."}]
    make("/sdk/llm/vectors/upsert", {"vectors": [{"id": "mine", "vector": [1.0, 0.0], "metadata": {"note": MARK}}], "workspaceId": "mine"})
    return {
        "/activities/": make("/activities", {"raw_data": {"note": MARK}})["data"]["id"],
        "/sdk/agent/session/": make("/sdk/agent/session", {})["session"]["session_id"],
        "/task/": make("/webhooks/realtimex", {"event": "task.trigger", "payload": {"raw_data": {"note": MARK}}})["task_uuid"],
        "/sdk/llm/vectors/ingest/": make("/sdk/llm/vectors/ingest", {"documents": documents, "workspaceId": "texts"})["job"]["id"],
    }


def ask(client: httpx.Client, name: str, owned_id: str, headers: dict[str, str]) -> httpx.Response:
    """Call an operation about something that is owned, with a body that fits."""
    method, path, operation = OWNED[name]
    [parameter] = [each["name"] for each in map(RESOLVE, operation["parameters"]) if each["in"] == "path"]
    return client.request(method, path_of(path, operation, {parameter: owned_id}), headers=headers, json=body_of(operation))


def id_of(owner: Owner, path: str) -> str:
    """The id of what the owner has below a path. An operation about something that is not made here fails the test."""
    [found] = [owned_id for prefix, owned_id in owner.ids.items() if path.startswith(prefix)]
    return found


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("whose", ["an app's", "a key's"])
@pytest.mark.parametrize("name", OWNED)
def test_what_is_another_s_is_not_found_and_not_touched(
    client: httpx.Client, owners: dict[str, Owner], others: dict[str, dict[str, str]], name: str, whose: str, other: str
) -> None:
    owner = owners[whose]
    owned_id = id_of(owner, OWNED[name][1])
    answer = ask(client, name, owned_id, others[other])
    missing = ask(client, name, "01a22dfc-0000-7000-8000-000000000000", others[other])
    assert (answer.status_code, missing.status_code) == (404, 404), answer.text
    # What is not there and what is another's are told alike.
    assert answer.json().keys() == missing.json().keys()
    assert answer.json()["code"] == missing.json()["code"]
    assert MARK not in answer.text
    [seen] = [each for each in OWNED if each.startswith("GET ") and OWNED[each][1] == OWNED[name][1].split("}")[0] + "}"]
    assert ask(client, seen, owned_id, owner.headers).status_code == 200


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("path", LISTS)
def test_what_is_another_s_is_in_no_list(
    client: httpx.Client, owners: dict[str, Owner], others: dict[str, dict[str, str]], path: str, other: str
) -> None:
    listed = client.get(path, headers=others[other])
    assert listed.status_code == 200
    assert not [owned_id for owner in owners.values() for owned_id in owner.ids.values() if owned_id in listed.text]
    assert MARK not in listed.text
    assert "mine" not in listed.text


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_another_s_is_not_found_through_the_body_of_a_request(
    client: httpx.Client, owners: dict[str, Owner], others: dict[str, dict[str, str]], other: str
) -> None:
    for owner in owners.values():
        question = {"vector": [1.0, 0.0], "topK": 10, "workspaceId": "mine"}
        assert MARK in client.post("/sdk/llm/vectors/query", headers=owner.headers, json=question).text
        assert MARK not in client.post("/sdk/llm/vectors/query", headers=others[other], json=question).text
        removal = {"workspaceId": "mine", "deleteAll": True}
        assert client.post("/sdk/llm/vectors/delete", headers=others[other], json=removal).status_code in (200, 404)
        assert MARK in client.post("/sdk/llm/vectors/query", headers=owner.headers, json=question).text
        report = {"event": "task.completed", "payload": {"task_uuid": owner.ids["/task/"], "result": {}}}
        assert client.post("/webhooks/realtimex", headers=others[other], json=report).status_code == 404
        assert client.get(f"/task/{owner.ids['/task/']}", headers=owner.headers).json()["task"]["status"] == "pending"


def test_every_operation_with_an_id_is_tried() -> None:
    assert {path.split("{")[0] for _, path, _ in OWNED.values()} == {
        "/activities/",
        "/sdk/agent/session/",
        "/task/",
        "/sdk/llm/vectors/ingest/",
    }
    assert set(SHARED) <= {path for _, path, _ in OPERATIONS.values()}
