"""A stand-in for a model server: speaks OpenAI's protocol over real HTTP, is deterministic, and misbehaves on demand.

``python -m contract.upstream --port 0`` prints its base URL and serves until it is stopped. The model's name chooses what happens
(``BEHAVIOURS``); a number after a dash is its argument: ``slow-0.2`` waits 0.2 seconds, ``long-50`` answers with 50 tokens. Each of them
can be asked for embeddings or speech, too; those that do nothing else are in ``EMBEDDERS`` and ``SPEAKERS``: ``embed-384`` makes vectors
of 384 numbers. ``script`` does what the user's message says, tool calls included (``contract.scripts`` has the language; ``script-notools``
refuses tools, ``script-noid`` and others write their calls in other ways), and ``instant`` gives one fixed answer as fast as it can. Speech
can also be asked for as Azure, ElevenLabs, Gemini and Mistral have it.
``/fault/<model>/v1`` is a base URL whose list of models misbehaves in the same way. ``GET /stand-in/state`` tells how many requests are
open, finished and cancelled (the client left before the end), how many were open at once, and the last request; ``DELETE`` starts the
counting afresh.

It is also what benchmarks run against, so the good path does as little as possible.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Annotated, Any

import orjson
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from contract.answers import echo_of
from contract.behaviours import BEHAVIOURS, echo, find_behaviour
from contract.embedders import EMBEDDERS, vector_of
from contract.exchange import ClientLeft, Cut, Exchange
from contract.speakers import SPEAKERS, spoken_s

OTHER_MODELS = ("text-embedding-3-small", "tts-1", "whisper-1")

__all__ = [
    "BEHAVIOURS",
    "EMBEDDERS",
    "OTHER_MODELS",
    "SPEAKERS",
    "RunningUpstream",
    "State",
    "create_app",
    "echo",
    "echo_of",
    "serve_in_thread",
    "spoken_s",
    "vector_of",
]


@dataclass(slots=True)
class State:
    """What has happened to requests for chats, embeddings and speech so far."""

    open: int = 0
    most_open: int = 0
    finished: int = 0
    cancelled: int = 0
    last_request: dict[str, Any] = field(default_factory=dict)
    last_headers: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The counters and the last request, as ``GET /stand-in/state`` shows them."""
        return {
            "open": self.open,
            "most_open": self.most_open,
            "finished": self.finished,
            "cancelled": self.cancelled,
            "last_request": self.last_request,
            "last_headers": self.last_headers,
        }


class Calls:
    """``POST`` to a model as an ASGI application, so that a client that leaves is noticed and a connection can be cut."""

    def __init__(self, state: State, *names_in_path: str) -> None:
        self._state = state
        self._names_in_path = names_in_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        request = {**orjson.loads(body + message.get("body", b"")), **self._told_by(scope["path_params"])}
        state = self._state
        state.last_request = request
        state.last_headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        state.open += 1
        state.most_open = max(state.most_open, state.open)
        try:
            exchange = Exchange(request, receive, send)
            await find_behaviour(exchange)(exchange)
            state.finished += 1
        except ClientLeft:
            state.cancelled += 1
        except Cut:
            state.finished += 1  # returning without the last part makes the server drop the connection
        finally:
            state.open -= 1

    def _told_by(self, path: dict[str, str]) -> dict[str, str]:
        """What other protocols name in the address: Gemini the model, ElevenLabs the voice."""
        return {name: value for name, value in path.items() if name in self._names_in_path}


class Models:
    """``GET /v1/models``: the behaviours' names, and some models that cannot chat. Below a model that only speaks: that one alone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = scope["path_params"].get("model", "")
        is_voice = model.partition("-")[0] in SPEAKERS
        names = [model] if is_voice else [*BEHAVIOURS, *OTHER_MODELS]
        value = {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "stand-in"} for name in names]}
        exchange = Exchange({"model": model}, receive, send)
        try:
            await (find_behaviour(exchange)(exchange) if model and not is_voice else exchange.answer(200, value))
        except (ClientLeft, Cut):
            return


def create_app(state: State | None = None) -> Starlette:
    """The stand-in as an ASGI application."""
    counted = State() if state is None else state

    async def show_state(request: Request) -> Response:
        if request.method == "DELETE":
            counted.finished = counted.cancelled = counted.most_open = 0
        return Response(orjson.dumps(counted.as_json()), media_type="application/json")

    return Starlette(
        routes=[
            Route("/v1/chat/completions", Calls(counted), methods=["POST"]),
            Route("/v1/embeddings", Calls(counted), methods=["POST"]),
            Route("/v1/audio/speech", Calls(counted), methods=["POST"]),
            Route("/v1/text-to-speech/{voice}", Calls(counted, "voice"), methods=["POST"]),
            Route("/openai/deployments/{model}/audio/speech", Calls(counted), methods=["POST"]),
            Route("/v1/models/{model}:generateContent", Calls(counted, "model"), methods=["POST"]),
            Route("/v1/models", Models()),
            Route("/fault/{model}/v1/models", Models()),
            Route("/fault/{model}/v1/chat/completions", Calls(counted), methods=["POST"]),
            Route("/fault/{model}/v1/embeddings", Calls(counted), methods=["POST"]),
            Route("/fault/{model}/v1/audio/speech", Calls(counted), methods=["POST"]),
            Route("/stand-in/state", show_state, methods=["GET", "DELETE"]),
        ]
    )


@dataclass(frozen=True, slots=True)
class RunningUpstream:
    """A stand-in that serves. ``url`` has no path; ``base_url`` is what a client is configured with."""

    url: str
    state: State

    @property
    def base_url(self) -> str:
        """The base URL of the protocol, ending in ``/v1``."""
        return f"{self.url}/v1"

    def fault_url(self, model: str) -> str:
        """A base URL whose list of models behaves as ``model`` does."""
        return f"{self.url}/fault/{model}/v1"


@contextmanager
def serve_in_thread() -> Iterator[RunningUpstream]:
    """Serve on a free loopback port, in a thread of its own, for as long as the block runs."""
    state = State()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(_config(create_app(state)))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield RunningUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}", state)
        finally:
            server.should_exit = server.force_exit = True
            thread.join(5)


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1)


def main(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve until stopped; print the base URL first."""
    with socket.create_server((host, port)) as listener:
        print(f"http://{host}:{listener.getsockname()[1]}/v1", flush=True)
        uvicorn.Server(_config(create_app())).run(sockets=[listener])


if __name__ == "__main__":
    typer.run(main)
