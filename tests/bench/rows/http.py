"""What a request costs up to the handler, against FastAPI and Starlette."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.homeport_server import running_homeport
from tests.bench.load import Target, measure
from tests.bench.peers.shapes import APP_ID, GENERATED, chat_body, upsert_body
from tests.bench.servers import free_port, running, uvicorn_command
from tests.bench.table import Effort, Line, Measured, ratio


def measure_ping(folder: Path, effort: Effort) -> list[Line]:
    """Authenticated GET /sdk/ping with all operations loaded."""
    rates = _compare(folder, effort, "/sdk/ping", None, ("homeport", "fastapi", "starlette"))
    return [
        ratio("ping", "GET /sdk/ping, authenticated, against FastAPI", rates["homeport"], rates["fastapi"], 2.0),
        ratio("ping", "the same against bare Starlette, nothing checked", rates["homeport"], rates["starlette"], 0.4),
    ]


def measure_chat_validation(folder: Path, effort: Effort) -> list[Line]:
    """A chat body, validated, up to the handler."""
    body = json.dumps(chat_body()).encode()
    rates = _compare(folder, effort, "/bench/chat", body, ("homeport", "fastapi"))
    return [ratio("chat-validation", "POST chat body, validated, against FastAPI", rates["homeport"], rates["fastapi"], 2.0)]


def measure_upsert_validation(folder: Path, effort: Effort) -> list[Line]:
    """100 vectors of 384 numbers, validated, up to the database call."""
    body = json.dumps(upsert_body()).encode()
    rates = _compare(folder, effort, "/bench/upsert", body, ("homeport", "fastapi"))
    return [ratio("upsert-validation", "POST 100 x 384 vectors, validated, against FastAPI", rates["homeport"], rates["fastapi"], 6.0)]


def measure_last_operation(folder: Path, effort: Effort) -> list[Line]:
    """What the last operation costs against the first, with all operations of the contract and GENERATED more."""
    with running_homeport(folder) as homeport:
        base = homeport.base
        first, last = f"{base}/bench/group00/item000/1", f"{base}/bench/group{(GENERATED - 1) // 10:02}/item{GENERATED - 1:03}/1"
        headers = {"X-App-Id": APP_ID}
        rates = measure(
            [Target("first", first, headers), Target("last", last, headers)], folder, rounds=effort.rounds, seconds=effort.seconds
        )
    cost = rates["first"].median / rates["last"].median
    spread = rates["first"].spread + rates["last"].spread
    value = f"{cost:.3f} (±{spread:.0%}; {rates['first'].median:,.0f} and {rates['last'].median:,.0f} requests/s)"
    return [
        Line("last-operation", f"cost of the last of {GENERATED} generated operations against the first", value, "≤ 1.05", cost <= 1.05)
    ]


def _compare(folder: Path, effort: Effort, path: str, body: bytes | None, names: tuple[str, ...]) -> dict[str, Measured]:
    headers = {"X-App-Id": APP_ID, **({"Content-Type": "application/json"} if body else {})}
    with running_homeport(folder) as homeport, _peer("fastapi", folder) as fastapi, _peer("starlette", folder) as starlette:
        bases = {"homeport": homeport.base, "fastapi": fastapi, "starlette": starlette}
        targets = [Target(name, bases[name] + path, headers, body) for name in names]
        return measure(targets, folder, rounds=effort.rounds, seconds=effort.seconds)


@contextmanager
def _peer(name: str, folder: Path) -> Iterator[str]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    path = "/openapi.json" if name == "fastapi" else "/sdk/ping"
    with running(uvicorn_command(f"tests.bench.peers.{name}_peer:app", port), base + path, folder / f"{name}.log"):
        yield base
