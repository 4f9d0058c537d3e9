"""What a chat costs: through Homeport, through LiteLLM's own proxy, and straight to the same stand-in for a model that answers at once.

The servers under test have the first core; the stand-in shares the second with the load. What is added is the difference of two medians.
"""

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.bench.calls import Caller, Calls, Took, running_caller
from tests.bench.cores import SERVER_CORE
from tests.bench.homeport_server import Homeport, running_homeport
from tests.bench.load import Target, measure
from tests.bench.peer_environment import QUIET, peer_program
from tests.bench.peers.shapes import chat_body
from tests.bench.servers import free_port, running, running_stand_in
from tests.bench.table import Effort, Line, Measured, added_ms, ratio
from tests.bench.workers import running_worker

CLIENTS = 32
WARM_CALLS = 40
TOKENS = 50
STREAM_MODEL = f"long-{TOKENS}"
MODELS = ("echo", STREAM_MODEL)
FIRST_TOKEN = "token0 "
DONE = "data: [DONE]\n\n"
MASTER_KEY = "sk-bench"


def measure_chat(folder: Path, effort: Effort) -> list[Line]:
    """A chat: what Homeport adds to a call, and how many it handles against LiteLLM's proxy."""
    with _running_peers(folder) as (peers, caller):
        calls = {name: _calls(peer, "chat", count=effort.calls) for name, peer in peers.items()}
        p50 = {name: Measured.of([each.p50_ms for each in took]) for name, took in _in_rounds(caller, calls, effort).items()}
        targets = [Target(name, each.url, each.headers, each.bodies[0].encode()) for name, each in calls.items()]
        rates = measure(targets, folder, rounds=effort.rounds, seconds=effort.seconds, connections=CLIENTS)
    beside = f"; LiteLLM's proxy {p50['proxy'].median:.2f} ms"
    what = f"throughput with {CLIENTS} clients against LiteLLM's proxy"
    return [
        added_ms("chat", "p50 over bare aiohttp to the same upstream", p50["homeport"], p50["bare"], 1.5, beside),
        ratio("chat", what, rates["homeport"], rates["proxy"], 20),
        Line("chat", f"the upstream alone with {CLIENTS} clients", f"{rates['bare'].median:,.0f} requests/s"),
    ]


def measure_chat_stream(folder: Path, effort: Effort) -> list[Line]:
    """A stream of 50 tokens: what Homeport adds up to the first, and how many streams it handles against LiteLLM's proxy."""
    with _running_peers(folder) as (peers, caller):
        calls = {name: _calls(peer, "stream", count=effort.calls) for name, peer in peers.items()}
        first = {name: Measured.of([each.first_ms for each in took]) for name, took in _in_rounds(caller, calls, effort).items()}
        calls = {name: _calls(peer, "stream", clients=CLIENTS, seconds=effort.seconds) for name, peer in peers.items()}
        rates = {name: Measured.of([each.rate for each in took]) for name, took in _in_rounds(caller, calls, effort).items()}
    beside = f"; LiteLLM's proxy {first['proxy'].median:.2f} ms"
    what = f"streams of {TOKENS} tokens with {CLIENTS} clients against LiteLLM's proxy"
    return [
        added_ms("chat-stream", "first token over bare aiohttp to the same upstream", first["homeport"], first["bare"], 2.0, beside),
        ratio("chat-stream", what, rates["homeport"], rates["proxy"], 10, "streams/s"),
        Line("chat-stream", f"the upstream alone with {CLIENTS} clients", f"{rates['bare'].median:,.0f} streams/s"),
    ]


