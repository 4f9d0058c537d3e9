"""Which operating system user runs the embedded server. PostgreSQL refuses to run as root, so root needs somebody else.

An ordinary user runs it as himself. Root runs it as the owner of the data directory, or, where that is root, as the system
user ``homeport``, which is made when it is missing: a user of its own, so that no other service shares its files.
"""

import os
import pwd
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

SYSTEM_USER = "homeport"
ADVICE = f"Add the system user {SYSTEM_USER!r} by hand, run Homeport as an ordinary user, or set DATABASE_URL."


class AccountError(Exception):
    """There is no user who could run the server; the message says what to do."""


class Credentials(TypedDict, total=False):
    """Arguments of ``subprocess`` that make a child run as another user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the operating system."""

    name: str
    uid: int
    gid: int

    @property
    def is_current(self) -> bool:
        """Whether this process already runs as this user."""
        return self.uid == os.geteuid()

    def credentials(self) -> Credentials:
        """What ``subprocess.Popen`` needs to run a child as this user."""
        return {} if self.is_current else {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account(data_dir: Path) -> Account:
    """The user who runs the server for an existing ``data_dir``. Raises AccountError."""
    uid = os.geteuid()
    if uid:
        if account := _account(uid):
            return account
        raise AccountError(
            f"This process runs as the user id {uid}, which has no name on this machine, and PostgreSQL insists on one. "
            "Add a line for it to /etc/passwd, run as a named user, or set DATABASE_URL."
        )
    owner = data_dir.stat().st_uid
    return (_account(owner) if owner else None) or _system_account()


def allowed_names(account: Account) -> list[str]:
    """The users who may connect: the one who runs the server, and root, who can read its files anyway."""
    root = _account(0)
    return list(dict.fromkeys([account.name, *([root.name] if root else [])]))


def _account(uid: int) -> Account | None:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _system_account() -> Account:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    deadline = time.monotonic() + 10
    while True:
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
        except KeyError:
            reason = _add_user([*command, SYSTEM_USER])
        # Another process may be adding the same user, or hold the lock of the password file: look again.
        if time.monotonic() > deadline:
            raise AccountError(f"PostgreSQL does not run as root, and the system user {SYSTEM_USER!r} cannot be added: {reason}. {ADVICE}")
        time.sleep(0.05)


def _add_user(command: list[str]) -> str:
    """Why it did not work; empty when it did."""
    try:
        run = subprocess.run(command, capture_output=True, check=False, text=True, timeout=30)
    except OSError as error:
        raise AccountError(f"PostgreSQL does not run as root, and {command[0]} cannot be run to add the user: {error}. {ADVICE}") from error
    return run.stderr.strip()
