"""The rows of the bench. Each is one function that runs on its own and gives lines of the table."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.growth import GROWTH_ROWS
from tests.bench.rows.agents import measure_sessions, measure_tool_use, measure_turn
from tests.bench.rows.chat import measure_chat, measure_chat_stream, measure_litellm_transport
from tests.bench.rows.embeddings import measure_embedding
from tests.bench.rows.http import measure_chat_validation, measure_last_operation, measure_ping, measure_upsert_validation
from tests.bench.rows.queue import measure_queue
from tests.bench.rows.scale import measure_scale_out
from tests.bench.rows.speech import measure_at_once, measure_engines, measure_stream
from tests.bench.rows.start import measure_memory, measure_start
from tests.bench.rows.tools import measure_tool_boots, measure_tool_calls
from tests.bench.rows.vectors import measure_filter, measure_query, measure_upsert
from tests.bench.table import Effort, Line

ROWS: dict[str, Callable[[Path, Effort], list[Line]]] = {
    "ping": measure_ping,
    "chat-validation": measure_chat_validation,
    "upsert-validation": measure_upsert_validation,
    "last-operation": measure_last_operation,
    "start": measure_start,
    "memory": measure_memory,
    "chat": measure_chat,
    "chat-stream": measure_chat_stream,
    "chat-litellm": measure_litellm_transport,
    "vectors-upsert": measure_upsert,
    "vectors-query": measure_query,
    "vectors-filter": measure_filter,
    "embedding": measure_embedding,
    "speech": measure_engines,
    "speech-stream": measure_stream,
    "speech-at-once": measure_at_once,
    "mcp": measure_tool_calls,
    "mcp-boot": measure_tool_boots,
    "queue": measure_queue,
    "agent-turn": measure_turn,
    "agent-tool": measure_tool_use,
    "agent-sessions": measure_sessions,
    "scale-out": measure_scale_out,
}

# Those of growth take long and have a page of their own, docs/growth.md: they are measured when they are asked for.
ALL_ROWS = ROWS | GROWTH_ROWS

# What the design asks of rows (its table of speed and size), as their lines show it. A row whose lines do not show it has failed.
DESIGNED: dict[str, tuple[str, ...]] = {
    "ping": ("≥ 2 x", "≥ 0.4 x"),
    "chat-validation": ("≥ 2 x",),
    "upsert-validation": ("≥ 6 x",),
    "vectors-upsert": ("≥ 0.5 x",),
    "last-operation": ("≤ 1.05",),
    "chat": ("≤ 1.5 ms", "≥ 20 x"),
    "chat-stream": ("≤ 2 ms", "≥ 10 x"),
    "chat-litellm": ("≤ 1 ms",),
    "vectors-query": ("≥ 0.99", "≥ 0.6 x"),
    "start": ("≤ 2 s", "≤ 6 s"),
    "memory": ("≤ 150 MB",),
    "mcp": ("≤ 2 ms",),
}
