"""The requests and answers that every peer handles."""

import random
from typing import Any

APP_ID = "0193b5c6-0000-7000-8000-000000000001"
PONG = {"success": True, "message": "pong", "mode": "production", "appId": APP_ID, "timestamp": "2024-01-15T10:00:00Z"}
GENERATED = 250
QUEUE_CONNECTIONS = 10
LAST = "/bench/last/{number}"  # the path of the last operation where their number grows
IDLE_S = 0.02  # between two jobs that each find the queue idle


def chat_body() -> dict[str, Any]:
    """A chat as the official Python client sends it, explicit nulls included."""
    return {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello! How are you today, and what can you do for me?"},
        ],
        "model": None,
        "provider": None,
        "temperature": 0.7,
        "max_tokens": 1000,
        "response_format": None,
    }


def upsert_body(count: int = 100, dimensions: int = 384) -> dict[str, Any]:
    """A batch of vectors, their numbers written in full, as Python and JavaScript clients write them."""
    numbers = random.Random(1)
    return {
        "vectors": [
            {"id": f"doc-{i}", "vector": [numbers.uniform(-1, 1) for _ in range(dimensions)], "metadata": {"text": "x", "n": i}}
            for i in range(count)
        ],
        "workspaceId": "bench",
    }
