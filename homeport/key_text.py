"""API keys: ``hp_local_<id>_<secret><checksum>``.

The id is readable and found by index; the secret has 256 random bits, so a plain SHA-256 of it is kept and nothing slower is needed; the
checksum (CRC-32 of all before it) lets a typo be told without a database. The key itself is shown once and never stored.
"""

import hashlib
import secrets
import zlib

KEY_PREFIX = "hp_local_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12
_SECRET_LENGTH = 43
_CHECKSUM_LENGTH = 6
PREFIX_LENGTH = len(KEY_PREFIX) + _ID_LENGTH
_KEY_LENGTH = PREFIX_LENGTH + 1 + _SECRET_LENGTH + _CHECKSUM_LENGTH


def make_key() -> tuple[str, str]:
    """A new random key: its prefix, and the whole text."""
    prefix = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    body = f"{prefix}_{_base62(secrets.randbits(256), _SECRET_LENGTH)}"
    return prefix, body + _checksum(body)


def looks_like_key(text: str) -> bool:
    """Whether ``text`` is meant to be one of our keys, right or wrong."""
    return text.startswith(KEY_PREFIX)


def parse_key(text: str) -> tuple[str, bytes] | None:
    """The prefix of the key and the SHA-256 of its secret; None when its length, its characters or its checksum are wrong."""
    if len(text) != _KEY_LENGTH or not text.isascii() or text[PREFIX_LENGTH] != "_":
        return None
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    if not looks_like_key(text) or checksum != _checksum(body):
        return None
    return text[:PREFIX_LENGTH], hash_secret(text)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_LENGTH)


def hash_secret(key: str) -> bytes:
    """The SHA-256 of the secret in a whole key: what the database keeps."""
    return hashlib.sha256(key[PREFIX_LENGTH + 1 : -_CHECKSUM_LENGTH].encode("ascii")).digest()
