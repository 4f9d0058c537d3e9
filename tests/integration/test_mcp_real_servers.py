"""MCP servers that other people publish: Python and Node.js, both generations of the protocol, all transports."""

import asyncio
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapters.mcp import HttpTarget, McpSessions, ServerSpec, StdioTarget
from tests.integration.mcp_parts import open_sessions, text_of
from tests.mcp_servers import everything_over, module, npm_server, spec_of

pytestmark = pytest.mark.anyio


def npm(name: str, *args: str, **env: str) -> StdioTarget:
    """A server of Node.js over standard input and output."""
    command, *rest = npm_server(name)
    return StdioTarget(command, (*rest, *args), env)


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def run_git(folder: Path, *command: str) -> None:
    """Run git as somebody."""
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *command], cwd=folder, check=True, timeout=30)


async def names(sessions: McpSessions, spec: ServerSpec) -> set[str]:
    """The names of a server's tools."""
    return {tool.name for tool in await sessions.list_tools(spec)}


async def test_the_time_server_tells_the_time(tmp_path: Path) -> None:
    spec = spec_of(module("mcp_server_time"))
    async with open_sessions(tmp_path) as sessions:
        assert await names(sessions, spec) == {"convert_time", "get_current_time"}
        arguments = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        converted = json.loads(text_of(await sessions.call(spec, "convert_time", arguments)))
        assert converted["source"]["timezone"] == "Europe/Berlin"
        wrong = await sessions.call(spec, "get_current_time", {"timezone": "Nowhere/Land"})
        assert wrong.is_error


async def test_the_git_server_reads_a_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    run_git(tmp_path, "init", "--quiet", str(repository))
    run_git(repository, "commit", "--quiet", "--allow-empty", "-m", "the first word")
    spec = spec_of(module("mcp_server_git", "--repository", str(repository)))
    async with open_sessions(tmp_path / "logs") as sessions:
        assert {"git_log", "git_status"} <= await names(sessions, spec)
        output = await sessions.call(spec, "git_log", {"repo_path": str(repository)})
        assert "the first word" in json.dumps(output.content)


async def use_everything(sessions: McpSessions, spec: ServerSpec) -> None:
    """What server-everything has for everybody."""
    seen: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    assert {"echo", "get-sum", "get-structured-content", "trigger-long-running-operation"} <= await names(sessions, spec)
    assert text_of(await sessions.call(spec, "echo", {"message": "hello"})) == "Echo: hello"
    sums = await asyncio.gather(*(sessions.call(spec, "get-sum", {"a": number, "b": 1}) for number in range(100)))
    assert [text_of(output) for output in sums] == [f"The sum of {number} and 1 is {number + 1}." for number in range(100)]
    weather = await sessions.call(spec, "get-structured-content", {"location": "New York"})
    assert isinstance(weather.structured, dict)
    assert {"temperature", "conditions", "humidity"} <= weather.structured.keys()
    image = await sessions.call(spec, "get-tiny-image", {})
    assert "image/png" in [block.get("mimeType") for block in image.content]
    long = await sessions.call(spec, "trigger-long-running-operation", {"duration": 1, "steps": 4}, on_progress=note)
    assert "completed" in text_of(long)
    assert seen == [(1.0, 4.0), (2.0, 4.0), (3.0, 4.0), (4.0, 4.0)]
    links = await sessions.call(spec, "get-resource-links", {"count": 2})
    assert {block["type"] for block in links.content} == {"text", "resource_link"}


async def test_server_everything_over_standard_input_and_output(tmp_path: Path) -> None:
    spec = spec_of(npm("everything"))
    async with open_sessions(tmp_path) as sessions:
        await use_everything(sessions, spec)
        environment = json.loads(text_of(await sessions.call(spec, "get-env", {})))
        assert not [name for name in environment if name.startswith(("HOMEPORT", "PYTEST"))]


@pytest.mark.parametrize(("kind", "transport"), [("streamableHttp", "http"), ("sse", "sse")])
async def test_server_everything_over_http(tmp_path: Path, kind: str, transport: Any) -> None:
    with everything_over(kind, free_port()) as url:
        spec = spec_of(HttpTarget(url, transport=transport))
        async with open_sessions(tmp_path) as sessions:
            await use_everything(sessions, spec)


async def test_the_filesystem_server_works_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    spec = spec_of(npm("filesystem", str(folder)))
    async with open_sessions(tmp_path / "logs") as sessions:
        assert {"read_text_file", "write_file"} <= await names(sessions, spec)
        written = await sessions.call(spec, "write_file", {"path": f"{folder}/a.txt", "content": "kept"})
        assert not written.is_error
        assert "kept" in text_of(await sessions.call(spec, "read_text_file", {"path": f"{folder}/a.txt"}))
        outside = await sessions.call(spec, "read_text_file", {"path": "/etc/passwd"})
        assert outside.is_error
    assert (folder / "a.txt").read_bytes() == b"kept"


async def test_the_memory_server_remembers_across_sessions(tmp_path: Path) -> None:
    spec = spec_of(npm("memory", MEMORY_FILE_PATH=str(tmp_path / "memory.json")))
    entity = {"name": "Ada", "entityType": "person", "observations": ["likes numbers"]}
    async with open_sessions(tmp_path / "logs") as sessions:
        await sessions.call(spec, "create_entities", {"entities": [entity]})
        await sessions.stop(spec.id)
        found = await sessions.call(spec, "search_nodes", {"query": "Ada"})
        assert isinstance(found.structured, dict)
        assert found.structured["entities"] == [entity]
