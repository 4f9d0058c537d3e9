"""The ways in which asking a model can fail: the same failure is the same error through either transport (``adapters.chat``), and an
embedding or speech fails as a chat does.

    not reachable, 401, 402, 403, 5xx, no quota left   503 PROVIDER_UNAVAILABLE
    429                                                429 RATE_LIMIT, with Retry-After
    404, unknown model                                 400 INVALID_MODEL
    400, 413, 422                                      400 VALIDATION_ERROR (ContextTooLong where that is what they mean)
    an answer that makes no sense or breaks off        502 LLM_ERROR
    no answer in time                                  504 LLM_ERROR
    any of these after the first piece of a stream     the same class, code LLM_STREAM_ERROR

What the upstream said goes to the log, shortened and without the key; the caller is told whom it concerns and what to do. A failure that
may pass by itself has ``retry_in_s``: what the upstream asked for with Retry-After, else 0.
"""

import errno
import re
from email.utils import parsedate_to_datetime
from time import time

import structlog

from adapters.chat import ContextTooLong, Endpoint
from homeport.errors import AppError, InvalidRequest, TooManyRequests, Unavailable, UpstreamError, UpstreamTimeout

log = structlog.get_logger(__name__)

DEFAULT_RETRY_AFTER_S = 5
MAX_RETRY_AFTER_S = 86_400
MAX_REASON_LENGTH = 300

# What upstreams answer with 400 or 429 although it is not about the request or the rate.
CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length"})
MODEL_CODES = frozenset({"model_not_found", "invalid_model", "model_not_available"})
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
KNOWN_CODES = CONTEXT_CODES | MODEL_CODES | QUOTA_CODES
# How servers that give no such code say the same.
TOO_LONG = re.compile(
    r"maximum context length|maximum input length|must have less than \d+ tokens|input length exceeds|exceeds the (available )?context|"
    r"exceed_context_size|too many tokens|reduce the length|(prompt|input) is too long|exceeds the maximum number of tokens|"
    r"maximum prompt length|longer than the model's context",
    re.IGNORECASE,
)

# What was asked of a model, as errors name it: what it can be too long for.
CONVERSATION = "The conversation"


def unreachable(endpoint: Endpoint, reason: object) -> AppError:
    """The upstream could not be connected to."""
    if isinstance(reason, OSError) and reason.errno in (errno.EMFILE, errno.ENFILE):
        log.error("no file descriptors are left for connections", provider=endpoint.provider, reason=reason.strerror)
        message = "This server has as many files and connections open as the system lets it. Try again, or raise its limit (ulimit -n)."
        return _may_pass(Unavailable(message, code="PROVIDER_UNAVAILABLE"))
    # Not a warning: an Ollama that does not run is looked for, too. Who needed the provider is told, and that failed request is logged.
    log.info("model provider unreachable", provider=endpoint.provider, base_url=endpoint.base_url, reason=_shorten(endpoint, reason))
    message = f"The model provider '{endpoint.provider}' cannot be reached. Check that it is running and that its address is right."
    return _may_pass(Unavailable(message, code="PROVIDER_UNAVAILABLE"))


def bad_answer(endpoint: Endpoint, what: str, reason: object = None) -> AppError:
    """The upstream answered, but not in a way that can be used; ``what`` completes the sentence "The model provider 'x' …"."""
    log.warning("model provider gave a bad answer", provider=endpoint.provider, what=what, reason=_shorten(endpoint, reason))
    message = f"The model provider '{endpoint.provider}' {what}. Try again, or check that its address is right."
    return _may_pass(UpstreamError(message, code="LLM_ERROR"))


def too_slow(endpoint: Endpoint, limit_s: float) -> AppError:
    """The upstream kept us waiting for too long."""
    log.warning("model provider timed out", provider=endpoint.provider, limit_s=limit_s)
    message = f"The model provider '{endpoint.provider}' took longer than {limit_s:g} seconds. Try again, or use a faster model."
    return _may_pass(UpstreamTimeout(message, code="LLM_ERROR"))


def refused(
    endpoint: Endpoint,
    model: str,
    status: int,
    *,
    code: str | None = None,
    reason: object = None,
    retry_after: str | None = None,
    what: str = CONVERSATION,
) -> AppError:
    """The upstream answered with an error status. ``code`` and ``reason`` are the upstream's own; ``what`` may have been too long."""
    shown = _shorten(endpoint, reason)
    log.warning("model provider refused", provider=endpoint.provider, model=model, status=status, upstream_code=code, reason=shown)
    who = f"The model provider '{endpoint.provider}'"
    if status in {401, 403}:
        return Unavailable(f"{who} refused the API key, or the key may not use this model. Check the key.", code="PROVIDER_UNAVAILABLE")
    if status == 402 or code in QUOTA_CODES:
        return Unavailable(f"{who} reports that the account has no credit left. Check its billing.", code="PROVIDER_UNAVAILABLE")
    if status == 429:
        seconds = _retry_after_s(retry_after)
        busy = TooManyRequests(f"{who} is asked too often. Try again in {seconds} s.", headers={"Retry-After": str(seconds)})
        return _may_pass(busy, retry_after)
    if status == 404 or code in MODEL_CODES:
        return InvalidRequest(f"{who} does not know the model '{model}'. Choose one from the list of providers.", code="INVALID_MODEL")
    if code in CONTEXT_CODES or (status in {400, 413, 422} and TOO_LONG.search(str(reason))):
        return ContextTooLong(f"{what} is longer than the model '{model}' can take. Shorten it or choose another model.")
    if status in {400, 413, 422}:
        return InvalidRequest(f"{who} refused the request for the model '{model}' as invalid. The server's log has its reason.")
    if status in {408, 504}:
        return _may_pass(UpstreamTimeout(f"{who} did not answer in time. Try again.", code="LLM_ERROR"), retry_after)
    if status >= 500:
        headers = {"Retry-After": str(_retry_after_s(retry_after))}
        message = f"{who} has trouble (status {status}). Try again later."
        return _may_pass(Unavailable(message, code="PROVIDER_UNAVAILABLE", headers=headers), retry_after)
    if 300 <= status < 400:
        return UpstreamError(f"{who} redirects, which is not followed. Set its base URL to the final address.", code="LLM_ERROR")
    return UpstreamError(f"{who} answered with the unexpected status {status}.", code="LLM_ERROR")


def _may_pass(error: AppError, retry_after: str | None = None) -> AppError:
    error.retry_in_s = 0.0 if retry_after is None else float(_retry_after_s(retry_after))
    return error


def _shorten(endpoint: Endpoint, reason: object) -> str | None:
    if reason is None:
        return None
    text = str(reason)
    if endpoint.api_key:
        text = text.replace(endpoint.api_key, "[key]")
    return text[:MAX_REASON_LENGTH]


def _retry_after_s(value: str | None) -> int:
    """Seconds to wait, from a Retry-After header: a number or an HTTP date."""
    if value is None:
        return DEFAULT_RETRY_AFTER_S
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except ValueError:
            return DEFAULT_RETRY_AFTER_S
    return max(1, min(MAX_RETRY_AFTER_S, round(seconds))) if seconds == seconds else DEFAULT_RETRY_AFTER_S
