"""The error body of each surface. There is no other place that writes one.

``local_apps`` puts the code of a permission error in ``error`` as well as in ``code``, because the official clients read one or the other.
"""

from collections.abc import Callable
from typing import Any

from homeport.errors import AppError, PermissionMissing

Body = dict[str, Any]

DEFAULT_SURFACE = "local_apps"

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def _local_apps(error: AppError, request_id: str) -> Body:
    if isinstance(error, PermissionMissing):
        return {
            "success": False,
            "error": error.code,
            "code": error.code,
            "permission": error.permission,
            "message": error.message,
            "request_id": request_id,
        }
    return {"success": False, "error": error.message, "code": error.code, "request_id": request_id}


def _core(error: AppError, request_id: str) -> Body:
    return {"error": error.message}


def _problem(error: AppError, request_id: str) -> Body:
    """RFC 9457. ``code`` is the stable part that clients may rely on."""
    body: Body = {
        "type": "about:blank",
        "title": _TITLES.get(error.status, "Error"),
        "status": error.status,
        "detail": error.message,
        "instance": f"urn:homeport:request:{request_id}",
        "code": error.code.lower().replace("_", "-"),
        "request_id": request_id,
    }
    if isinstance(error, PermissionMissing):
        body["permission"] = error.permission
    if error.problems:
        body["errors"] = [{"location": each.location, "pointer": each.pointer, "detail": each.detail} for each in error.problems]
    return body


ERROR_BODIES: dict[str, Callable[[AppError, str], Body]] = {
    "local_apps": _local_apps,
    "core": _core,
    "admin": _problem,
    "system": _problem,
}
PROBLEM_SURFACES = frozenset({"admin", "system"})


def render_error(error: AppError, surface: str, request_id: str) -> tuple[Body, str]:
    """The body and media type of an error on a surface."""
    media_type = "application/problem+json" if surface in PROBLEM_SURFACES else "application/json"
    return ERROR_BODIES[surface](error, request_id), media_type
