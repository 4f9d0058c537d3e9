"""Vectors of an app over the running server: the official SDK's methods, unmodified, and what Homeport adds to them."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from realtimex_sdk import RealtimeXSDK  # type: ignore[import-untyped]
from realtimex_sdk.llm import VectorRecord  # type: ignore[import-untyped]

from tests.acceptance.servers import Admin, Server, Servers

pytestmark = pytest.mark.anyio

Sdk = Callable[..., RealtimeXSDK]

GRANTED = ("llm.embed", "llm.providers", "vectors.read", "vectors.write")
TEXTS = ["The cat sleeps on the warm windowsill.", "Interest rates rose again this quarter.", "Beetroot likes sun and loose soil."]


@pytest.fixture
def app_id(admin: Admin) -> str:
    """An app of this test's own that may do all this."""
    return admin.register("Librarian", granted=GRANTED)


@pytest.fixture
def app(sdk: Sdk, app_id: str) -> RealtimeXSDK:
    return sdk(app_id=app_id, app_name="Librarian")


def call(server: Server, app_id: str, operation: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/sdk/llm/vectors/{operation}", json=body, headers={"X-App-Id": app_id}, timeout=30, trust_env=False)


# --- the official SDK


async def test_vectors_are_stored_found_listed_and_deleted(app: RealtimeXSDK, app_id: str) -> None:
    vectors = app.llm.vectors
    records = [
        VectorRecord("a", [1.0, 0.0, 0.0], {"documentId": "d1", "text": "x"}),
        VectorRecord("b", [0.0, 1.0, 0.0], {"documentId": "d2"}),
    ]
    stored = await vectors.upsert(records, workspace_id="ws1")
    assert (stored.success, stored.upserted, stored.namespace, stored.error) == (True, 2, f"sdk_{app_id}_ws1", None)
    assert (await vectors.upsert([VectorRecord("c", [0, 0, 1])])).namespace == f"sdk_{app_id}_default"

    found = await vectors.query([2.0, 1.0, 0.0], top_k=5, workspace_id="ws1")
    assert found.success
    assert [(each.id, each.metadata) for each in found.results] == [("a", {"documentId": "d1", "text": "x"}), ("b", {"documentId": "d2"})]
    assert [round(each.score, 4) for each in found.results] == [0.8944, 0.4472]
    assert [each.id for each in (await vectors.query([1.0, 0.0, 0.0], workspace_id="ws1", document_id="d2")).results] == ["b"]
    assert (await vectors.query([1.0, 0.0, 0.0], workspace_id="nowhere")).results == []

    assert (await vectors.list_workspaces()).workspaces == ["default", "ws1"]
    deleted = await vectors.delete(workspace_id="ws1")
    assert (deleted.success, deleted.deleted, deleted.message) == (True, 2, "Deleted 2 vectors.")
    assert (await vectors.list_workspaces()).workspaces == ["default"]


async def test_texts_are_embedded_stored_and_found_again_without_a_key(app: RealtimeXSDK) -> None:
    assert any(each.provider == "native" for each in (await app.llm.embed_providers()).providers)
    stored = await app.llm.embed_and_store(TEXTS, document_id="d", workspace_id="kb", provider="native", id_prefix="t")
    assert (stored.success, stored.upserted) == (True, 3)
    question = await app.llm.embed("Which plant needs light?", provider="native")
    found = await app.llm.vectors.query(question.embeddings[0], top_k=1, workspace_id="kb")
    assert (found.results[0].metadata["text"], found.results[0].metadata["documentId"]) == (TEXTS[2], "d")


async def test_an_app_without_the_permission_is_refused_in_the_words_of_the_sdk(sdk: Sdk, admin: Admin) -> None:
    refused = admin.register("Refused")
    for permission in ("vectors.read", "vectors.write"):
        admin.grant(refused, permission, "denied")
    vectors = sdk(app_id=refused, app_name="Refused").llm.vectors
    answer = await vectors.query([1.0])
    assert (answer.success, answer.code, answer.results) == (False, "PERMISSION_DENIED", [])
    assert (await vectors.upsert([VectorRecord("a", [1.0])])).code == "PERMISSION_DENIED"


async def test_a_wrong_length_is_an_answer_that_says_both(app: RealtimeXSDK) -> None:
    await app.llm.vectors.upsert([VectorRecord("a", [1.0, 0.0])])
    answer = await app.llm.vectors.upsert([VectorRecord("b", [1.0, 0.0, 0.0])])
    assert (answer.success, answer.code) == (False, "DIMENSION_MISMATCH")
    assert "2 dimensions, and this has 3" in answer.error
    assert (await app.llm.vectors.query([1.0])).code == "DIMENSION_MISMATCH"


# --- over plain HTTP


def test_a_question_may_be_a_text(server: Server, app_id: str) -> None:
    documents = [{"id": f"{i}", "text": text} for i, text in enumerate(TEXTS)]
    embedded = httpx.post(
        f"{server.url}/sdk/llm/embed",
        json={"input": [each["text"] for each in documents], "provider": "native"},
        headers={"X-App-Id": app_id},
        timeout=60,
        trust_env=False,
    ).json()["embeddings"]
    records = [{"id": each["id"], "vector": vector, "metadata": None} for each, vector in zip(documents, embedded, strict=True)]
    assert call(server, app_id, "upsert", {"vectors": records, "workspaceId": ""}).json()["upserted"] == 3
    answer = call(server, app_id, "query", {"text": "money and banks", "topK": 1, "vector": None, "filter": None})
    assert [each["id"] for each in answer.json()["results"]] == ["1"], answer.text


def test_a_text_needs_the_permission_to_embed(server: Server, admin: Admin) -> None:
    reader = admin.register("Reader", granted=("vectors.read",))
    answer = call(server, reader, "query", {"text": "anything"})
    assert (answer.status_code, answer.json()["permission"], answer.json()["code"]) == (403, "llm.embed", "PERMISSION_REQUIRED")
    assert call(server, reader, "query", {"vector": [1.0]}).json() == {"success": True, "results": []}


def test_vectors_are_deleted_by_id_and_by_filter(server: Server, app_id: str) -> None:
    records = [{"id": f"{i}", "vector": [1, i], "metadata": {"tags": ["odd" if i % 2 else "even"]}} for i in range(6)]
    call(server, app_id, "upsert", {"vectors": records})
    assert call(server, app_id, "delete", {"ids": ["0", "9"]}).json()["deleted"] == 1
    assert call(server, app_id, "delete", {"filter": {"tags": ["odd"], "documentId": None}}).json()["deleted"] == 3
    assert call(server, app_id, "delete", {"deleteAll": False, "filter": {}}).status_code == 400
    found = call(server, app_id, "query", {"vector": [1, 1], "filter": {"workspaceId": "default"}}).json()["results"]
    assert sorted(each["id"] for each in found) == ["2", "4"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"vectors": []}, "vectors"),
        ({"vectors": [{"id": "a", "vector": []}]}, "vectors/0/vector"),
        ({"vectors": [{"id": "a", "vector": [0, 0]}]}, "a vector of zeros"),
        ({"vectors": [{"id": "a", "vector": [1, 2]}, {"id": "b", "vector": [1]}]}, "/vectors/1/vector"),
        ({"vectors": [{"id": "", "vector": [1]}]}, "vectors/0/id"),
        ({"vectors": [{"id": "a", "vector": ["1"]}]}, "vectors/0/vector/0"),
        ({"vectors": [{"id": "a", "vector": [1]}], "workspaceId": "a\nb"}, "workspaceId"),
    ],
)
def test_what_cannot_be_stored_is_refused_clearly(server: Server, app_id: str, body: dict[str, Any], message: str) -> None:
    answer = call(server, app_id, "upsert", body)
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    assert message in answer.json()["error"]
    assert call(server, app_id, "query", {"vector": [1.0]}).json()["results"] == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(server: Server, app_id: str, number: str) -> None:
    body = f'{{"vectors": [{{"id": "a", "vector": [{number}]}}]}}'
    headers = {"X-App-Id": app_id, "Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/sdk/llm/vectors/upsert", content=body, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["success"]) == (400, False)


