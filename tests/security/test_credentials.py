"""Credentials at the door: where they may stand, what a forged one is worth, and what a key can never be made to give."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import pytest

from homeport.key_text import make_key, parse_key
from tests.acceptance.servers import TIMEOUT_S, Admin, Server
from tests.security.wire import OPERATIONS, Json, path_of

SECURED = {name: each for name, each in OPERATIONS.items() if each[2]["security"] and {} not in each[2]["security"]}
each_secured = pytest.mark.parametrize(("method", "path", "operation"), SECURED.values(), ids=SECURED)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """A client without credentials."""
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


def make_jwt(header: Json, claims: Json, key: bytes = b"") -> str:
    """A token as an attacker would make it: any algorithm, any claims, signed with whatever is at hand."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims)]
    signature = hmac.new(key, b".".join(parts), sha256).digest() if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def forged_tokens() -> dict[str, str]:
    """Tokens of every kind that has opened somebody's server."""
    claims: dict[str, Any] = {
        "sub": "admin",
        "role": "admin",
        "scope": "*",
        "iss": "homeport",
        "aud": "homeport",
        "exp": time.time() + 3600,
        "jti": str(uuid4()),
    }
    return {
        "without an algorithm": make_jwt({"alg": "none"}, claims),
        "algorithm in other letters": make_jwt({"alg": "nOnE"}, claims),
        "signed with nothing": make_jwt({"alg": "HS256"}, claims),
        "signed with what is public": make_jwt({"alg": "HS256"}, claims, b"homeport"),
        "a key that names a file": make_jwt({"alg": "HS256", "kid": "../../dev/null"}, claims, b"\0"),
        "a key that is asked for elsewhere": make_jwt({"alg": "RS256", "jku": "http://127.0.0.1:9/keys", "kid": "a"}, claims, b"x"),
        "a key that it brings itself": make_jwt({"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}}, claims, b"x"),
        "for somebody else": make_jwt({"alg": "HS256"}, {**claims, "aud": "another"}, b"x"),
        "long expired": make_jwt({"alg": "HS256"}, {**claims, "exp": 1}, b"x"),
        "not yet valid": make_jwt({"alg": "HS256"}, {**claims, "nbf": time.time() + 3600}, b"x"),
    }


FORGED = forged_tokens()


@each_secured
def test_a_credential_counts_in_no_other_place_than_its_header(
    client: httpx.Client, admin: Admin, method: str, path: str, operation: Json
) -> None:
    names = ("api_key", "apikey", "x-api-key", "key", "token", "access_token", "authorization", "app_id", "x-app-id")
    address = path_of(path, operation)
    in_query = client.request(method, address, params=dict.fromkeys(names, admin.key))
    in_cookie = client.request(method, address, headers={"cookie": "; ".join(f"{name}={admin.key}" for name in names)})
    in_form = client.request(method, address, data=dict.fromkeys(names, admin.key)) if method != "GET" else in_query
    as_user = client.request(method, address, auth=("admin", admin.key))
    as_token = client.request(method, address, headers={"authorization": f"Bearer {FORGED['without an algorithm']}"})
    assert [each.status_code for each in (in_query, in_cookie, in_form, as_user, as_token)] == [401] * 5
    assert admin.key not in in_query.text + as_user.text


@pytest.mark.parametrize("path", ["/activities", "/admin/v1/apps", "/mcp"])
@pytest.mark.parametrize("kind", FORGED)
def test_a_token_of_a_person_opens_nothing_however_it_is_made(client: httpx.Client, kind: str, path: str) -> None:
    for header, value in {"authorization": f"Bearer {FORGED[kind]}", "x-api-key": FORGED[kind], "x-app-id": FORGED[kind]}.items():
        assert client.request("POST" if path == "/mcp" else "GET", path, headers={header: value}).status_code == 401


def test_a_token_of_a_person_beside_an_app_s_id_adds_nothing_to_what_the_app_may_do(client: httpx.Client, admin: Admin) -> None:
    app_id = admin.register("Signed in")
    for kind, token in FORGED.items():
        headers = {"x-app-id": app_id, "authorization": f"Bearer {token}"}
        assert client.get("/activities", headers=headers).json()["code"] == "PERMISSION_REQUIRED", kind
        assert client.get("/admin/v1/apps", headers=headers).status_code == 401, kind


def test_a_mistyped_key_is_told_without_a_database(server: Server, client: httpx.Client, admin: Admin) -> None:
    for position in range(0, len(admin.key), 7):
        wrong = admin.key[:position] + ("A" if admin.key[position] != "A" else "B") + admin.key[position + 1 :]
        assert parse_key(wrong) is None
        assert client.get("/sdk/ping", headers={"authorization": f"Bearer {wrong}"}).status_code == 401
    _, unknown = make_key()
    assert parse_key(unknown) is not None
    refusals = [client.get("/sdk/ping", headers={"authorization": f"Bearer {key}"}).json() for key in (unknown, admin.key[:-1], wrong)]
    assert len({(each["code"], each["error"]) for each in refusals if each["code"] == "INVALID_API_KEY"}) == 1


def test_a_key_can_only_be_made_narrower_and_that_cannot_be_undone(client: httpx.Client, admin: Admin) -> None:
    maker = admin.create_key("admin.keys.write", "admin.keys.read", "activities.read")
    headers = {"authorization": f"Bearer {maker['key']}"}
    for scopes in (["*"], ["admin.*"], ["activities.*"], ["activities.write"], ["admin.keys.write", "llm.chat"]):
        answer = client.post("/admin/v1/api-keys", headers=headers, json={"name": "more", "scopes": scopes})
        assert (answer.status_code, answer.json()["code"]) == (403, "scope-not-held"), scopes
    narrow = client.post("/admin/v1/api-keys", headers=headers, json={"name": "less", "scopes": ["activities.read"]}).json()
    used = {"authorization": f"Bearer {narrow['key']}"}
    assert client.get("/activities", headers=used).status_code == 200
    assert client.post("/activities", headers=used, json={"raw_data": {}}).status_code == 403
    assert client.get("/admin/v1/api-keys", headers=used).status_code == 403


def test_a_key_is_shown_once_and_ends_when_it_says_so(client: httpx.Client, admin: Admin) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    made = admin.call("POST", "/api-keys", {"name": "brief", "scopes": ["activities.read"], "expires_at": soon})
    listed = client.get("/admin/v1/api-keys?limit=200", headers={"authorization": f"Bearer {admin.key}"}).text
    assert made["key"] not in listed
    assert made["prefix"] in listed
    deadline = time.monotonic() + TIMEOUT_S
    while (status := client.get("/activities", headers={"x-api-key": made["key"]}).status_code) == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 401


def test_an_id_that_is_no_secret_opens_nothing(client: httpx.Client, admin: Admin) -> None:
    # What logs, lists and answers show of others: ids of keys, prefixes of keys, slugs and names of apps.
    key = admin.create_key("activities.read")
    app_id = admin.register("Shown everywhere", slug="shown-everywhere")
    slug = admin.call("GET", f"/apps/{app_id}")["slug"]
    for known in (key["id"], key["prefix"], slug, "Shown everywhere", app_id.replace("-", ""), app_id[:-1], "*", "%"):
        for headers in ({"x-app-id": known}, {"x-api-key": known}, {"authorization": f"Bearer {known}"}):
            assert client.get("/activities", headers=headers).status_code == 401, known
