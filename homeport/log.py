"""Logging: structured, one line an event, to standard error. Request ids come from the context; secrets and bodies are never logged."""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import orjson
import structlog

from homeport.settings import Settings

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that the current task answers; every log line of it carries the id."""

# Colours may stay; whatever else begins with an escape could move the cursor, rename the window or answer in somebody's place.
_STEERING = re.compile(r"(\x1b\[[0-9;]*m)|[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f]")
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
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=tracebacks)
        renderers: list[Any] = [_keep_to_one_line, console, _steer_nothing]
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


def _keep_to_one_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What is logged may be a stranger's (a path, a library's words): a line of it must not pass for one of ours."""
    for name, value in event.items():
        if name != "exc_info" and not (text := value if isinstance(value, str) else repr(value)).isprintable():
            event[name] = "".join(each if each.isprintable() else _escape(each) for each in text)
    return event


def _steer_nothing(_: Any, __: str, line: str) -> str:
    """The rendered text, tracebacks with an exception's words included, without what a terminal would take for an order."""
    return _STEERING.sub(lambda found: found[1] or _escape(found[0]), line)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class _Forward(logging.Handler):
    """Sends a standard-library record to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(max(record.levelno, logging.DEBUG), record.getMessage(), exc_info=record.exc_info)


def _dumps(event: Any, default: Any = None, **_: Any) -> bytes:
    return orjson.dumps(event, default=default or str)
