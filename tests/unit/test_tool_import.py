"""The file in which desktop clients keep their MCP servers."""

import json
import sys
from typing import Any

import pytest

from homeport.errors import InvalidRequest
from homeport.tools import ServerDraft
from homeport.tools.import_file import parse_server_file

EXE = sys.executable


def parse(servers: Any, key: str = "mcpServers") -> tuple[list[ServerDraft], list[str]]:
    found = parse_server_file(json.dumps({key: servers}))
    return found.drafts, found.remarks


def test_a_file_as_desktop_clients_write_it() -> None:
    drafts, remarks = parse(
        {
            "time": {"command": EXE, "args": ["-m", "mcp_server_time"], "env": {"TZ": "UTC", "LEVEL": 3}},
            "docs": {"type": "http", "url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer x"}},
            "old": {"type": "sse", "url": "https://mcp.example.com/sse", "disabled": True},
            "guessed": {"url": "https://mcp.example.com/mcp"},
        }
    )
    time, docs, old, guessed = drafts
    assert (time.name, time.transport, time.command, time.args) == ("time", "stdio", EXE, ["-m", "mcp_server_time"])
    assert dict(time.env) == {"TZ": "UTC", "LEVEL": "3"}
    assert (docs.transport, docs.url, dict(docs.headers)) == ("http", "https://mcp.example.com/mcp", {"Authorization": "Bearer x"})
    assert (old.transport, old.enabled) == ("sse", False)
    assert (guessed.transport, guessed.enabled) == ("http", True)
    assert remarks == []


def test_the_outer_key_of_another_editor_and_keys_that_nobody_knows() -> None:
    drafts, remarks = parse({"a/b": {"type": "stdio", "command": EXE, "gallery": True, "alwaysAllow": ["x"]}}, "servers")
    assert [draft.name for draft in drafts] == ["a/b"]
    assert remarks == ["a/b: passed over alwaysAllow, gallery, which mean nothing here."]


def test_placeholders_stay_and_are_remarked_upon() -> None:
    (draft,), (remark,) = parse({"x": {"command": EXE, "env": {"TOKEN": "${input:token}"}, "args": ["$HOME"]}})
    assert draft.env["TOKEN"] == "${input:token}"
    assert "placeholders" in remark


def test_a_command_that_is_not_there_is_only_remarked_upon() -> None:
    drafts, remarks = parse({"x": {"command": "no-such-program-here"}, "y": {"command": "/no/such/program"}})
    assert len(drafts) == 2
    assert "not on the server's PATH" in remarks[0]
    assert "no program /no/such/program" in remarks[1]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(
            {
                "both": {"command": EXE, "url": "https://x.example"},
                "neither": {"args": []},
                "relative": {"command": "./server"},
                "args": {"command": EXE, "args": "-m x"},
                "kind": {"type": "websocket", "url": "https://x.example"},
                "text": "x",
                "credentials": {"url": "https://user:secret@x.example/mcp"},
                "header": {"url": "https://x.example", "headers": {"Host": "y"}},
                "variable": {"command": EXE, "env": {"A=B": "c"}},
                "mixed": {"url": "https://x.example", "env": {"A": "b"}},
                "disabled": {"command": EXE, "disabled": "yes"},
                "a" * 201: {"command": EXE},
                "good": {"command": EXE},
            }
        )
    assert len(caught.value.problems) == 12
    assert {each.pointer for each in caught.value.problems} >= {"/both", "/neither", "/relative"}
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"mcpServers": []}', '{"mcp": {}}', "x" * 300_000])
def test_what_is_no_such_file_is_refused(content: str) -> None:
    with pytest.raises(InvalidRequest, match="The file"):
        parse_server_file(content)
