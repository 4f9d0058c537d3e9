"""Text to speech: /sdk/tts, /sdk/tts/stream, and who can speak, /sdk/tts/providers."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from homeport.home import Home
from homeport.identity import Principal
from homeport.replies import EventStream, Frames, Reply
from homeport.speech.speaking import MAX_SPEED, MIN_SPEED, USUAL_SPEED, VoiceProvider
from homeport.speech.speeches import SpeechStream

KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 10.0
DEFAULT_VOICE = "default"


async def list_voices(home: Home) -> dict[str, Any]:
    """The providers of voices."""
    providers = await home.speaking.providers()
    default = next((each.id for each in providers if each.is_default), None)
    shown = {"success": True, "providers": [_provider(each) for each in providers]}
    return shown if default is None else shown | {"default": default}


async def create_speech(home: Home, principal: Principal, body: dict[str, Any]) -> Reply:
    """Speak a text."""
    speech = await home.speaking.speak(body["text"], caller=principal, **_options(body))
    return Reply(speech.content, media_type=speech.media_type)


async def stream_speech(home: Home, principal: Principal, body: dict[str, Any]) -> EventStream:
    """Speak a text chunk by chunk."""
    stream = await home.speaking.stream(body["text"], caller=principal, **_options(body))
    return EventStream(Frames(_frames(stream), stream))


async def _frames(stream: SpeechStream) -> AsyncGenerator[bytes]:
    yield _frame("info", {"total": stream.total, "provider": stream.provider, "voice": stream.voice})
    for _ in range(stream.total):
        coming = asyncio.ensure_future(anext(stream))
        try:
            while not (await asyncio.wait([coming], timeout=KEEP_ALIVE_S))[0]:
                yield KEEP_ALIVE
        finally:
            # Waited for: the stream cannot be closed while something is still being made of it.
            coming.cancel()
            await asyncio.wait([coming])
        chunk = coming.result()
        audio = b64encode(chunk.content).decode()
        yield _frame("chunk", {"index": chunk.index, "total": chunk.total, "audio": audio, "mimeType": chunk.media_type})
    yield _frame("done", {"total": stream.total})


def _frame(event: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))


def _options(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body.get(name) for name in ("provider", "voice", "language", "speed", "model", "format")}


def _provider(provider: VoiceProvider) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": provider.id,
        "name": provider.name,
        "type": provider.kind,
        "configured": provider.is_configured,
        "supportsStreaming": True,
    }
    if provider.note is not None:
        return shown | {"note": provider.note}
    speed = {"min": MIN_SPEED, "max": MAX_SPEED, "default": USUAL_SPEED}
    config = {"voices": [DEFAULT_VOICE, *provider.voices], "languages": list(provider.languages), "speed": speed}
    models = {"models": list(provider.models)} if provider.models else {}
    return shown | {"config": config | models}
