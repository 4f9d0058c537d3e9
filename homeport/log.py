"""Logging: structured, one line an event, to standard error. Request ids come from the context; secrets and bodies are never logged."""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import orjson
import structlog

from homeport.settings import Settings

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that the current task answers; every log line of it carries the id."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and send what libraries log through the standard library the same way."""
    level = _LEVELS[settings.log_level]
    is_console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks show no values of variables: among them are bodies and keys.
    if is_console:
        tracebacks = structlog.dev.RichTracebackFormatter(show_locals=False)
        renderers: list[Any] = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=tracebacks)]
        factory: Any = structlog.PrintLoggerFactory(sys.stderr)
    else:
        tracebacks_as_data = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
        renderers = [tracebacks_as_data, structlog.processors.JSONRenderer(serializer=_dumps)]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(level, logging.INFO), force=True)
    logging.captureWarnings(True)
    # Connexion and Alembic narrate every operation and step at info, the mcp library every message.
    for name in ("connexion", "alembic", "httpx", "LiteLLM", "mcp"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _add_request_id(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    request_id = request_id_var.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event


class _Forward(logging.Handler):
    """Sends a standard-library record to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(max(record.levelno, logging.DEBUG), record.getMessage(), exc_info=record.exc_info)


def _dumps(event: Any, default: Any = None, **_: Any) -> bytes:
    return orjson.dumps(event, default=default or str)
