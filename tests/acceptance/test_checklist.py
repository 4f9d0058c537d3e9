"""Section 11 of the notes on the Local Apps wire, point by point, as far as the operations exist.

Points 7 (names of webhook events, repeated event ids) and 10 (answers in less than 5 s while work goes on in the background) belong to
operations that come later, and so do parts of others: the ping by webhook (5), agent sessions (8), streams of agents (9), and the
environment of a launched app (12). Speech (3, 9) has tests of its own.
"""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from typing import Any

import httpx
import psutil
import pytest

from contract.upstream import RunningUpstream, echo_of
from tests.acceptance.servers import TIMEOUT_S, Admin, Json, Server

MESSAGES = [{"role": "user", "content": "Hello there"}]
HELD = ("activities.read", "activities.write", "api.agents", "llm.chat", "llm.embed", "llm.providers")


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    """A client that sends nothing of itself but what every official client sends, and follows no redirect, as they do not."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def app_id(admin: Admin) -> str:
    """An app that holds what the tests need."""
    return admin.register("Checklist", granted=HELD)


@pytest.fixture(scope="module")
def app(app_id: str) -> dict[str, str]:
    """Its header."""
    return {"x-app-id": app_id}


def assert_failed(answer: httpx.Response, status: int, code: str) -> Json:
    """The answer is an error as every official client can read it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: Json = answer.json()
    assert body["success"] is False
    assert body["code"] == code
    assert isinstance(body["error"], str)
    assert body["error"]
    return body


# --- 1: nulls, further fields, empty texts


def test_1_unset_options_may_be_null_and_unknown_fields_pass(http: httpx.Client, app: dict[str, str], upstream: RunningUpstream) -> None:
    unset: Json = {"model": None, "provider": None, "temperature": None, "max_tokens": None, "response_format": None}
    unknown: Json = {"event_id": "1", "attempt_id": None, "num_inference_steps": 5, "payload": {"timestamp": "now"}}
    for body in (
        {"messages": MESSAGES} | unset,
        {"messages": MESSAGES} | unset | unknown,
        {"messages": MESSAGES, "model": "", "provider": ""},
    ):
        answer = http.post("/sdk/llm/chat", json=body, headers=app)
        assert answer.json()["response"]["content"] == echo_of("Hello there")
    sent = upstream.state.last_request
    assert not {"temperature", "max_tokens", "response_format"} & sent.keys(), "a null is not passed on"


def test_1_texts_to_embed_may_be_one_or_many(http: httpx.Client, app: dict[str, str]) -> None:
    unset: Json = {"provider": None, "model": None, "dimensions": None, "encoding_format": "float"}
    one = http.post("/sdk/llm/embed", json={"input": "Hello there"} | unset, headers=app).json()
    many = http.post("/sdk/llm/embed", json={"input": ["Hello there"]}, headers=app).json()
    assert one.keys() == many.keys() == {"success", "embeddings", "dimensions", "provider", "model", "usage"}
    assert one["embeddings"] == [pytest.approx(vector, abs=1e-5) for vector in many["embeddings"]]


def test_1_numbers_may_be_whole_or_not(http: httpx.Client, app: dict[str, str]) -> None:
    for temperature in (0, 1, 0.7, 1.0):
        assert http.post("/sdk/llm/chat", json={"messages": MESSAGES, "temperature": temperature}, headers=app).status_code == 200
    assert http.post("/sdk/llm/chat", json={"messages": MESSAGES, "max_tokens": 1000.0}, headers=app).status_code == 200


def test_1_messages_and_blocks_may_have_fields_that_nobody_knows(http: httpx.Client, app: dict[str, str]) -> None:
    content = [{"type": "text", "text": "Hello there", "cache_control": None}, {"type": "video", "video_url": "x"}]
    body = {"messages": [{"role": "user", "content": content, "name": None, "id": 1}]}
    assert http.post("/sdk/llm/chat", json=body, headers=app).status_code == 200


