"""Speech to text: /sdk/stt/providers, /sdk/stt/transcribe, /sdk/stt/listen."""

import base64
from typing import Any

from homeport.errors import InvalidRequest
from homeport.home import Home
from homeport.speech.recognition import RecognitionProvider, Transcript


async def list_recognizers(home: Home) -> dict[str, Any]:
    """The recognisers that can be used now."""
    return {"success": True, "providers": [_provider(each) for each in await home.recognition.providers() if each.problem is None]}


async def transcribe_audio(home: Home, body: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
    """Write down what is said in an audio file."""
    content = await _uploaded(files["audio"]) if "audio" in files else _decoded(body["audio"])
    return _result(await home.recognition.transcribe(content, **_options(body)))


async def listen(home: Home, body: dict[str, Any]) -> dict[str, Any]:
    """Listen to the microphone."""
    return _result(await home.listening.listen(**_options(body), timeout_ms=body.get("timeout")))


async def _uploaded(uploads: list[Any]) -> bytes:
    if len(uploads) > 1:
        raise InvalidRequest("body/audio: send one file at a time.")
    content: bytes = await uploads[0].read()
    return content


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest("body/audio: this is not base64.") from error


def _options(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body.get(name) for name in ("provider", "model", "language")}


def _result(found: Transcript) -> dict[str, Any]:
    return {
        "success": True,
        "text": found.text,
        **({"language": found.language} if found.language else {}),
        "duration": round(found.duration_s, 3),
        "segments": [{"start": each.start_s, "end": each.end_s, "text": each.text} for each in found.segments],
        "provider": found.provider,
        "model": found.model,
    }


def _provider(provider: RecognitionProvider) -> dict[str, Any]:
    models = []
    for number, model in enumerate(provider.models):
        size = f"{model.size_bytes / 1e6:.0f} MB" if model.size_bytes else None
        shown = {"id": model.id, "name": model.name, "provider": provider.id, "language": model.language, "size": size}
        models.append({**{name: value for name, value in shown.items() if value is not None}, "recommended": number == 0})
    return {"id": provider.id, "name": provider.name, "description": provider.description, "models": models}
