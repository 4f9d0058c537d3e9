"""A question to a program that was started here: does it answer? Nothing of the answer but its status is read."""

import asyncio
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


async def ask_status(url: str, timeout_s: float) -> int | None:
    """The status of the answer to ``GET url``; None when there is none within ``timeout_s``, or what answers does not speak HTTP.

    Redirects are not followed, and the certificate of an https address is not checked: a local program has one of its own making.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    question = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: homeport\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(parts.hostname or "", parts.port or _PORTS[parts.scheme], _trusting(parts.scheme), question.encode())
    except (OSError, ValueError):  # TimeoutError is one of the first; the second is an answer that is not HTTP
        return None


async def _ask(host: str, port: int, context: ssl.SSLContext | None, question: bytes) -> int:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(question)
        version, status, *_ = (await reader.readline()).split(maxsplit=2)
        if not version.startswith(b"HTTP/"):
            raise ValueError(version)
        return int(status)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _trusting(scheme: str) -> ssl.SSLContext | None:
    if scheme != "https":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