def test_apps_do_not_see_each_other(server: Server, admin: Admin, app_id: str) -> None:
    other = admin.register("Other", granted=GRANTED)
    call(server, app_id, "upsert", {"vectors": [{"id": "secret", "vector": [1, 0]}], "workspaceId": "shared name"})
    assert call(server, other, "query", {"vector": [1, 0], "workspaceId": "shared name"}).json()["results"] == []
    assert call(server, other, "query", {"vector": [1, 0, 0], "workspaceId": "shared name"}).status_code == 200
    listed = httpx.get(f"{server.url}/sdk/llm/vectors/workspaces", headers={"X-App-Id": other}, trust_env=False).json()
    assert listed == {"success": True, "workspaces": []}
    assert call(server, other, "delete", {"deleteAll": True, "workspaceId": "shared name"}).json()["deleted"] == 0
    assert call(server, app_id, "query", {"vector": [1, 0], "workspaceId": "shared name"}).json()["results"][0]["id"] == "secret"


def test_a_removed_app_leaves_no_vectors(server: Server, admin: Admin) -> None:
    gone = admin.register("Gone", granted=GRANTED)
    call(server, gone, "upsert", {"vectors": [{"id": "a", "vector": [1, 0]}]})
    assert admin.http.delete(f"/admin/v1/apps/{gone}").status_code == 200
    assert admin.register("Back", id=gone, granted=GRANTED) == gone
    assert call(server, gone, "query", {"vector": [1, 0, 0]}).json() == {"success": True, "results": []}


async def test_two_processes_see_the_same_vectors(servers: Servers) -> None:
    first = servers.start("two")
    second = servers.start("two")
    key = {"Authorization": f"Bearer {first.first_key}"}
    async with httpx.AsyncClient(headers=key, timeout=30, trust_env=False) as http:

        async def write(url: str, number: int) -> None:
            body = {"vectors": [{"id": f"{number}", "vector": [1, number]}], "workspaceId": "both"}
            (await http.post(f"{url}/sdk/llm/vectors/upsert", json=body)).raise_for_status()

        await asyncio.gather(*(write(server.url, number) for number in range(20) for server in (first, second)))
        for server in (first, second):
            answer = await http.post(f"{server.url}/sdk/llm/vectors/query", json={"vector": [1, 1], "topK": 100, "workspaceId": "both"})
            assert len(answer.json()["results"]) == 20
        gone = await http.post(f"{second.url}/sdk/llm/vectors/delete", json={"deleteAll": True, "workspaceId": "both"})
        assert gone.json()["deleted"] == 20
        answer = await http.post(
            f"{first.url}/sdk/llm/vectors/upsert", json={"vectors": [{"id": "a", "vector": [1]}], "workspaceId": "both"}
        )
        assert answer.json()["upserted"] == 1


async def test_the_sdk_asks_for_what_it_lacks(sdk: Sdk, admin: Admin) -> None:
    newcomer = admin.register("Newcomer")
    vectors = sdk(app_id=newcomer, app_name="Newcomer").llm.vectors
    asking = asyncio.create_task(vectors.list_workspaces())
    await asyncio.to_thread(admin.decide, newcomer, {"vectors.read": "granted"})
    assert (await asking).workspaces == []
