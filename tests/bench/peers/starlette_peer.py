"""Starlette with nothing checked: what the server library itself costs."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.bench.peers.shapes import PONG


async def ping(_: Request) -> JSONResponse:
    return JSONResponse(PONG)


async def chat(request: Request) -> JSONResponse:
    return JSONResponse({"success": True, "messages": len((await request.json())["messages"])})


async def upsert(request: Request) -> JSONResponse:
    return JSONResponse({"success": True, "upserted": len((await request.json())["vectors"])})


app = Starlette(
    routes=[Route("/sdk/ping", ping), Route("/bench/chat", chat, methods=["POST"]), Route("/bench/upsert", upsert, methods=["POST"])]
)