def measure_litellm_transport(folder: Path, effort: Effort) -> list[Line]:
    """A chat through the LiteLLM transport, for providers of other protocols: what Homeport adds to LiteLLM in process."""
    kind = "hosted_vllm"
    with running_stand_in(folder) as upstream, running_homeport(folder) as homeport, running_caller() as caller:
        homeport.add_provider("bench-litellm", "--kind", kind, "--base-url", upstream, *_model_options())
        calls = _calls(_homeport_peer(homeport, "bench-litellm"), "chat", count=effort.calls)
        arguments = (upstream, f"{kind}/echo", json.dumps(chat_body()["messages"]))
        with running_worker("tests.bench.peers.litellm_calls", *arguments, core=SERVER_CORE) as in_process:
            caller.make(replace(calls, count=WARM_CALLS))
            in_process.ask(WARM_CALLS)
            ours, theirs = [], []
            for _ in range(effort.rounds):
                ours.append(caller.make(calls).p50_ms)
                theirs.append(statistics.median(in_process.ask(effort.calls)) * 1000)
    return [added_ms("chat-litellm", "p50 over LiteLLM in process", Measured.of(ours), Measured.of(theirs), 1.0)]


Peer = dict[str, Any]


def _homeport_peer(homeport: Homeport, provider: str) -> Peer:
    body = {**chat_body(), "provider": provider}
    chat, stream = f"{homeport.base}/sdk/llm/chat", f"{homeport.base}/sdk/llm/chat/stream"
    return {"chat": chat, "stream": stream, "headers": homeport.headers, "body": body}


def _openai_peer(base_url: str, key: str) -> Peer:
    """A server that speaks OpenAI's protocol: the same request, without the nulls that this protocol does not have."""
    body = {name: value for name, value in chat_body().items() if value is not None}
    url = f"{base_url}/chat/completions"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return {"chat": url, "stream": url, "headers": headers, "body": body, "options": {"stream": True}}


def _calls(peer: Peer, operation: str, **limits: Any) -> Calls:
    if operation == "chat":
        body = {**peer["body"], "model": "echo"}
        return Calls(peer["chat"], peer["headers"], [json.dumps(body)], **limits)
    body = {**peer["body"], "model": STREAM_MODEL, **peer.get("options", {})}
    return Calls(peer["stream"], peer["headers"], [json.dumps(body)], first=FIRST_TOKEN, last=DONE, **limits)


def _in_rounds(caller: Caller, calls: dict[str, Calls], effort: Effort) -> dict[str, list[Took]]:
    """Make the calls of each peer in turn, several times, after a few that do not count."""
    for each in calls.values():
        caller.make(replace(each, count=WARM_CALLS))
    took: dict[str, list[Took]] = {name: [] for name in calls}
    for _ in range(effort.rounds):
        for name, each in calls.items():
            took[name].append(caller.make(each))
    return took


@contextmanager
def _running_peers(folder: Path) -> Iterator[tuple[dict[str, Peer], Caller]]:
    """Homeport, LiteLLM's proxy and the upstream itself, all on the same upstream, and who calls them."""
    with (
        running_stand_in(folder) as upstream,
        running_homeport(folder) as homeport,
        _proxy(folder, upstream) as proxy,
        running_caller() as caller,
    ):
        homeport.add_provider("bench", "--base-url", upstream, *_model_options())
        peers = {"homeport": _homeport_peer(homeport, "bench"), "proxy": proxy, "bare": _openai_peer(upstream, "unused")}
        yield peers, caller


def _model_options() -> list[str]:
    return [part for model in MODELS for part in ("--model", model)]


@contextmanager
def _proxy(folder: Path, upstream: str) -> Iterator[Peer]:
    """LiteLLM's proxy, configured as its documentation says for a server that speaks OpenAI's protocol."""
    parameters = {"api_base": upstream, "api_key": "unused"}
    config = {
        "model_list": [{"model_name": model, "litellm_params": {"model": f"openai/{model}", **parameters}} for model in MODELS],
        "general_settings": {"master_key": MASTER_KEY},
        "litellm_settings": {"telemetry": False},
    }
    file = folder / "proxy.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    options = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    command = [peer_program("litellm"), *options]
    with running(command, f"http://127.0.0.1:{port}/health/liveliness", folder / "proxy.log", QUIET):
        yield _openai_peer(f"http://127.0.0.1:{port}/v1", MASTER_KEY)
