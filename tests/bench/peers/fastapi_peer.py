"""FastAPI with the same credentials, bounds and answers, written as its own documentation writes it."""

from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

from tests.bench.peers.shapes import APP_ID, PONG

app = FastAPI()


async def require_app(x_app_id: Annotated[str | None, Header()] = None) -> str:
    if x_app_id != APP_ID:
        raise HTTPException(401)
    return x_app_id


class Block(BaseModel):
    type: Annotated[str, Field(max_length=64)]


class Message(BaseModel):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: Annotated[str, Field(max_length=1_000_000)] | list[Block]


class Chat(BaseModel):
    messages: Annotated[list[Message], Field(min_length=1, max_length=2000)]
    model: Annotated[str, Field(max_length=200)] | None = None
    provider: Annotated[str, Field(max_length=100)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.7
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    response_format: dict[str, Any] | None = None


class Vector(BaseModel):
    id: Annotated[str, Field(max_length=512)]
    vector: Annotated[list[float], Field(min_length=1, max_length=16_000)]
    metadata: dict[str, Any] | None = None


class Upsert(BaseModel):
    vectors: Annotated[list[Vector], Field(min_length=1, max_length=1000)]
    workspaceId: Annotated[str, Field(max_length=200)] | None = None


App = Annotated[str, Depends(require_app)]


@app.get("/sdk/ping")
async def ping(_: App) -> dict[str, Any]:
    return PONG


@app.post("/bench/chat")
async def chat(body: Chat, _: App) -> dict[str, Any]:
    return {"success": True, "messages": len(body.messages)}


@app.post("/bench/upsert")
async def upsert(body: Upsert, _: App) -> dict[str, Any]:
    return {"success": True, "upserted": len(body.vectors)}
