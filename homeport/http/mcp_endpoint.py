"""``/mcp``: the contract's tools (``x-mcp``) for clients of the Model Context Protocol, in both of its generations.

The protocol is the mcp library's: a request arrives here admitted and validated like any other, and its message is handed to the
library's own streamable HTTP server. That one keeps no sessions and answers in JSON, so any server process can answer any message, and what
works for a request ends with it. A tool call runs its operation as the same caller (``inner_calls``).

The library takes some 30 MB and half a second to import, so that happens with the first message.
"""

import asyncio
import base64
import gc
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from homeport.contract import Contract, Operation
from homeport.contract.tools import Tool
from homeport.errors import AppError, InternalError, PermissionMissing
from homeport.http.exchange import exchange_of
from homeport.http.inner_calls import Answer, Run, body_once, call_operation
from homeport.http.rendering import tell
from homeport.identity import Principal
from homeport.replies import Reply

if TYPE_CHECKING:
    from mcp import types
    from mcp.server.lowlevel import Server

log = structlog.get_logger(__name__)

_CALLER_KEY = "homeport.caller"
_INSTRUCTIONS = (
    "The tools of a Homeport server: language models, embeddings, vectors, activities and more. Listed are those that the caller's "
    "permissions allow. What is stored belongs to the caller and is seen by nobody else."
)


@dataclass(frozen=True, slots=True)
class _Caller:
    """The request that brought a message, and the way to run operations for it."""

    scope: Any
    run: Run


class McpEndpoint:
    """Answers messages of the protocol for one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._server: Server[Any] | None = None

    async def answer(self, message: Mapping[str, Any], scope: Any, run: Run) -> Reply:
        """The answer to one message of the caller whose request's ASGI scope this is."""
        if self._server is None:
            self._server = await asyncio.to_thread(_build_server, self._contract)
            # Another 50 000 objects for good: see what the start of the application does about its own.
            gc.freeze()
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        answer = Answer()
        inner = _inner_scope(scope, _Caller(scope, run))
        # One for each request: whatever works for it ends before this returns, cancelled when the client leaves. Sizes are bounded already.
        manager = StreamableHTTPSessionManager(self._server, json_response=True, stateless=True, max_request_body_size=sys.maxsize)
        async with manager.run():
            await manager.handle_request(inner, body_once(orjson.dumps(message)), answer.take)
        if answer.status >= 500:
            raise InternalError
        return Reply(answer.body or None, status=answer.status, media_type=answer.media_type)


def _inner_scope(scope: Any, caller: _Caller) -> dict[str, Any]:
    """The request as the library is to see it: what the protocol says about the message, and nothing that was decided already."""
    headers = [(name, value) for name, value in exchange_of(scope).headers.items() if name.startswith(b"mcp-")]
    return {
        "type": "http",
        "method": "POST",
        "path": scope["path"],
        "query_string": b"",
        "headers": [*headers, (b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")],
        _CALLER_KEY: caller,
    }


def _build_server(contract: Contract) -> "Server[Any]":
    """The library's server with the contract's tools. Imports the library."""
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.shared.exceptions import MCPError

    info = contract.bundle.document["info"]
    listed = [(operation, _describe(tool)) for tool, operation in contract.tools.values()]

    async def list_tools(context: Any, _: Any) -> types.ListToolsResult:
        principal = exchange_of(context.request.scope[_CALLER_KEY].scope).principal
        return types.ListToolsResult(tools=[tool for operation, tool in listed if _may(principal, operation)])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        found = contract.tools.get(params.name)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"There is no tool '{params.name[:100]}'; tools/list names those that there are.")
        return await _call(*found, params.arguments or {}, context.request.scope[_CALLER_KEY])

    return Server(
        "homeport",
        title=info["title"],
        version=info["version"],
        instructions=_INSTRUCTIONS,
        # No argument of a tool is mirrored in a header, so there is nothing to look up for one.
        get_tool_input_schema=lambda _: None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _may(principal: Principal | None, operation: Operation) -> bool:
    """Whether the caller holds what the operation needs."""
    return operation.permission is None or (principal is not None and principal.decide(operation.permission) == "granted")


def _describe(tool: Tool) -> "types.Tool":
    from mcp import types

    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        annotations=types.ToolAnnotations(
            read_only_hint=tool.is_read_only, destructive_hint=tool.is_destructive, idempotent_hint=tool.is_idempotent
        ),
    )


async def _call(tool: Tool, operation: Operation, arguments: dict[str, Any], caller: _Caller) -> "types.CallToolResult":
    """Run the operation and say what came of it; what went wrong is a result, too, because a model can do something about it."""
    started, status = time.perf_counter(), 499
    try:
        answer = await call_operation(operation, tool.place(arguments), caller.scope, caller.run)
        status = answer.status
        return _result(answer)
    except Exception as error:  # noqa: BLE001 it is logged by tell()
        told = tell(error)
        status = told.status
        return _refusal(told, exchange_of(caller.scope).principal)
    finally:
        took_ms = round((time.perf_counter() - started) * 1000, 2)
        log.info("tool call", tool=tool.name, operation=operation.id, status=status, ms=took_ms)


def _result(answer: Answer) -> "types.CallToolResult":
    from mcp import types

    if answer.media_type.startswith("audio/"):
        audio = types.AudioContent(type="audio", data=base64.b64encode(answer.body).decode(), mime_type=answer.media_type.partition(";")[0])
        return types.CallToolResult(content=[audio])
    said = orjson.loads(answer.body) if answer.body else None
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=answer.body.decode())] if answer.body else [],
        structured_content=said if isinstance(said, dict) and answer.status < 400 else None,
        is_error=answer.status >= 400,
    )


def _refusal(error: AppError, principal: Principal | None) -> "types.CallToolResult":
    from mcp import types

    lines = [error.message, f"Code: {error.code}"]
    if isinstance(error, PermissionMissing):
        lines += [f"Permission: {error.permission}", _what_to_do(error.permission, principal)]
    return types.CallToolResult(content=[types.TextContent(type="text", text="\n".join(lines))], is_error=True)


def _what_to_do(permission: str, principal: Principal | None) -> str:
    """How a caller comes by a permission that it lacks."""
    if principal is not None and principal.kind == "key":
        return f"The scopes of an API key are fixed. One that has this: homeport keys create NAME --scope {permission}"
    return f"The app may ask for it (POST /api/local-apps/request-permission), or a person grants it: homeport apps grant APP {permission}"
