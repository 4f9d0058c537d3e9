"""The one error tree. An error knows a status, a stable code and a safe sentence; it knows nothing of HTTP bodies.

    AppError
    ├── InvalidRequest        400   (also MalformedBody, UnprocessableValue through ``code``)
    ├── Unauthorized          401
    ├── PermissionMissing     403   the caller could ask for it (PERMISSION_REQUIRED) or was refused (PERMISSION_DENIED)
    ├── Forbidden             403
    ├── NotFound              404
    ├── MethodNotAllowed      405
    ├── RequestTimeout        408
    ├── Conflict              409
    ├── PayloadTooLarge       413
    ├── UnsupportedMediaType  415
    ├── MisdirectedRequest    421
    ├── TooManyRequests       429
    ├── InternalError         500
    ├── UpstreamError         502
    ├── Unavailable           503
    └── UpstreamTimeout       504

Every surface renders these in its own body (``homeport.http.error_bodies``). The message is read by people: it says what is
wrong and what to do. A cause (SQL text, an upstream's answer, a traceback) is chained with ``raise … from`` and reaches the log
only. Codes are part of the contract and are never changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with a request: where (``body``, ``query``, ``path``, ``header``; a JSON pointer or a name) and what."""

    location: str
    pointer: str
    detail: str


class AppError(Exception):
    """Something went wrong that the caller may be told about. The docstring of a subclass is its default message."""

    status = 500
    code = "INTERNAL_ERROR"
    # Seconds after which what failed is worth trying again unchanged; None: it is not, or nobody knows.
    retry_in_s: float | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        problems: tuple[FieldProblem, ...] = (),
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        if code is not None:
            self.code = code
        self.headers: Mapping[str, str] = headers or {}
        self.problems = problems
        super().__init__(self.message)


class InvalidRequest(AppError):
    """The request does not match the contract."""

    status = 400
    code = "VALIDATION_ERROR"


class Unauthorized(AppError):
    """This operation needs a credential."""

    status = 401
    code = "UNAUTHORIZED"


class PermissionMissing(AppError):
    """The caller does not hold the permission that this operation needs."""

    status = 403
    code = "PERMISSION_REQUIRED"

    def __init__(self, permission: str, *, denied: bool = False) -> None:
        self.permission = permission
        message = (
            f"The permission '{permission}' was denied to this caller."
            if denied
            else f"This operation needs the permission '{permission}'."
        )
        super().__init__(message, code="PERMISSION_DENIED" if denied else "PERMISSION_REQUIRED")


class Forbidden(AppError):
    """The caller may not do this."""

    status = 403
    code = "FORBIDDEN"


class NotFound(AppError):
    """Nothing was found here."""

    status = 404
    code = "NOT_FOUND"


class MethodNotAllowed(AppError):
    """This path does not answer to that method."""

    status = 405
    code = "METHOD_NOT_ALLOWED"


class RequestTimeout(AppError):
    """The request did not arrive in time."""

    status = 408
    code = "REQUEST_TIMEOUT"


class Conflict(AppError):
    """The request conflicts with the current state."""

    status = 409
    code = "CONFLICT"


class PayloadTooLarge(AppError):
    """The request body is too large."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(AppError):
    """The request body has a media type that this operation does not read."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"


class MisdirectedRequest(AppError):
    """The Host header does not name this server."""

    status = 421
    code = "MISDIRECTED_REQUEST"


class TooManyRequests(AppError):
    """Too many requests at once; try again later."""

    status = 429
    code = "RATE_LIMIT"


class InternalError(AppError):
    """Something went wrong inside the server; the log has the details under this request id."""


class UpstreamError(AppError):
    """A service that this operation depends on failed."""

    status = 502
    code = "UPSTREAM_ERROR"


class Unavailable(AppError):
    """This is not available at the moment."""

    status = 503
    code = "UNAVAILABLE"


class UpstreamTimeout(AppError):
    """A service that this operation depends on did not answer in time."""

    status = 504
    code = "UPSTREAM_TIMEOUT"
