"""Routers as they come, with as many operations as the environment says (``BENCH_OPERATIONS``): FastAPI's and Connexion's.

The path that is asked is the last one. Each operation checks the same credential and gives the same answer.
"""

import os
from typing import Annotated, Any

from tests.bench.peers.fastapi_peer import App
from tests.bench.peers.shapes import APP_ID, LAST, PONG

SCHEME = {"type": "apiKey", "in": "header", "name": "X-App-Id", "x-apikeyInfoFunc": f"{__name__}.check_app"}


def fastapi() -> Any:
    """FastAPI, written as its own documentation writes it."""
    from fastapi import FastAPI, Path

    app = FastAPI()

    async def show(number: Annotated[str, Path(max_length=64)], _: App) -> dict[str, Any]:
        return {**PONG, "number": number}

    for place, path in enumerate(_paths()):
        app.get(path, operation_id=f"show_{place}")(show)
    return app


def connexion() -> Any:
    """Connexion, its own validation, security and router on."""
    from connexion import AsyncApp

    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 64}}
    ok = {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}}
    operation = {"x-openapi-router-controller": __name__, "security": [{"appId": []}], "parameters": [number], "responses": ok}
    # Connexion shares what operations of one name have, so each has a name of its own; one function serves them all.
    paths = {path: {"get": {**operation, "operationId": f"show_{place}"}} for place, path in enumerate(_paths())}
    globals().update({f"show_{place}": show for place in range(len(paths))})
    app = AsyncApp(__name__)
    document = {"openapi": "3.0.3", "info": {"title": "bench", "version": "1"}, "paths": paths}
    app.add_api({**document, "components": {"securitySchemes": {"appId": SCHEME}}})
    return app


async def show(number: str) -> dict[str, Any]:
    """What each operation of Connexion's does."""
    return {**PONG, "number": number}


def check_app(apikey: str) -> dict[str, Any] | None:
    """Who calls Connexion's; None for a stranger."""
    return {"sub": apikey} if apikey == APP_ID else None


def _paths() -> list[str]:
    count = int(os.environ["BENCH_OPERATIONS"])
    return [*(f"/bench/group{place // 10:02}/item{place:03}/{{number}}" for place in range(count - 1)), LAST]
