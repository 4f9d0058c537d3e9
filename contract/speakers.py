"""How the stand-in for a model server speaks, by the name of the model: as WAV, as MP3, or in a way that is hard to read.

What is heard is a tone that lasts as long as the text would. ``spoken_s`` tells how long that is.
"""

import io
import wave
from array import array
from base64 import b64encode
from math import pi, sin
from typing import Any

from adapters.audio.files import encode
from adapters.audio.pcm import Pcm
from contract.exchange import Behaviour, Exchange

RATE = 24_000
TONE_HZ = 440
WORD_S = 0.3


def spoken_s(text: str, speed: float = 1) -> float:
    """How many seconds a text is spoken."""
    return round(len(text.split()) * WORD_S / speed, 3)


def samples_of(text: str, speed: float = 1) -> bytes:
    """The tone as 16-bit samples, RATE a second."""
    period = array("h", (round(8000 * sin(2 * pi * TONE_HZ * step / RATE)) for step in range(RATE)))
    seconds, rest = divmod(round(spoken_s(text, speed) * RATE), RATE)
    return (period * seconds + period[:rest]).tobytes()


def wav_of(text: str, speed: float = 1, *, channels: int = 1) -> bytes:
    """The tone as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes(samples_of(text, speed))
    return file.getvalue()


def _asked_of(exchange: Exchange) -> tuple[str, float]:
    """The text and the speed, whichever protocol names them."""
    request = exchange.request
    if "contents" in request:
        return request["contents"][0]["parts"][0]["text"], 1
    settings: dict[str, Any] = request.get("voice_settings") or {}
    return request.get("input") or request["text"], request.get("speed") or settings.get("speed") or 1


async def _answer(exchange: Exchange, media_type: str, content: bytes) -> None:
    await exchange.start(200, media_type, [(b"content-length", str(len(content)).encode())])
    await exchange.send(content, is_last=True)


async def speak(exchange: Exchange) -> None:
    """The text in the format that was asked for. Gemini and Mistral wrap it in JSON, Gemini and ElevenLabs give the samples alone."""
    text, speed = _asked_of(exchange)
    if "contents" in exchange.request:
        data = {"mimeType": f"audio/L16;codec=pcm;rate={RATE}", "data": b64encode(samples_of(text)).decode()}
        tokens = {"promptTokenCount": len(text.split()), "candidatesTokenCount": 25, "totalTokenCount": 25 + len(text.split())}
        candidate = {"content": {"role": "model", "parts": [{"inlineData": data}]}, "finishReason": "STOP", "index": 0}
        return await exchange.answer(200, {"candidates": [candidate], "usageMetadata": tokens})
    if "text" in exchange.request:
        return await _answer(exchange, "audio/pcm", samples_of(text, speed))
    if "voice_id" in exchange.request:
        return await exchange.answer(200, {"audio_data": b64encode(wav_of(text, speed)).decode()})
    if exchange.request.get("response_format") == "mp3":
        return await mp3(exchange)
    await _answer(exchange, "audio/wav", wav_of(text, speed))


async def mp3(exchange: Exchange) -> None:
    """As some servers do: MP3, whatever was asked for, and called anything but that."""
    await _answer(exchange, "application/octet-stream", encode(Pcm(samples_of(*_asked_of(exchange)), RATE), "mp3"))


async def streamed(exchange: Exchange) -> None:
    """As OpenAI: a WAV file whose header was written before its length was known, in pieces."""
    content = bytearray(wav_of(*_asked_of(exchange)))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    await exchange.start(200, "audio/wav")
    for start in range(0, len(content), 4096):
        await exchange.send(bytes(content[start : start + 4096]))
    await exchange.send(b"", is_last=True)


async def stereo(exchange: Exchange) -> None:
    """A WAV file with two channels."""
    await _answer(exchange, "audio/wav", wav_of(*_asked_of(exchange), channels=2))


async def silent(exchange: Exchange) -> None:
    """A WAV file with nothing in it."""
    await _answer(exchange, "audio/wav", wav_of(""))


async def nothing(exchange: Exchange) -> None:
    """No bytes at all."""
    await _answer(exchange, "audio/wav", b"")


async def brief(exchange: Exchange) -> None:
    """As Groq: a text of more than so many characters is refused."""
    if len(_asked_of(exchange)[0]) > exchange.argument(20):
        error = {"message": "SECRET-DETAIL input must be shorter", "type": "invalid_request_error", "code": "string_above_max_length"}
        return await exchange.answer(400, {"error": error})
    await speak(exchange)


# Models that only speak; those of ``BEHAVIOURS`` do it, too, or fail as they do in a chat.
SPEAKERS: dict[str, Behaviour] = {
    "tts": speak,
    "mp3": mp3,
    "streamed": streamed,
    "stereo": stereo,
    "silent": silent,
    "nothing": nothing,
    "brief": brief,
}
