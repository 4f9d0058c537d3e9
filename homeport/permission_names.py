"""Names of permissions, and the patterns that cover them. One function decides what covers what."""

import re

from homeport.errors import InvalidRequest

MAX_NAME_LENGTH = 100
MAX_SCOPE_LENGTH = MAX_NAME_LENGTH + len(".*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9][a-z0-9_-]*)*")


def covers(pattern: str, permission: str) -> bool:
    """Whether holding ``pattern`` gives ``permission``: ``*`` gives all, ``a.*`` everything below ``a.`` (not ``a`` itself), a name itself.

    ``permission`` may be a pattern too; then the answer is whether all that it gives is given by ``pattern``.
    """
    if pattern == "*" or pattern == permission:
        return True
    return pattern.endswith(".*") and permission.startswith(pattern[:-1]) and len(permission) >= len(pattern)


def check_permission(name: str) -> str:
    """Return ``name`` if it can name a permission: lower-case words with dots between them, no wildcard. Raises InvalidRequest."""
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise _bad_name(name)
    return name


def check_scope(scope: str) -> str:
    """Return ``scope`` if it is a permission's name, such a name followed by ``.*``, or ``*``. Raises InvalidRequest."""
    if scope != "*" and (len(scope) > MAX_SCOPE_LENGTH or not _NAME.fullmatch(scope.removesuffix(".*"))):
        raise _bad_name(scope)
    return scope


def is_reserved(permission: str) -> bool:
    """Whether no app can ever hold ``permission``: everything that administers the server."""
    return permission == "admin" or permission.startswith("admin.")


def check_grantable(permission: str) -> str:
    """Return ``permission`` if an app can hold it. Raises InvalidRequest."""
    if is_reserved(check_permission(permission)):
        raise InvalidRequest(f"'{permission}' cannot be given to an app; create an API key with that scope instead.")
    return permission


def _bad_name(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{name[:MAX_NAME_LENGTH]}' cannot name a permission: use lower-case words with dots between them, such as llm.chat, "
        f"at most {MAX_NAME_LENGTH} characters."
    )