def test_1_activities_take_nulls_and_further_fields(http: httpx.Client, app: dict[str, str]) -> None:
    draft = {"raw_data": {"a": None}, "old_data": None, "status": None, "table": "orders", "app_name": None}
    created = http.post("/activities", json=draft, headers=app)
    assert created.status_code == 201
    path = f"/activities/{created.json()['data']['id']}"
    nothing = {
        "status": None,
        "result": None,
        "error_message": None,
        "locked_by": None,
        "raw_data": None,
        "id": "other",
        "created_at": None,
    }
    changed = http.patch(path, json=nothing, headers=app)
    assert changed.status_code == 200
    assert {name: changed.json()["data"][name] for name in ("id", "status", "raw_data", "created_at")} == {
        name: created.json()["data"][name] for name in ("id", "status", "raw_data", "created_at")
    }


def test_1_an_empty_app_id_is_none(http: httpx.Client, admin: Admin, app_id: str) -> None:
    key = {"Authorization": f"Bearer {admin.key}"}
    assert "appId" not in http.get("/sdk/ping", headers=key | {"x-app-id": ""}).json()
    assert_failed(http.get("/sdk/ping", headers={"x-app-id": ""}), 401, "MISSING_APP_ID")
    for empty in ("", None):
        assert_failed(http.post("/sdk/register", json={"app_id": empty, "permissions": ["llm.chat"]}), 400, "MISSING_APP_ID")
        body = {"app_id": empty, "app_name": None, "permission": "llm.chat"}
        assert_failed(http.post("/api/local-apps/request-permission", json=body), 400, "MISSING_APP_ID")
    several: list[Json] = [{"app_name": None, "permissions": None}, {"app_name": "", "permissions": []}, {"version": "1"}]
    for fields in several:
        assert http.post("/sdk/register", json={"app_id": app_id, **fields}).json()["success"] is True


# --- 2: errors


