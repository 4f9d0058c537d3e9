"""What LiteLLM raises, as the errors of ``adapters.model_failures``.

Its exceptions do not tell reliably what happened (a refused connection is a 500, a 401 a BadRequestError), but the chain of causes below
them does: it is read down to the HTTP client's own exception.
"""

from collections.abc import Iterator
from json import JSONDecodeError

from adapters.chat import Endpoint
from adapters.model_failures import CONVERSATION, KNOWN_CODES, bad_answer, refused, too_slow, unreachable
from homeport.errors import AppError


def error_of(endpoint: Endpoint, model: str, error: Exception, limit_s: float, what: str = CONVERSATION) -> AppError:
    """The error of ``adapters.model_failures`` for what LiteLLM raised."""
    import httpx

    for cause in _causes(error):
        if isinstance(cause, httpx.HTTPStatusError):
            code = _code_of(error)
            retry_after = cause.response.headers.get("Retry-After")
            return refused(endpoint, model, cause.response.status_code, code=code, reason=error, retry_after=retry_after, what=what)
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
            return unreachable(endpoint, cause)
        if isinstance(cause, httpx.TimeoutException):
            return too_slow(endpoint, limit_s)
        if isinstance(cause, httpx.TransportError):
            return bad_answer(endpoint, "broke off in the middle of its answer", cause)
        if isinstance(cause, JSONDecodeError):
            return bad_answer(endpoint, "answered with something that is not JSON", cause)
    status = getattr(error, "status_code", None)
    # A 500 that no answer brought is LiteLLM's own failure to understand one, and with Gemini a 422.
    if isinstance(status, int) and status >= 400 and status not in {422, 500} and type(error).__name__ != "MidStreamFallbackError":
        return refused(endpoint, model, status, code=_code_of(error), reason=error, what=what)
    return bad_answer(endpoint, "reported an error instead of an answer", error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it came from, outermost first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _code_of(error: Exception) -> str | None:
    """The code that tells what a refusal is about, where one is known."""
    if type(error).__name__ == "ContextWindowExceededError":
        return "context_length_exceeded"
    return next((code for code in KNOWN_CODES if code in f"{error} {getattr(error, 'body', None)}"), None)


def status_of(error: Exception) -> int:
    """The status that a provider answered with, as far as LiteLLM tells; 0 when there was none."""
    import httpx

    for cause in _causes(error):
        if isinstance(cause, httpx.HTTPStatusError):
            return cause.response.status_code
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0
