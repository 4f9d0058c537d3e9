"""The built-in tools, as an agent uses them: for its owner, in its workspace, and within bounds."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from homeport.errors import AppError, Conflict, InvalidRequest, NotFound
from homeport.home import Home, open_home
from homeport.identity import Principal
from homeport.settings import Settings
from homeport.tools import BUILTIN_SERVER, ToolContext, ToolOutput
from homeport.vectors import Document, make_plan
from tests.integration.parts import key_principal
from tests.integration.web_server import web_server

pytestmark = pytest.mark.anyio


@dataclass
class Agent:
    """An agent at work for one owner."""

    home: Home
    principal: Principal

    async def use(self, tool: str, *, workspace: str = "default", **arguments: Any) -> ToolOutput:
        context = ToolContext(self.principal, "@agent", workspace, uuid4())
        return await self.home.tools.execute(self.principal, BUILTIN_SERVER, tool, arguments, context=context)

    async def text(self, tool: str, **arguments: Any) -> str:
        found: str = (await self.use(tool, **arguments)).content[0]["text"]
        return found

    async def code(self, tool: str, **arguments: Any) -> str:
        with pytest.raises(AppError) as caught:
            await self.use(tool, **arguments)
        return caught.value.code


@pytest.fixture
async def home(database_url: str, tmp_path: Path) -> AsyncIterator[Home]:
    settings = Settings(data_dir=tmp_path / "data", database_url=SecretStr(database_url), private_hosts=("127.0.0.1",))
    async with open_home(settings) as home:
        yield home


@pytest.fixture
async def agent(home: Home) -> Agent:
    """For an API key, which nobody has to ask for anything."""
    return Agent(home, key_principal(uuid4()))


async def test_all_of_them_are_described_for_models(home: Home) -> None:
    tools = home.tools.builtins()
    assert [tool.name for tool in tools] == [
        "fetch_url",
        "list_activities",
        "list_files",
        "read_file",
        "search_vectors",
        "update_activity",
        "write_file",
    ]
    for tool in tools:
        assert tool.description
        assert tool.input_schema["additionalProperties"] is False
        assert all("description" in each for each in tool.input_schema["properties"].values())
        assert tool.is_read_only is (tool.name not in ("update_activity", "write_file"))
        assert tool.is_destructive is (None if tool.is_read_only else True)
        assert tool.is_idempotent


async def test_an_app_is_asked_for_what_each_of_them_needs(home: Home) -> None:
    registered = await home.apps.register("App")
    app = await home.identity.authenticate_app(str(registered.id))
    assert app is not None
    needed = {}
    for tool, arguments in (
        ("search_vectors", {"query": "x"}),
        ("list_files", {}),
        ("read_file", {"path": "a"}),
        ("write_file", {"path": "a", "content": ""}),
        ("list_activities", {}),
        ("update_activity", {"id": "x"}),
        ("fetch_url", {"url": "http://127.0.0.1:1/"}),
    ):
        with pytest.raises(AppError) as caught:
            await Agent(home, app).use(tool, **arguments)
        assert caught.value.code == "PERMISSION_REQUIRED"
        needed[tool] = getattr(caught.value, "permission", None)
    assert needed == {
        "search_vectors": "vectors.read",
        "list_files": "agent.files",
        "read_file": "agent.files",
        "write_file": "agent.files",
        "list_activities": "activities.read",
        "update_activity": "activities.write",
        "fetch_url": "agent.fetch",
    }


# Vectors


async def ignore(_done: int, _total: int) -> None:
    """Nobody wants to know how far it is."""


async def take(agent: Agent, workspace: str, **texts: str) -> None:
    """Take texts in, by the built-in model."""
    documents = [Document(name, text) for name, text in texts.items()]
    await agent.home.ingest.ingest(agent.principal, documents, make_plan(workspace, provider="native"), ignore)


async def test_documents_are_found_by_meaning_in_the_workspace_of_the_conversation(agent: Agent) -> None:
    assert await agent.text("search_vectors", query="when is bread sold?") == "No documents are stored yet."
    await take(agent, "default", bakery="The bakery opens at seven.", garden="Beetroot likes sun.")
    await take(agent, "work", shed="The spade stands behind the shed.")
    found = await agent.use("search_vectors", query="when is bread sold?", top_k=1)
    (match,) = found.structured["matches"]
    assert (found.structured["workspace"], match["id"], match["text"]) == ("default", "bakery#0", "The bakery opens at seven.")
    assert "The bakery opens at seven." in found.content[0]["text"]
    work = await agent.use("search_vectors", query="spade", workspace="work")
    assert work.structured["workspace"] == "work", "the one of the conversation"
    elsewhere = await agent.use("search_vectors", query="spade", workspace="empty")
    assert elsewhere.structured["workspace"] == "default", "where the conversation's own has no documents"
    limited = await agent.use("search_vectors", query="bread", document_id="garden")
    assert [each["id"] for each in limited.structured["matches"]] == ["garden#0"]
    assert await agent.text("search_vectors", query="x", document_id="none") == "Nothing was found in 'default'."


async def test_a_workspace_can_be_named_and_another_owners_is_not_there(agent: Agent) -> None:
    await take(agent, "notes", a="The bakery opens at seven.")
    context = ToolContext(agent.principal, "@agent", "default", uuid4())
    found = await agent.home.tools.execute(
        agent.principal, BUILTIN_SERVER, "search_vectors", {"query": "bread", "workspace": "notes"}, context=context
    )
    assert found.structured["workspace"] == "notes"
    other = Agent(agent.home, key_principal(uuid4()))
    with pytest.raises(InvalidRequest, match="There are: none") as caught:
        await agent.home.tools.execute(
            other.principal,
            BUILTIN_SERVER,
            "search_vectors",
            {"query": "bread", "workspace": "notes"},
            context=ToolContext(other.principal, "@agent", "default", uuid4()),
        )
    assert caught.value.code == "WORKSPACE_NOT_FOUND"


# Files


async def test_files_are_written_listed_and_read_in_the_owners_folder_of_the_workspace(agent: Agent) -> None:
    assert await agent.text("list_files") == "There are no files."
    written = await agent.use("write_file", path="notes/today.md", content="Call Ada.\n")
    assert written.structured == {"files": [{"path": "notes/today.md", "size": 10, "media_type": "text/markdown"}]}
    file = await agent.home.apps.data_dir(agent.principal) / "workspaces/default/notes/today.md"
    assert file.read_text() == "Call Ada.\n"
    read = await agent.use("read_file", path="./notes/today.md")
    assert read.content[0]["text"] == "Call Ada.\n"
    await agent.use("write_file", path="b.bin", content=base64.b64encode(b"\0\1").decode(), encoding="base64")
    assert [each["path"] for each in (await agent.use("list_files")).structured["files"]] == ["b.bin", "notes/today.md"]
    assert [each["path"] for each in (await agent.use("list_files", folder="notes/")).structured["files"]] == ["notes/today.md"]
    binary = await agent.use("read_file", path="b.bin")
    assert (binary.content[0]["text"], binary.structured["encoding"]) == ("AAE=", "base64")
    assert await agent.text("list_files", workspace="work") == "There are no files."
    other = Agent(agent.home, key_principal(uuid4()))
    assert await other.text("list_files") == "There are no files."
    assert await other.code("read_file", path="notes/today.md") == "FILE_NOT_FOUND"


async def test_a_long_file_is_read_piece_by_piece(agent: Agent) -> None:
    content = "äö" * 20_000
    await agent.use("write_file", path="long", content=content)
    pieces, start = [], 0
    while True:
        read = await agent.use("read_file", path="long", start=start)
        pieces.append(read.content[0]["text"][: read.structured["end"] - start])
        start = read.structured["end"]
        assert ("read on with" in read.content[0]["text"]) is (start < len(content))
        if start == len(content):
            break
    assert "".join(pieces) == content
    assert len(pieces) == 3
    await agent.use("write_file", path="empty", content="")
    assert await agent.text("read_file", path="empty") == "(The file is empty.)"


async def test_nothing_outside_of_the_folder_is_reached(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = await agent.home.apps.data_dir(agent.principal)
    for path in ("../../secret", "/etc/passwd", "C:/x", "a/../../x", "con"):
        assert await agent.code("read_file", path=path) == "INVALID_PATH"
        assert await agent.code("write_file", path=path, content="x") == "INVALID_PATH"
    await agent.use("write_file", path="a", content="x")
    (folder / "workspaces/default/link").symlink_to(tmp_path / "secret")
    assert await agent.code("read_file", path="link") == "NOT_A_FILE"
    assert await agent.code("write_file", path="link", content="x") == "NOT_A_FILE"
    assert (tmp_path / "secret").read_text() == "secret"
    assert await agent.code("write_file", path="b", content="no base64", encoding="base64") == "VALIDATION_ERROR"
    assert await agent.code("write_file", path="b", content="\ud800") == "VALIDATION_ERROR"


async def test_many_that_write_the_same_file_leave_one_whole(agent: Agent) -> None:
    contents = [str(number) * 10_000 for number in range(8)]
    await asyncio.gather(*(agent.use("write_file", path="a", content=content) for content in contents))
    folder = await agent.home.apps.data_dir(agent.principal)
    assert (folder / "workspaces/default/a").read_text() in contents
    assert len((await agent.use("list_files")).structured["files"]) == 1


# Activities


async def test_activities_of_the_owner_are_listed_and_changed(agent: Agent) -> None:
    assert await agent.text("list_activities") == "There are no such activities."
    made = await agent.home.activities.create(agent.principal, {"subject": "Order 7", "long": "x" * 5000})
    (shown,) = (await agent.use("list_activities", status="pending")).structured["activities"]
    assert (shown["id"], shown["status"]) == (str(made.id), "pending")
    assert "Order 7" in shown["raw_data"]
    assert len(shown["raw_data"]) < 2100
    await agent.use("update_activity", id=str(made.id), status="claimed")
    done = await agent.use("update_activity", id=str(made.id), status="completed", result={"ok": True})
    assert done.structured["activity"]["result"] == '{"ok":true}'
    stored = await agent.home.activities.get(agent.principal, str(made.id))
    assert (stored.status, stored.result, stored.raw_data["subject"]) == ("completed", {"ok": True}, "Order 7")
    with pytest.raises(Conflict):
        await agent.use("update_activity", id=str(made.id), status="claimed")
    other = Agent(agent.home, key_principal(uuid4()))
    assert await other.text("list_activities") == "There are no such activities."
    with pytest.raises(NotFound):
        await other.use("update_activity", id=str(made.id), status="failed")
    assert await agent.code("update_activity", id=str(made.id), raw_data={}) == "VALIDATION_ERROR"


# The web


async def test_a_page_is_read_piece_by_piece_with_its_address_and_type(agent: Agent) -> None:
    async with web_server() as web:
        web.page("/end", "<title>Long</title><p>" + "word " * 5000, "text/html")
        found = await agent.use("fetch_url", url=web.redirect("/start", "/end"))
        text = found.content[0]["text"]
        assert text.startswith(f"Address: {web.url('/end')}\nType: text/html\nTitle: Long\n\nword word")
        assert "read on with start=16000" in text
        rest = await agent.use("fetch_url", url=web.url("/end"), start=16000)
        assert rest.structured["end"] == 24_999
        gone = await agent.use("fetch_url", url=web.page("/gone", "Gone", status="410 Gone"), method="GET")
        assert gone.is_error
        assert "HTTP status 410" in gone.content[0]["text"]


async def test_only_pages_of_the_open_web_are_read(agent: Agent) -> None:
    assert await agent.code("fetch_url", url="http://127.0.0.2:1/") == "PRIVATE_ADDRESS"
    assert await agent.code("fetch_url", url="http://169.254.169.254/latest/meta-data") == "PRIVATE_ADDRESS"
    assert await agent.code("fetch_url", url="file:///etc/passwd") == "INVALID_URL"
    assert await agent.code("fetch_url", url="http://127.0.0.1/", method="POST") == "VALIDATION_ERROR"