def test_2_whatever_goes_wrong_is_told_in_one_form(http: httpx.Client, app: dict[str, str], admin: Admin) -> None:
    assert_failed(http.get("/nowhere"), 404, "UNKNOWN_ROUTE")
    assert_failed(http.put("/agents", json={}), 405, "METHOD_NOT_ALLOWED")
    assert_failed(http.get("/agents"), 401, "MISSING_APP_ID")
    assert_failed(http.get("/workspaces", headers={"x-app-id": admin.register("Bare")}), 403, "PERMISSION_REQUIRED")
    assert_failed(http.post("/activities", content=b"{", headers=app), 400, "VALIDATION_ERROR")
    assert_failed(http.post("/activities", content=b"{}", headers=app | {"Content-Type": "text/plain"}), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_failed(http.get("/activities/none", headers=app), 404, "NOT_FOUND")
    assert_failed(http.get("/agents", headers=app | {"Host": "evil.example"}), 421, "MISDIRECTED_REQUEST")
    assert_failed(http.get("/agents", headers=app | {"Origin": "https://evil.example"}), 403, "ORIGIN_NOT_ALLOWED")
    assert_failed(http.post("/sdk/llm/chat", json={"messages": []}, headers=app), 400, "VALIDATION_ERROR")
    for path in ("/sdk/llm/chat", "/sdk/llm/chat/stream"):
        for model, status, code in (
            ("no-such-model", 400, "INVALID_MODEL"),
            ("429", 429, "RATE_LIMIT"),
            ("401", 503, "PROVIDER_UNAVAILABLE"),
            ("html", 502, "LLM_ERROR"),
        ):
            failed = assert_failed(http.post(path, json={"messages": MESSAGES, "model": model}, headers=app), status, code)
            assert "SECRET-DETAIL" not in failed["error"]


def test_2_no_local_apps_operation_declares_another_error_form(http: httpx.Client) -> None:
    for _, _, responses in responses_of_local_apps(http):
        for status, response in responses.items():
            if status >= "4":
                assert response["content"].keys() == {"application/json"}
                assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/LocalAppsError"}


# --- 3: bodies always, redirects never


def test_3_a_deletion_answers_with_json_and_needs_no_body(http: httpx.Client, app: dict[str, str]) -> None:
    created = http.post("/activities", json={"raw_data": {}}, headers=app).json()["data"]
    deleted = http.request("DELETE", f"/activities/{created['id']}", headers=app)
    assert deleted.status_code == 200
    assert deleted.json() == {"success": True, "data": created}


def test_3_nothing_is_redirected(http: httpx.Client, app: dict[str, str]) -> None:
    for path in ("/agents/", "//agents", "/sdk/ping/", "/AGENTS", "/docs/", "/swagger/"):
        assert not 300 <= http.get(path, headers=app).status_code < 400, path


def test_3_no_local_apps_operation_declares_an_empty_answer_or_a_redirect(http: httpx.Client) -> None:
    checked = 0
    for _, _, responses in responses_of_local_apps(http):
        assert not {status for status in responses if status == "204" or status.startswith("3")}
        assert all(response["content"] for response in responses.values())
        checked += 1
    assert checked == 50


def test_3_a_get_with_a_content_type_and_no_body_is_ordinary(http: httpx.Client, app: dict[str, str]) -> None:
    providers = ("/sdk/llm/providers", "/sdk/llm/providers/chat", "/sdk/llm/providers/embed")
    for path in ("/sdk/ping", "/sdk/local-apps/data-dir", "/agents", "/activities", *providers):
        answer = http.get(path, headers=app)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"


def test_3_success_is_said_where_clients_look_for_it(http: httpx.Client, app: dict[str, str]) -> None:
    for answer in (
        http.post("/sdk/llm/chat", json={"messages": MESSAGES}, headers=app),
        http.get("/sdk/llm/providers", headers=app),
        http.get("/sdk/llm/providers/chat", headers=app),
        http.post("/sdk/llm/embed", json={"input": "Hello"}, headers=app),
        http.get("/sdk/llm/providers/embed", headers=app),
        http.get("/sdk/ping", headers=app),
    ):
        assert answer.json()["success"] is True


# --- 4 and 5: permissions


def test_4_a_missing_permission_is_said_for_both_families_of_clients(http: httpx.Client, admin: Admin) -> None:
    bare = {"x-app-id": admin.register("Bare")}
    for method, path, permission in (
        ("GET", "/agents", "api.agents"),
        ("POST", "/activities", "activities.write"),
        ("POST", "/sdk/llm/chat", "llm.chat"),
        ("POST", "/sdk/llm/chat/stream", "llm.chat"),
        ("POST", "/sdk/llm/embed", "llm.embed"),
        ("GET", "/sdk/llm/providers/chat", "llm.providers"),
        ("GET", "/sdk/llm/providers/embed", "llm.providers"),
    ):
        # Not even the body is looked at before.
        body = assert_failed(http.request(method, path, content=b"{", headers=bare), 403, "PERMISSION_REQUIRED")
        assert (body["error"], body["permission"]) == ("PERMISSION_REQUIRED", permission)
        assert permission in body["message"]


def test_4_a_denial_is_said_for_both_families_of_clients(http: httpx.Client, admin: Admin) -> None:
    denied = admin.register("Denied")
    admin.grant(denied, "llm.chat", "denied")
    body = assert_failed(http.post("/sdk/llm/chat", json={}, headers={"x-app-id": denied}), 403, "PERMISSION_DENIED")
    assert (body["error"], body["permission"]) == ("PERMISSION_DENIED", "llm.chat")


def test_4_a_grant_is_in_force_before_it_is_answered(http: httpx.Client, admin: Admin) -> None:
    def ask_and_use(app_id: str) -> int:
        body = {"app_id": app_id, "app_name": None, "permission": "api.agents"}
        assert http.get("/agents", headers={"x-app-id": app_id}).status_code == 403
        assert http.post("/api/local-apps/request-permission", json=body, timeout=20).json()["granted"] is True
        return http.get("/agents", headers={"x-app-id": app_id}).status_code

    app_ids = [admin.register("Eager") for _ in range(8)]
    with ThreadPoolExecutor(len(app_ids)) as threads:
        asking = [threads.submit(ask_and_use, app_id) for app_id in app_ids]
        for app_id in app_ids:
            admin.decide(app_id, {"api.agents": "granted"})
        assert [each.result(20) for each in asking] == [200] * len(app_ids)


def test_5_register_and_request_need_no_identity_and_give_none(http: httpx.Client, app_id: str, admin: Admin) -> None:
    registered = http.post("/sdk/register", json={"app_id": app_id, "app_name": "Checklist", "permissions": list(HELD)}).json()
    assert registered["success"] is True
    assert registered["permissions"] == {"granted": list(HELD), "denied": []}
    assert registered["message"]
    asked = http.post("/api/local-apps/request-permission", json={"app_id": app_id, "app_name": None, "permission": "llm.chat"}).json()
    assert asked["granted"] is True

    # No one gets what administers the server by asking, and no one who is unknown gets anything.
    asked = http.post("/api/local-apps/request-permission", json={"app_id": app_id, "app_name": None, "permission": "admin.keys.write"})
    assert asked.json()["granted"] is False
    assert_failed(http.post("/sdk/register", json={"app_id": "nobody", "permissions": ["llm.chat"]}), 404, "APP_NOT_FOUND")
    assert_failed(
        http.post("/api/local-apps/request-permission", json={"app_id": "nobody", "permission": "llm.chat"}), 404, "APP_NOT_FOUND"
    )
    assert not admin.pending(app_id)


# --- 6: headers


@pytest.mark.parametrize("name", ["x-app-id", "X-App-Id", "X-APP-ID"])
def test_6_an_app_id_alone_is_production(http: httpx.Client, app_id: str, name: str) -> None:
    pong = http.get("/sdk/ping", headers={name: app_id}).json()
    assert (pong["mode"], pong["appId"]) == ("production", app_id)


def get(server: Server, path: str, headers: dict[str, str]) -> Json:
    """Get a path with headers that httpx would not send, such as one that ends in a blank; the answer's body, with its status."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return {**json.loads(answer.read()), "status": answer.status}


def test_6_a_key_is_taken_from_either_header(server: Server, admin: Admin, app_id: str) -> None:
    for header in ({"Authorization": f"Bearer {admin.key}"}, {"Authorization": f"bearer  {admin.key} "}, {"x-api-key": admin.key}):
        alone = get(server, "/sdk/ping", header)
        assert alone["mode"] == "development"
        assert "appId" not in alone
        together = get(server, "/sdk/ping", header | {"x-app-id": app_id})
        assert (together["mode"], together["appId"]) == ("development", app_id)
        # A key has every permission, and with an app beside it works on that app's rows.
        assert get(server, "/workspaces", header | {"x-app-id": app_id})["success"] is True
    both = get(server, "/sdk/ping", {"Authorization": f"Bearer {admin.key}", "x-api-key": admin.key})
    assert both["mode"] == "development"


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Bearer  ", "", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "Bearer opaque"]
)
def test_6_a_users_token_or_none_beside_an_app_id_or_a_key_is_passed_over(server: Server, admin: Admin, app_id: str, value: str) -> None:
    user = {"Authorization": value}
    assert get(server, "/sdk/ping", user | {"x-app-id": app_id})["mode"] == "production"
    assert get(server, "/agents", user | {"x-app-id": app_id})["success"] is True
    assert get(server, "/sdk/ping", user | {"x-api-key": admin.key})["mode"] == "development"
    # All three, as the TypeScript client sends them.
    together = get(server, "/sdk/ping", user | {"x-api-key": admin.key, "x-app-id": app_id})
    assert (together["mode"], together["appId"]) == ("development", app_id)
    assert get(server, "/sdk/ping", user)["status"] == 401


def test_6_a_credential_of_our_own_that_is_wrong_is_not_passed_over(http: httpx.Client, admin: Admin, app_id: str) -> None:
    wrong = f"{admin.key[:-1]}{'a' if admin.key[-1] != 'a' else 'b'}"
    assert_failed(http.get("/sdk/ping", headers={"Authorization": f"Bearer {wrong}", "x-app-id": app_id}), 401, "INVALID_API_KEY")
    assert_failed(http.get("/sdk/ping", headers={"x-api-key": wrong, "x-app-id": app_id}), 401, "INVALID_API_KEY")


def test_6_the_two_sentences_of_the_reference_are_word_for_word(http: httpx.Client) -> None:
    assert assert_failed(http.get("/sdk/ping"), 401, "MISSING_APP_ID")["error"] == "Missing required header: x-app-id"
    assert assert_failed(http.get("/sdk/ping", headers={"x-app-id": "abc"}), 401, "INVALID_APP_ID")["error"] == "Invalid app ID: abc"


# --- 8: what the clients call although the reference does not name it


def test_8_one_activity_can_be_read_and_a_missing_one_is_not_found(http: httpx.Client, app: dict[str, str]) -> None:
    created = http.post("/activities", json={"raw_data": {"n": 1}}, headers=app).json()["data"]
    assert http.get(f"/activities/{created['id']}", headers=app).json() == {"data": created}
    missing = assert_failed(http.get("/activities/00000000-0000-0000-0000-000000000000", headers=app), 404, "NOT_FOUND")
    assert "not found" in missing["error"]  # in lower case: one client looks for these words


def test_8_no_user_token_is_a_json_404(http: httpx.Client, app: dict[str, str]) -> None:
    assert_failed(http.get("/sdk/auth/token", headers=app), 404, "NO_USER_TOKEN")


# --- 9: Server-Sent Events


def stream_bytes(server: Server, app_id: str, model: str) -> tuple[bytes, bytes]:
    """The head and the decoded body of a streamed chat, read until the server closes the connection."""
    body = json.dumps({"model": model, "messages": MESSAGES}).encode()
    head = (
        f"POST /sdk/llm/chat/stream HTTP/1.1\r\nHost: localhost\r\nx-app-id: {app_id}\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(head.encode() + body)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    answer_head, _, chunks = received.partition(b"\r\n\r\n")
    text = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        text += rest[: int(size, 16)]
        chunks = rest[int(size, 16) + 2 :]
    return answer_head.lower(), text


def test_9_a_stream_is_framed_as_every_client_can_read_it(server: Server, app_id: str) -> None:
    head, text = stream_bytes(server, app_id, "long-5")
    assert head.startswith(b"http/1.1 200 ")
    assert b"\r\ncontent-type: text/event-stream\r\n" in head + b"\r\n"
    # That the read came to an end shows that the connection was closed; the header says so beforehand.
    assert b"\r\nconnection: close" in head
    assert text.endswith(b"\n\ndata: [DONE]\n\n")
    assert b"\r" not in text
    *frames, end = text.split(b"\n\n")
    assert end == b""
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
    *pieces, done = (frame.removeprefix(b"data: ") for frame in frames)
    assert done == b"[DONE]"
    events = [json.loads(piece) for piece in pieces]
    assert "".join(event["textResponse"] for event in events) == "token0 token1 token2 token3 token4 "
    assert all(isinstance(event["textResponse"], str) and event["error"] is False for event in events)
    assert len({event["uuid"] for event in events}) == 1
    assert [event["close"] for event in events] == [False] * (len(events) - 1) + [True]


def test_9_an_error_in_a_stream_is_one_event_and_no_end_mark(server: Server, app_id: str) -> None:
    _, text = stream_bytes(server, app_id, "error-mid-stream")
    first, error, end = text.split(b"\n\n")
    assert json.loads(first.removeprefix(b"data: "))["textResponse"] == "Once"
    assert end == b""
    name, data = error.split(b"\n")
    assert name == b"event: error"
    body = json.loads(data.removeprefix(b"data: "))
    assert (body["success"], body["code"]) == (False, "LLM_STREAM_ERROR")
    assert body["error"]
    assert "SECRET-DETAIL" not in body["error"]


def test_9_an_answer_of_many_lines_stays_on_one(http: httpx.Client, app: dict[str, str]) -> None:
    said = "one\ntwo\r\n\r\ndata: [DONE]\n\u2028\u0085three"
    body = {"model": "echo", "messages": [{"role": "user", "content": said}]}
    with http.stream("POST", "/sdk/llm/chat/stream", json=body, headers=app) as answer:
        text = answer.read().decode()
    events = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame]
    assert "".join(json.loads(event)["textResponse"] for event in events[:-1]) == echo_of(said)
    assert "\r" not in text


def test_9_what_fails_before_the_first_piece_is_an_ordinary_error(http: httpx.Client, app: dict[str, str]) -> None:
    answer = http.post("/sdk/llm/chat/stream", json={"messages": MESSAGES, "model": "500"}, headers=app | {"Accept": "text/event-stream"})
    assert_failed(answer, 503, "PROVIDER_UNAVAILABLE")


# --- 11: fields that the reference leaves out


def test_11_agents_have_a_slug_and_chats_a_provider_and_a_model(http: httpx.Client, app: dict[str, str]) -> None:
    for agent in http.get("/agents", headers=app).json()["agents"]:
        assert {"slug", "name", "display_name", "description", "hub_id"} <= agent.keys()
    response = http.post("/sdk/llm/chat", json={"messages": MESSAGES}, headers=app).json()["response"]
    assert (response["provider"], response["model"]) == ("openai", "echo")
    metrics = response["metrics"]
    assert {"prompt_tokens", "completion_tokens", "total_tokens", "duration", "outputTps"} == metrics.keys()
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_11_lists_are_lists_and_never_null(http: httpx.Client, app: dict[str, str]) -> None:
    providers = http.get("/sdk/llm/providers", headers=app).json()
    assert isinstance(providers["llm"], list)
    assert isinstance(providers["embedding"], list)
    (provider,) = http.get("/sdk/llm/providers/chat", headers=app).json()["providers"]
    assert provider["active"] is True
    assert all(model.keys() == {"id", "name"} for model in provider["models"])
    assert http.get("/activities?status=nothing-has-this", headers=app).json() == {"data": []}


# --- 12: where the server is found


def test_12_both_loopback_families_answer_under_every_name(server: Server) -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]"), (None, "localhost")):
        if family is None or can_bind(family):
            assert httpx.get(f"http://{host}:{server.port}/health", timeout=TIMEOUT_S, trust_env=False).json() == {"status": "ok"}


def test_12_nothing_but_loopback_is_listened_on(server: Server) -> None:
    listening = {each.laddr.ip for each in psutil.Process(server.process.pid).net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert "127.0.0.1" in listening
    assert listening <= {"127.0.0.1", "::1"}


def can_bind(family: int) -> bool:
    """Whether this machine has loopback addresses of a family."""
    with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return True
    return False


def responses_of_local_apps(http: httpx.Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation of the surface: path, method, and its responses with references followed."""
    document = http.get("/openapi/local_apps.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                responses = {
                    status: document["components"]["responses"][response["$ref"].rpartition("/")[2]] if "$ref" in response else response
                    for status, response in operation["responses"].items()
                }
                yield path, method, responses
