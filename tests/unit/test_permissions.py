"""How permission names match, and what a principal may do."""

from uuid import uuid4

import pytest

from homeport.errors import InvalidRequest
from homeport.identity import Principal
from homeport.permission_names import check_grantable, check_permission, check_scope, covers


@pytest.mark.parametrize(
    ("pattern", "permission", "expected"),
    [
        ("*", "llm.chat", True),
        ("*", "admin.keys.write", True),
        ("llm.chat", "llm.chat", True),
        ("llm.chat", "llm.chat.stream", False),
        ("llm.chat", "llm", False),
        ("llm.chat", "llm.chats", False),
        ("activities.*", "activities.read", True),
        ("activities.*", "activities.read.own", True),
        ("activities.*", "activities", False),
        ("activities.*", "activities.", False),
        ("activities.*", "activitiesx.read", False),
        ("activities.read.*", "activities.read", False),
        ("activities.read.*", "activities.write", False),
        # No other wildcards.
        ("act*", "activities.read", False),
        ("*.read", "activities.read", False),
        ("activities*", "activities.read", False),
        ("*.*", "activities.read", False),
        ("", "activities.read", False),
        # A pattern is covered when all that it gives is.
        ("*", "*", True),
        ("*", "activities.*", True),
        ("activities.*", "activities.*", True),
        ("activities.*", "activities.read.*", True),
        ("activities.*", "*", False),
        ("activities.read", "activities.*", False),
        ("activities.read.*", "activities.*", False),
    ],
)
def test_covers(pattern: str, permission: str, expected: bool) -> None:
    assert covers(pattern, permission) is expected


@pytest.mark.parametrize("name", ["llm.chat", "desktop.runtime-sessions", "activities", "a1.b_2.c", "x" * 100])
def test_names_that_permissions_can_have(name: str) -> None:
    assert check_permission(name) == name
    assert check_scope(name) == name
    assert check_scope("*") == "*"


@pytest.mark.parametrize("name", ["", "*", "llm.*", "LLM.chat", "llm..chat", ".llm", "llm.", "llm chat", "llm.chat\n", "ü.chat", "x" * 101])
def test_names_that_permissions_cannot_have(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a permission"):
        check_permission(name)


@pytest.mark.parametrize("scope", ["", "**", "*.llm", "llm*", ".*", "llm.*.*", "llm.*.chat"])
def test_a_scope_has_a_wildcard_only_at_its_end(scope: str) -> None:
    with pytest.raises(InvalidRequest):
        check_scope(scope)


@pytest.mark.parametrize("name", ["admin", "admin.keys.write"])
def test_apps_cannot_be_given_what_administers_the_server(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be given to an app"):
        check_grantable(name)


def app(granted: set[str], denied: set[str]) -> Principal:
    key = uuid4()
    return Principal("app", key, "App", key, str(key), frozenset(granted), frozenset(denied))


def key(*scopes: str) -> Principal:
    identifier = uuid4()
    return Principal("key", identifier, "Key", identifier, None, frozenset(scopes), frozenset())


@pytest.mark.parametrize(
    ("principal", "permission", "expected"),
    [
        (app({"llm.chat"}, set()), "llm.chat", "granted"),
        (app(set(), {"llm.chat"}), "llm.chat", "denied"),
        (app({"llm.chat"}, {"llm.chat"}), "llm.chat", "denied"),
        (app({"llm.chat"}, {"activities.read"}), "llm.embed", "undecided"),
        (app({"*"}, set()), "admin.keys.write", "denied"),
        (app({"admin.keys.write"}, set()), "admin.keys.write", "denied"),
        (key("*"), "admin.keys.write", "granted"),
        (key("activities.*"), "activities.read", "granted"),
        (key("activities.*"), "llm.chat", "denied"),
    ],
)
def test_what_a_principal_may_do(principal: Principal, permission: str, expected: str) -> None:
    assert principal.decide(permission) == expected
