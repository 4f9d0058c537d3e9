"""What runs in a process of voices: it answers the requests of ``adapters.voices.pool``, one at a time.

Requests come on standard input, each a length (4 bytes, little-endian) and JSON:

    {"work": "voices"}   answered with {"voices": …}, however the voices are described
    {"work": "speak", "text": …, "voice": …, "wpm": 175, "folder": …}   answered with {"rate": 22050, "size": n} and n bytes of samples

An answer is a length and JSON, too; ``{"error": …}`` when it failed. ``{}`` says that the process is ready. It ends with its input, even
while it hangs, so it does not outlive its parent.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

LENGTH_BYTES = 4

Json = dict[str, Any]


class Speaker(Protocol):
    """What can speak in this process."""

    def voices(self) -> Any:
        """A description of its voices, as JSON."""

    def speak(self, text: str, voice: str, wpm: int, folder: str) -> tuple[bytes, int]:
        """The samples of a text, and how many of them are a second. ``folder`` is where a file may be left."""


def serve(make: Callable[[], Speaker]) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print
    requests: queue.SimpleQueue[Json] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    speaker = make()
    _answer(answers, {})
    while True:
        _answer(answers, *_result(speaker, requests.get()))


def _result(speaker: Speaker, request: Json) -> tuple[Json, bytes]:
    try:
        if request["work"] == "voices":
            return {"voices": speaker.voices()}, b""
        samples, rate = speaker.speak(request["text"], request["voice"], request["wpm"], request["folder"])
        return {"rate": rate, "size": len(samples)}, samples
    except Exception as error:  # noqa: BLE001 - libraries raise classes of their own; the parent starts another process then
        return {"error": f"{type(error).__name__}: {error}"}, b""


def _read(source: BinaryIO, requests: "queue.SimpleQueue[Json]") -> None:
    try:
        while len(length := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
            requests.put(json.loads(source.read(int.from_bytes(length, "little"))))
    finally:
        os._exit(0)  # also for half a request


def _answer(answers: BinaryIO, header: Json, samples: bytes = b"") -> None:
    content = json.dumps(header).encode()
    answers.write(len(content).to_bytes(LENGTH_BYTES, "little") + content + samples)
    answers.flush()
