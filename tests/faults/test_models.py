"""A model server that is down, breaks HTTP, or answers without end. What breaks only OpenAI's protocol is in the transports' own tests."""

import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, eventually
from tests.faults.bad_model import BadModel, run_bad_model
from tests.faults.parts import Peak, events_of
from tests.faults.table import Row

PATIENCE_S = 3
# On a machine that does other things as well.
LATE_S = 20.0
MOST_MB = 250
# What each is told: whole, and in a stream. None: it is taken for an answer.
BAD, SLOW, DOWN = "502 LLM_ERROR", "504 LLM_ERROR", "503 PROVIDER_UNAVAILABLE"
TOLD: dict[str, tuple[str | None, str | None]] = {
    "down": (DOWN, DOWN),
    "endless-headers": (BAD, BAD),
    "endless-header": (BAD, BAD),
    "endless-continue": (SLOW, SLOW),
    "slow-header": (SLOW, SLOW),
    "silent": (SLOW, SLOW),
    "token": (None, BAD),
    "not-utf8": (BAD, BAD),
    "half": (BAD, "LLM_STREAM_ERROR"),
    "bomb": (BAD, BAD),
    "picture": (None, None),
    "garbage": (BAD, BAD),
}
SHORT = {"down", "silent", "half", "bomb"}


@pytest.fixture(scope="module")
def bad_model(admin: Admin) -> Iterator[BadModel]:
    """A provider for each way to be bad, with which the server has little patience."""
    with run_bad_model() as model:
        for how in TOLD:
            base_url = "http://127.0.0.1:9/v1" if how == "down" else model.base_url(how)
            admin.call("POST", "/model-providers", {"name": how, "base_url": base_url, "models": ["m"], "kind": "openai"})
            admin.call("PUT", f"/model-providers/{how}/limits", {"timeout_s": PATIENCE_S, "retries": 0})
        yield model
        for how in TOLD:
            admin.call("DELETE", f"/model-providers/{how}")


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in SHORT else pytest.mark.long) for how in TOLD])
def test_a_model_server_that_breaks_http(server: Server, admin: Admin, bad_model: BadModel, row: Row, how: str) -> None:
    row.fault(
        f"A model server: {how}",
        done="It is asked for a chat, whole and as a stream.",
        promised=f"An error that says who failed, within {PATIENCE_S} s (a stream: in band once it has begun); bounded memory; no "
        "connection is left.",
    )
    told: list[str | None] = []
    took: list[float] = []
    with Peak(psutil.Process(server.process.pid)) as peak:
        for path in ("/sdk/llm/chat", "/sdk/llm/chat/stream"):
            began_at = time.monotonic()
            body = {"messages": [{"role": "user", "content": "Hello"}], "provider": how, "model": "m"}
            answer = admin.http.post(path, json=body, timeout=PROCESS_TIMEOUT_S)
            took.append(time.monotonic() - began_at)
            told.append(_code_of(answer))
    row.happened(
        f"{told[0] or 'answered'} after {took[0]:.1f} s, {told[1] or 'answered'} after {took[1]:.1f} s;", f"at most {peak.grown:.0f} MB."
    )
    assert tuple(told) == TOLD[how]
    assert max(took) < PATIENCE_S + LATE_S
    assert peak.grown < MOST_MB
    eventually(lambda: len(bad_model.open), lambda count: count == 0)
    assert admin.http.get("/sdk/ping").status_code == 200


def _code_of(answer: httpx.Response) -> str | None:
    """The code of an error; None when it is an answer."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        *_, (_, last) = events_of(answer)
        return None if last == "[DONE]" else str(last["code"])
    assert answer.headers["content-type"].startswith("application/json")
    assert "SECRET" not in answer.text
    return None if answer.is_success else f"{answer.status_code} {answer.json()['code']}"
