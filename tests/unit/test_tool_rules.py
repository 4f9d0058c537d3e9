"""Who may use which tool, by rules; the patterns in which they are written; the permission that stands for a tool."""

import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from homeport.errors import InvalidRequest, NotFound
from homeport.permission_names import check_permission
from homeport.tools import EVERYBODY, Decision, ToolRule, agent_subject, app_subject, parse_pattern, tool_permission
from homeport.tools.rules import Rules

APP, AGENT = app_subject(UUID("7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09")), agent_subject("@writer")


def rules(*given: tuple[str, str, Decision]) -> Rules:
    """Rules from (subject, pattern, decision); servers and tools have no slash in their names here."""
    made = []
    for subject, pattern, decision in given:
        server, _, tool = pattern.partition("/")
        names = ("" if server == "*" else server, "" if tool == "*" else tool)
        made.append(ToolRule(uuid4(), subject, *names, decision, "test", datetime.now(UTC)))
    return Rules(tuple(made))


def decide(given: Rules, *subjects: str) -> Decision:
    return given.decide(subjects, "fs", "read")


def test_without_a_rule_a_tool_is_allowed() -> None:
    assert decide(rules()) == decide(rules(), APP) == "allow"
    assert decide(rules((app_subject(uuid4()), "*", "deny"), (APP, "other/*", "deny"), (APP, "fs/write", "deny")), APP) == "allow"


@pytest.mark.parametrize("subject", [EVERYBODY, APP, AGENT])
def test_the_most_exact_rule_of_a_subject_counts(subject: str) -> None:
    subjects = (APP, AGENT)
    assert decide(rules((subject, "*", "deny")), *subjects) == "deny"
    assert decide(rules((subject, "*", "deny"), (subject, "fs/*", "ask")), *subjects) == "ask"
    assert decide(rules((subject, "*", "deny"), (subject, "fs/*", "ask"), (subject, "fs/read", "allow")), *subjects) == "allow"
    assert decide(rules((subject, "*", "allow"), (subject, "fs/*", "allow"), (subject, "fs/read", "deny")), *subjects) == "deny"


def test_what_was_decided_about_an_app_goes_before_what_holds_for_everybody() -> None:
    for pattern in ("*", "fs/*", "fs/read"):
        assert decide(rules((EVERYBODY, pattern, "deny"), (APP, pattern, "allow")), APP) == "allow"
        assert decide(rules((EVERYBODY, pattern, "allow"), (APP, pattern, "deny")), APP) == "deny"
        assert decide(rules((EVERYBODY, pattern, "deny"), (APP, "fs/read", "allow")), APP) == "allow"


def test_a_more_exact_rule_for_everybody_can_only_make_it_stricter() -> None:
    assert decide(rules((EVERYBODY, "fs/read", "deny"), (APP, "fs/*", "allow")), APP) == "deny"
    assert decide(rules((EVERYBODY, "fs/*", "ask"), (APP, "*", "allow")), APP) == "ask"
    assert decide(rules((EVERYBODY, "fs/read", "allow"), (APP, "*", "deny")), APP) == "deny"


def test_an_app_and_its_agent_must_both_be_allowed() -> None:
    assert decide(rules((APP, "fs/read", "allow"), (AGENT, "*", "ask")), APP, AGENT) == "ask"
    assert decide(rules((APP, "*", "deny"), (AGENT, "fs/read", "allow")), APP, AGENT) == "deny"
    assert decide(rules((EVERYBODY, "fs/read", "deny"), (APP, "fs/read", "allow")), APP, AGENT) == "allow", "an agent without rules"


def test_a_server_is_of_use_when_one_of_its_tools_may_be() -> None:
    assert rules().may_use_some([APP], "fs")
    assert not rules((APP, "*", "deny")).may_use_some([APP], "fs")
    assert rules((APP, "*", "deny"), (APP, "fs/read", "ask")).may_use_some([APP], "fs")
    assert not rules((APP, "*", "deny"), (APP, "git/log", "allow")).may_use_some([APP], "fs")
    assert not rules((APP, "*", "deny"), (EVERYBODY, "fs/read", "allow")).may_use_some([APP], "fs")


def test_patterns_are_read_by_the_servers_that_there_are() -> None:
    servers = ["a", "a/b", "time"]
    assert parse_pattern("*", servers) == ("", "")
    assert parse_pattern("time/*", servers) == ("time", "")
    assert parse_pattern("time/now", servers) == ("time", "now")
    assert parse_pattern("a/b/c/d", servers) == ("a/b", "c/d")
    assert parse_pattern("a/c/d", servers) == ("a", "c/d")
    with pytest.raises(NotFound, match="homeport mcp list"):
        parse_pattern("clock/now", servers)
    for text in ("", "time", "time/", "/"):
        with pytest.raises(InvalidRequest, match="SERVER/TOOL"):
            parse_pattern(text, servers)


@pytest.mark.parametrize(
    ("server", "tool", "permission"),
    [
        ("time", "get_current_time", "mcp.tools.time.get_current_time"),
        ("my-server", "0", "mcp.tools.my-server.0"),
        ("GitHub", "x", "mcp.tools.github-{}.x"),
        ("a.b/c", "Read file", "mcp.tools.a-b-c-{}.read-file-{}"),
        ("日本", "_x", "mcp.tools.x-{}.x-{}"),
        ("s" * 200, "t" * 200, "mcp.tools." + "s" * 35 + "-{}." + "t" * 35 + "-{}"),
    ],
)
def test_a_permission_stands_for_a_tool_whatever_its_name(server: str, tool: str, permission: str) -> None:
    made = check_permission(tool_permission(server, tool))
    assert re.fullmatch(re.escape(permission).replace(r"\{\}", "[0-9a-f]{8}"), made)
    assert made == tool_permission(server, tool)


def test_different_tools_have_different_permissions() -> None:
    names = ["a", "A", "a-", "-a", "a.", "a/b", "a-b", "a b", "é", "è", "x" * 36, "x" * 37]
    permissions = {tool_permission(name, "t") for name in names} | {tool_permission("t", name) for name in names}
    assert len(permissions) == 2 * len(names)
    (cleaned,) = [tool_permission("A", "t").split(".")[2]]
    assert tool_permission(cleaned, "t") != tool_permission("A", "t"), "a name must not be taken for what another is cleaned to"
