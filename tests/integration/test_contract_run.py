"""The contract run finds what is wrong: with its own settings and checks it is let loose on a server of which each operation breaks one
promise, and on the same one when it keeps them all."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from contract.__main__ import CONFIG
from contract.callers import ANONYMOUS, APP, DEVELOPER, STRANGER
from contract.server import ROOT

Json = dict[str, Any]

RUN_S = 240
KEYS = {DEVELOPER: "key-of-the-developer", APP: "key-of-the-app", STRANGER: "key-of-the-stranger"}
PROBLEM = {"success": False, "error": "No.", "code": "NO", "permission": "things.read"}


class Things:
    """A small server for things. ``broken`` names the promises that it breaks."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.things: dict[str, tuple[str, Json]] = {}

    def app(self) -> Starlette:
        """The server as an ASGI application."""
        routes = [
            Route("/things", self.create, methods=["POST"]),
            Route("/things/{id}", self.thing, methods=["GET", "DELETE"]),
            Route("/stream", self.stream, methods=["POST"]),
            Route("/public", self.public, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={405: _not_allowed})

    def refusal(self, request: Request) -> Response | None:
        """401 for who is not known, 403 for the app without grants."""
        caller = next((name for name, key in KEYS.items() if request.headers.get("authorization") == f"Bearer {key}"), None)
        if caller is None and "auth" not in self.broken:
            headers = {} if "challenge" in self.broken else {"WWW-Authenticate": "Bearer"}
            return JSONResponse(PROBLEM, 401, headers=headers)
        return JSONResponse(PROBLEM, 403) if caller == STRANGER and "permission" not in self.broken else None

    async def create(self, request: Request) -> Response:
        """Store a thing."""
        if refused := self.refusal(request):
            return refused
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            body = None
        name = body.get("name") if isinstance(body, dict) else None
        is_right = isinstance(name, str) and re.fullmatch("[a-z ]{1,20}", name)
        if not is_right and "negative" not in self.broken:
            return JSONResponse(PROBLEM, 400)
        thing = {"id": str(uuid4()), "name": str(name)}
        if "lost" not in self.broken:
            self.things[thing["id"]] = (request.headers.get("authorization", ""), thing)
        return JSONResponse(thing, 201, headers={"Location": f"/things/{thing['id']}"})

    async def thing(self, request: Request) -> Response:
        """Give a thing to the one who has made it; remove it when that is asked."""
        if refused := self.refusal(request):
            return refused
        is_removal = request.method == "DELETE"
        owner, thing = self.things.get(request.path_params["id"], ("", None))
        is_strangers = owner != request.headers.get("authorization") and ("owner" not in self.broken or is_removal)
        if thing is None or is_strangers:
            return JSONResponse(PROBLEM, 404)
        if is_removal and "delete" not in self.broken:
            del self.things[thing["id"]]
        return JSONResponse(thing | {"id": 5} if "schema" in self.broken else thing)

    async def stream(self, request: Request) -> Response:
        """Two events, and the end."""
        if refused := self.refusal(request):
            return refused
        if "positive" in self.broken:
            return JSONResponse(PROBLEM, 400)
        pieces: list[Any] = [{"text": "a", "close": False}, {"text": "b", "close": True}]
        if "event" in self.broken:
            pieces[0]["text"] = 5
        data = [orjson.dumps(each).decode() for each in pieces] + ([] if "end" in self.broken else ["[DONE]"])
        return StreamingResponse(iter([f"data: {each}\n\n" for each in data]), media_type="text/event-stream")

    async def public(self, request: Request) -> Response:
        """What anybody may see."""
        if "crash" in self.broken:
            return JSONResponse(PROBLEM, 500)
        if "type" in self.broken:
            return Response("{}", media_type="text/plain")
        return JSONResponse({}, 202 if "status" in self.broken else 200)


async def _not_allowed(request: Request, error: Any) -> Response:
    return JSONResponse(PROBLEM, 405, headers=error.headers)


def answer(schema: str, media_type: str = "application/json", **members: Any) -> Json:
    return {"description": schema, "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}, **members}


def operation(name: str, success: Json, **members: Any) -> Json:
    refused = answer("Refusal")
    own = {
        "operationId": f"local_apps.probe.{name}",
        "x-permission": "things.read",
        "security": [{"key": []}, {"appId": []}],
        "responses": success | dict.fromkeys(("400", "401", "403", "404"), refused),
    }
    return own | members


ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
LINKS = {
    name: {"operationId": f"local_apps.probe.{name}", "parameters": {"id": "$response.body#/id"}} for name in ("get_thing", "delete_thing")
}
DOCUMENT: Json = {
    "openapi": "3.0.3",
    "info": {"title": "things", "version": "1"},
    "paths": {
        "/things": {
            "post": operation(
                "create_thing",
                {"201": answer("Thing", links=LINKS)},
                requestBody={"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Draft"}}}},
            )
        },
        "/things/{id}": {
            "get": operation("get_thing", {"200": answer("Thing")}, parameters=[ID]),
            "delete": operation("delete_thing", {"200": answer("Thing")}, parameters=[ID]),
        },
        "/stream": {
            "post": operation(
                "stream_text", {"200": answer("Event", "text/event-stream")}, **{"x-stream-event": {"$ref": "#/components/schemas/Piece"}}
            )
        },
        "/public": {
            "get": operation("show_public", {"200": answer("Anything")}, security=[], **{"x-permission": "none"}),
        },
    },
    "components": {
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}, "appId": {"type": "apiKey", "in": "header", "name": "X-App-Id"}},
        "schemas": {
            "Anything": {"type": "object"},
            "Refusal": {"type": "object", "required": ["code"]},
            "Draft": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z ]+$"}},
            },
            "Thing": {
                "type": "object",
                "required": ["id", "name"],
                "properties": {"id": {"type": "string", "format": "uuid"}, "name": {"type": "string"}},
            },
            "Event": {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}},
            "Piece": {
                "anyOf": [
                    {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}, "close": {"type": "boolean"}}},
                    {"type": "string", "enum": ["[DONE]"]},
                ]
            },
        },
    },
}


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The URL of the application, which is served by a thread."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(5000):
            if server.started:
                break
            threading.Event().wait(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def run(folder: Path, caller: str, *broken: str) -> set[str]:
    """Run Schemathesis as the contract run does. Returns the titles of the failures that it found."""
    document, callers, report = folder / "openapi.json", folder / "callers.json", folder / "report.json"
    document.write_bytes(orjson.dumps(DOCUMENT))
    headers = {name: {"name": "Authorization", "value": f"Bearer {key}"} for name, key in KEYS.items()}
    headers[ANONYMOUS] = {"name": "Accept", "value": "*/*"}
    callers.write_bytes(orjson.dumps({"auth": [{"name": name, "fixedHeaders": [header]} for name, header in headers.items()]}))
    environment = os.environ | {"CONTRACT_CALLERS": str(callers), "CONTRACT_CALLER": caller, "NO_PROXY": "*"}
    with serving(Things(*broken).app()) as url:
        command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "run", str(document), f"--url={url}", "--seed=1"]
        command += ["--max-examples=5", "--no-shrink", "--warnings=off", "--report=json", f"--report-json-path={report}"]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False)
    said = orjson.loads(report.read_bytes())
    assert said["complete"], ended.stdout
    found = {failure["title"] for failure in said["failures"]}
    assert bool(found) == (ended.returncode != 0), ended.stdout
    return found


