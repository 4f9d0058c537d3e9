"""How the run treats agents: those that it talks with stay as they are, so that they answer; and what is drawn is steered to a session and
a run that are there. What is meant to be wrong stays wrong."""

import os
from collections.abc import Callable
from itertools import count
from typing import Any
from zlib import crc32

from schemathesis import Case

from homeport.ids import parse_uuid

Json = dict[str, Any]

# The agent that sessions are with, the one that the document's examples name, and those that may be removed.
DEFAULT_AGENT = "@agent"
AGENT = "note-keeper"
SPARE_AGENTS = tuple(f"spare-agent-{number}" for number in range(4))
SPARE_SESSIONS = 20
# The session that the examples name.
EXAMPLE = "0190b4aa-1c2d-7e3f-8a4b-5c6d7e8f9a0b"
STREAM = "local_apps.agent_sessions.stream_message"
# Whom the agents of the run ask, and what they may use: drawn servers lead nowhere, and each is waited for.
ASKED = {"provider": "openai", "model": "echo"}
TOOLS = "time/*"

_removed = count()
_closed = count()


def make_agents(send: Callable[..., Any]) -> str:
    """Make agents, sessions of the developer, and a run. Returns the ids of the run and of the sessions, for CONTRACT_AGENTS."""
    for slug in (AGENT, *SPARE_AGENTS):
        send("POST", "/admin/v1/agents", {"display_name": slug, "slug": slug})
    sessions = [send("POST", "/sdk/agent/session", {})["session"]["session_id"] for _ in range(1 + SPARE_SESSIONS)]
    run_id = send("POST", f"/sdk/agent/session/{sessions[0]}/chat", {"message": "hello"})["response"]["id"]
    return " ".join([run_id, *sessions])


def keep_agents(case: Case[Any], operation: str, *, is_right: bool) -> None:
    """Change a request to an operation on agents before it is sent. ``is_right``: its body is what the operation takes."""
    names, body = case.path_parameters, case.body
    run_id, session_id, *spare = os.environ["CONTRACT_AGENTS"].split()
    if operation in {"update_agent", "remove_agent"} and names.get("agent") == DEFAULT_AGENT and _is_mostly(case):
        names["agent"] = AGENT
    if operation == "remove_agent" and names.get("agent") == AGENT:
        names["agent"] = SPARE_AGENTS[next(_removed) % len(SPARE_AGENTS)]
    if operation in {"create_agent", "update_agent"} and is_right and isinstance(body, dict):
        case.body = _answering(body)
    if _is_drawn(names.get("session_id")) and _is_mostly(case):
        names["session_id"] = session_id
    if operation == "close_session" and names.get("session_id") == session_id:
        names["session_id"] = spare[next(_closed) % len(spare)]
    if operation in {"get_run", "cancel_run"} and _is_mostly(case):
        names["run_id"] = run_id


def check_agent_stream(said: list[Json]) -> None:
    """One run's frames, of which the last one is the answer or an error."""
    *before, last = said
    assert len({each["id"] for each in said}) == 1, "The frames are not of one run"
    assert "error" not in {each["type"] for each in before}, "The stream went on after an error"
    assert last["type"] in {"textResponse", "error"}, f"The stream broke off after {last!r}"
    # Nobody but the server itself makes this one: it is what a 500 would have been.
    assert last.get("code") != "INTERNAL_ERROR", f"The server failed in the stream: {last}"


def _answering(body: Json) -> Json:
    """An agent that asks the stand-in, if it says whom to ask, and has tools of the run."""
    changes = {name: ASKED[name] for name in ASKED if body.get(name) is not None}
    return body | changes | ({"tools": [TOOLS]} if body.get("tools") else {})


def _is_drawn(session_id: Any) -> bool:
    """Whether this could be the id of a session, but is none: not one that a link has led to."""
    if not isinstance(session_id, str) or not 1 <= len(session_id) <= 200:
        return False
    return session_id == EXAMPLE or parse_uuid(session_id) is None


def _is_mostly(case: Case[Any]) -> bool:
    """True in three of four cases."""
    return bool(crc32(repr((case.path_parameters, case.body)).encode(errors="replace")) % 4)
