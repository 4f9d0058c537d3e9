"""Conversations with agents: /sdk/agent/session…"""

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import orjson

from homeport.agents import Answer, Block, Chunk, RunStream, Session, Step, Thought
from homeport.clock import format_time
from homeport.errors import AppError
from homeport.home import Home
from homeport.identity import Principal
from homeport.replies import EventStream, Frames

KEEP_ALIVE = b": keep-alive\n\n"


async def create_session(home: Home, principal: Principal, body: dict[str, Any] | None) -> dict[str, Any]:
    """Begin a conversation."""
    named = body or {}
    session = await home.sessions.create(
        principal, workspace=named.get("workspace_slug"), thread=named.get("thread_slug"), agent=named.get("agent_name")
    )
    return await _session(home, session)


async def get_session(home: Home, principal: Principal, session_id: str) -> dict[str, Any]:
    """Return a conversation that is open."""
    return await _session(home, await home.sessions.get(principal, session_id))


async def close_session(home: Home, principal: Principal, session_id: str) -> dict[str, Any]:
    """End a conversation."""
    return await _session(home, await home.sessions.close(principal, session_id))


async def send_message(home: Home, principal: Principal, session_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """Have the agent answer."""
    answer = await home.runs.answer(principal, session_id, body["message"])
    response = {
        "id": str(answer.run_id),
        "session_id": str(answer.session_id),
        "text": answer.text,
        "thoughts": list(answer.thoughts),
        "message_count": answer.message_count,
        "blocks": [_block(block) for block in answer.blocks],
    }
    return {"success": True, "response": response}


async def stream_message(home: Home, principal: Principal, session_id: str, body: dict[str, Any]) -> EventStream:
    """Have the agent answer, and tell what it does."""
    options = {"goes_on": bool(body.get("continue_on_disconnect")), "in_chunks": bool(body.get("stream_chunks"))}
    stream = await home.runs.stream(principal, session_id, body["message"], **options)
    try:
        # What fails before there is anything to tell is an ordinary error.
        first = await anext(stream)
    except BaseException:
        await stream.aclose()
        raise
    return EventStream(Frames(_frames(first, stream), stream), error_frame=lambda error: _error_frame(stream.run_id, error))


async def _frames(first: Step, stream: RunStream) -> AsyncGenerator[bytes]:
    """Frames without a name: the clients that read them pass names over, and take ``[DONE]`` for broken JSON."""
    yield _frame(stream.run_id, first)
    async for step in stream:
        yield _frame(stream.run_id, step)


def _frame(run_id: UUID, step: Step) -> bytes:
    match step:
        case Thought(text):
            return _event(run_id, "agentThought", thought=text)
        case Chunk(text):
            return _event(run_id, "textResponseChunk", textResponse=text)
        case Block():
            return _event(run_id, "textResponse", textResponse=orjson.dumps(_block(step)).decode())
        case Answer():
            return _event(run_id, "textResponse", textResponse=step.text)
        case _:
            return KEEP_ALIVE


def _error_frame(run_id: UUID, error: AppError) -> bytes:
    return _event(run_id, "error", error=error.message, code=error.code)


def _event(run_id: UUID, kind: str, **said: str) -> bytes:
    return b"data: %b\n\n" % orjson.dumps({"id": str(run_id), "type": kind, **said})


def _block(block: Block) -> dict[str, Any]:
    return {"dataType": block.data_type, "data": dict(block.data)}


async def _session(home: Home, session: Session) -> dict[str, Any]:
    provider, model = await home.sessions.model_of(session) or (None, None)
    shown: dict[str, Any] = {
        "session_id": str(session.id),
        "workspace": {"slug": session.workspace, "name": session.workspace_name},
        "thread": None if session.thread is None else {"slug": session.thread, "name": session.thread_name},
        "agent": {"name": session.agent.slug, "provider": provider, "model": model},
        "created_at": format_time(session.created_at),
        "message_count": session.message_count,
    }
    if session.last_message_at is not None:
        shown["last_message_at"] = format_time(session.last_message_at)
    return {"success": True, "session": shown}