@pytest.mark.parametrize(
    ("caller", "found"),
    [
        (
            DEVELOPER,
            {
                "status": "Undocumented status code",
                "lost": "Created resource not found",
                "positive": "Schema-valid request rejected",
                "": "Custom check failed: `EveryOperationSucceeds`",
            },
        ),
        pytest.param(
            DEVELOPER,
            {
                "schema": "Response violates schema",
                "delete": "Deleted resource still available",
                "auth": "API accepts requests without authentication",
                "type": "Undocumented Content-Type",
                "event": "Custom check failed: `streams_are_whole_and_as_declared`",
            },
            marks=pytest.mark.long,
        ),
        (
            DEVELOPER,
            {
                "owner": "Object-level authorization bypass",
                "negative": "Schema-violating request accepted",
                "crash": "Server error",
                "end": "Custom check failed: `streams_are_whole_and_as_declared`",
            },
        ),
        pytest.param(STRANGER, {"permission": "Custom check failed: `a_stranger_is_refused`"}, marks=pytest.mark.long),
        pytest.param(ANONYMOUS, {"challenge": "Custom check failed: `nobody_gets_in`"}, marks=pytest.mark.long),
    ],
    ids=["what is answered", "what follows", "who and what is taken", "an app without grants", "nobody"],
)
def test_each_promise_that_is_broken_is_found(tmp_path: Path, caller: str, found: dict[str, str]) -> None:
    assert run(tmp_path, caller, *found) >= set(found.values())


def test_a_server_that_keeps_its_promises_is_left_in_peace(tmp_path: Path) -> None:
    assert run(tmp_path, DEVELOPER) == set()
