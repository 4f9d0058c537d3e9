"""A server of our own with mcp's current server, whose tools do what servers may do: work, be slow, ask back, misbehave, die.

``python own.py`` speaks over standard input and output. ``python own.py http`` and ``sse`` serve on a free port of 127.0.0.1 and print
the URL; ``old`` before either refuses the newest protocol, as servers of 2025 do.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ImageContent,
    InputRequiredResult,
    SamplingMessage,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel

PIXEL = b"GIF89a\x01\x00\x01\x00\x00\xff\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x00;"

server = MCPServer("own", log_level="ERROR")
_cancelled: list[str] = []


class Point(BaseModel):
    """What ``move`` gives and takes."""

    x: int
    y: int


@server.tool(title="Echo", annotations=ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True))
def echo(text: str) -> str:
    """Say the same."""
    return text


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def move(point: Point, by: int) -> Point:
    """Move a point."""
    return Point(x=point.x + by, y=point.y + by)


@server.tool(name="files/read.v2")
def read_file(path: str) -> str:
    """A name with a slash and a dot."""
    return f"content of {path}"


@server.tool()
def picture() -> list[ImageContent | TextContent]:
    """Blocks of content of several kinds."""
    return [ImageContent(data=b64encode(PIXEL).decode(), mime_type="image/gif"), TextContent(text="a pixel")]


@server.tool()
def fail() -> str:
    """A tool that fails."""
    raise ValueError("it did not work")


@server.tool()
async def slow(seconds: float, name: str = "") -> str:
    """Take a while; note when it is cancelled."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        _cancelled.append(name)
        raise
    return "done"


@server.tool()
def cancelled() -> list[str]:
    """The names of the slow calls that were cancelled."""
    return _cancelled


@server.tool()
async def progress(steps: int, step_s: float, ctx: Context) -> str:
    """Tell of progress."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps, f"step {step + 1}")
        await asyncio.sleep(step_s)
    return "done"


@server.tool()
def crash() -> str:
    """End as a crash does, in the middle of the call."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool()
def leave(status: int) -> str:
    """End without an answer."""
    os._exit(status)


@server.tool(structured_output=False)
def huge(megabytes: int) -> str:
    """A large result."""
    return "x" * (megabytes * 1024 * 1024)


@server.tool()
def environment() -> dict[str, str]:
    """The environment of the server."""
    return dict(os.environ)


@server.tool()
def working_directory() -> str:
    """Where the server runs."""
    return os.getcwd()


@server.tool()
def complain(text: str) -> str:
    """Write to standard error."""
    print(text, file=sys.stderr, flush=True)
    return "said"


@server.tool()
def start_child(detached: bool) -> int:
    """Start a process that outlives the server if nobody ends it; in a group of its own when detached."""
    command = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    return subprocess.Popen(command, start_new_session=detached, stdin=subprocess.DEVNULL).pid


@server.tool()
async def learn(name: str, ctx: Context) -> str:
    """Get a further tool and say so."""
    server.add_tool(lambda: name, name=name, description="A further tool.")
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "learned"


@server.tool()
async def ask(ctx: Context) -> str:
    """Ask the user something, in the way of the older protocol."""
    answer = await ctx.elicit("Your name?", Point)
    return answer.action


@server.tool()
async def ask_in_result() -> InputRequiredResult:
    """Ask the user something, in the way of the newer protocol."""
    params = ElicitRequestFormParams(message="Your name?", requested_schema={"type": "object", "properties": {}})
    return InputRequiredResult(input_requests={"name": ElicitRequest(params=params)}, request_state="waiting")


@server.tool()
async def ask_model(ctx: Context) -> Any:
    """Ask the client's model something."""
    message = SamplingMessage(role="user", content=TextContent(text="Hello"))
    return await ctx.session.create_message(**CreateMessageRequestParams(messages=[message], max_tokens=5).model_dump(exclude_none=True))


def serve(kind: str, port: int) -> None:
    """Serve over HTTP until the process is ended."""
    listener = socket.create_server(("127.0.0.1", port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/{'mcp' if kind == 'http' else 'sse'}"
    app = server.streamable_http_app() if kind == "http" else server.sse_app()
    print(url, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)).run(sockets=[listener])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    else:
        server.run()
