"""Encryption of what is stored and must be read again: users' tokens, providers' keys.

One key of 32 bytes serves a whole installation: from the setting, else from ``secret.key`` in the data directory, made at the first
start. Losing it loses the stored secrets, nothing else.
"""

import base64
import binascii
import os
import stat
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from homeport.errors import Unavailable
from homeport.settings import Settings, SettingsError

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"

log = structlog.get_logger(__name__)


class SecretBox:
    """Seals text with AES-256-GCM. ``context`` says what the text belongs to and is authenticated: sealed bytes copied to another
    row or column do not open there."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a secret key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)

    def seal(self, plain: str, context: str) -> bytes:
        """Encrypt ``plain``: a version byte, a random nonce of 12 bytes, the ciphertext with its tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain.encode("utf-8"), context.encode("utf-8"))

    def open(self, sealed: bytes, context: str) -> str:
        """Decrypt what ``seal`` made with the same key and context. Raises Unavailable (SECRET_UNREADABLE) for anything else."""
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return self._cipher.decrypt(nonce, ciphertext, context.encode("utf-8")).decode("utf-8")
        except (InvalidTag, ValueError) as error:
            raise Unavailable(
                "A stored secret cannot be decrypted: this server's secret key is not the one that it was stored with. "
                "Restore that key, or store the secret again.",
                code="SECRET_UNREADABLE",
            ) from error


def load_secret_key(settings: Settings) -> bytes:
    """The installation's key: the setting ``secret_key``, else ``<data_dir>/secret.key``, which is made when it is missing.

    Several processes may call this at once on a fresh directory: all get the same key. Raises SettingsError when a key is malformed
    or the file cannot be read or made.
    """
    if settings.secret_key is not None:
        return _decode(settings.secret_key.get_secret_value(), "HOMEPORT_SECRET_KEY")
    path = settings.data_dir / "secret.key"
    try:
        if not path.exists():
            _make_key_file(path)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            log.warning("the secret key file can be read by other users; run chmod 600 on it", path=str(path))
        return _decode(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: the secret key cannot be read or made: {error}") from error


def _make_key_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all, and only for the first of several processes.
        os.link(draft, path)
    except FileExistsError:
        log.debug("another process made the secret key", path=str(path))
    finally:
        draft.unlink()


def _decode(text: str, source: str) -> bytes:
    try:
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(f"{source}: the secret key is not base64") from error
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{source}: the secret key has {len(key)} bytes; it must have {KEY_BYTES} (openssl rand -base64 {KEY_BYTES})")
    return key
