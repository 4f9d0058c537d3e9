"""How the run treats approvals: an agent asks for some before it begins, and what is drawn is steered to those. What is meant to be wrong
stays wrong."""

import json
import os
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

import httpx
from schemathesis import Case

from homeport.ids import parse_uuid

Json = dict[str, Any]

ASKING = "asking"
COUNT = 8
WAIT_S = 10.0


def make_approvals(send: Callable[..., Any], http: httpx.Client) -> str:
    """Have an agent of the developer's ask for calls of a tool, and wait. Returns the ids of the approvals, for CONTRACT_APPROVALS."""
    agent = {"display_name": "Asking", "slug": ASKING, "provider": "openai", "model": "script", "tools": ["homeport/list_files"]}
    send("POST", "/admin/v1/agents", agent | {"limits": {"approval_s": 7200}})
    rule = {"subject": f"agent:{ASKING}", "server": "homeport", "tool": "list_files", "decision": "ask"}
    send("PUT", "/admin/v1/tool-rules", rule)
    session = send("POST", "/sdk/agent/session", {"agent_name": ASKING})["session"]["session_id"]
    steps = [{"call": [{"tool": "list_files", "arguments": {}, "times": COUNT}]}, {"say": "done"}]
    message = {"message": f"script: {json.dumps(steps)}", "continue_on_disconnect": True}
    with http.stream("POST", f"/sdk/agent/session/{session}/chat/stream", json=message) as answer:
        answer.raise_for_status()
        asked = _wait(send)
    return " ".join(asked)


def keep_approvals(case: Case[Any], operation: str, *, is_right: bool) -> None:
    """Change a request to an operation on approvals before it is sent. ``is_right``: its body is what the operation takes."""
    ids = os.environ["CONTRACT_APPROVALS"].split()
    number = crc32(repr((case.path_parameters, case.body)).encode(errors="replace"))
    drawn = case.path_parameters.get("approval_id")
    if isinstance(drawn, str) and parse_uuid(drawn) is not None and number % 4:
        case.path_parameters["approval_id"] = ids[number % len(ids)]
    # The agent works for a key, for which nothing can be remembered.
    if operation == "decide_approval" and is_right and isinstance(case.body, dict):
        case.body = {name: value for name, value in case.body.items() if name != "remember"}


def _wait(send: Callable[..., Any]) -> list[str]:
    give_up_at = time.monotonic() + WAIT_S
    while True:
        asked = [each["id"] for each in send("GET", "/admin/v1/approvals?state=pending")["items"]]
        if len(asked) == COUNT:
            return asked
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the agent asks for {len(asked)} of {COUNT} calls")
        time.sleep(0.05)
