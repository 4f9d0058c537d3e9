"""Speech to text over the wire: an app lists the recognisers with the official SDK, and sends files to be written down."""

import asyncio
import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from realtimex_sdk import PermissionDeniedError, RealtimeXSDK  # type: ignore[import-untyped]

from adapters.audio.files import encode
from adapters.audio.pcm import Pcm
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, eventually
from tests.sounds import make_file, make_wav, speak, tone
from tests.whisper_fixture import SENTENCE, make_whisper_model

Sdk = Callable[..., RealtimeXSDK]
Json = dict[str, Any]

SAID = "write a letter to the president"


@pytest.fixture(scope="module")
def spoken() -> Pcm:
    return asyncio.run(speak(SAID, "please open the door"))


@pytest.fixture(scope="module")
def app_id(admin: Admin) -> str:
    return admin.register("Dictation", granted=("stt.transcribe", "stt.listen"))


@pytest.fixture
def whisper(server: Server) -> Iterator[Path]:
    """A model of whisper that comes while the server runs, and goes again."""
    folder = make_whisper_model(server.data_dir / "speech" / "whisper" / "tiny.en")
    yield folder
    shutil.rmtree(folder)


def post(server: Server, app_id: str, path: str = "transcribe", **request: Any) -> httpx.Response:
    options = {"timeout": PROCESS_TIMEOUT_S, "trust_env": False} | request
    return httpx.post(f"{server.url}/sdk/stt/{path}", headers={"X-App-Id": app_id}, **options)


def transcribe(server: Server, app_id: str, content: bytes, **fields: str) -> Json:
    answer = post(server, app_id, files={"audio": ("recording", content)}, data=fields)
    assert answer.status_code == 200, answer.text
    result: Json = answer.json()
    return result


def words_right(text: str) -> int:
    return len(set(SAID.split()) & set(text.split()))


def test_the_official_sdk_lists_what_is_there(sdk: Sdk, app_id: str) -> None:
    answer = sdk(app_id=app_id, app_name="Dictation").stt.list_providers_sync()
    assert answer["success"] is True
    [provider] = answer["providers"]
    assert provider["id"] == "pocketsphinx"
    assert "makes many mistakes" in provider["description"]
    assert provider["models"] == [{"id": "en-us", "name": "US English", "provider": "pocketsphinx", "language": "en", "recommended": True}]


def test_a_model_that_comes_while_the_server_runs_is_used_at_once(
    server: Server, sdk: Sdk, app_id: str, whisper: Path, spoken: Pcm
) -> None:
    first, second = sdk(app_id=app_id, app_name="Dictation").stt.list_providers_sync()["providers"]
    assert (first["id"], second["id"]) == ("whisper", "pocketsphinx")
    assert first["models"] == [
        {"id": "tiny.en", "name": "Whisper tiny (English)", "provider": "whisper", "language": "en", "size": "2 MB", "recommended": True}
    ]
    assert transcribe(server, app_id, encode(spoken, "wav")) == {
        "success": True,
        "text": SENTENCE,
        "language": "en",
        "duration": pytest.approx(spoken.duration_s, abs=0.01),
        "segments": [{"start": pytest.approx(0, abs=0.5), "end": pytest.approx(2, abs=0.7), "text": SENTENCE}],
        "provider": "whisper",
        "model": "tiny.en",
    }
    assert transcribe(server, app_id, encode(spoken, "wav"), provider="pocketsphinx")["provider"] == "pocketsphinx"


@pytest.mark.parametrize("file_format", ["wav", "mp3"])
def test_a_file_that_is_uploaded_is_written_down(server: Server, app_id: str, spoken: Pcm, file_format: Any) -> None:
    result = transcribe(server, app_id, encode(spoken, file_format), provider="", language="en-US")
    assert words_right(result["text"]) >= 4
    assert (result["provider"], result["model"], result["language"]) == ("pocketsphinx", "en-us", "en")
    assert result["duration"] == pytest.approx(spoken.duration_s, abs=0.2)
    assert " ".join(each["text"] for each in result["segments"]) == result["text"]
    assert 0 <= result["segments"][0]["start"] < result["segments"][-1]["end"] <= result["duration"]


def test_a_file_in_base64_is_written_down(server: Server, app_id: str, spoken: Pcm) -> None:
    content = base64.b64encode(encode(spoken, "wav")).decode()
    answer = post(server, app_id, json={"audio": content, "provider": None, "model": None, "language": None, "more": 1})
    assert answer.status_code == 200, answer.text
    assert words_right(answer.json()["text"]) >= 4


@pytest.mark.parametrize(("container", "codec", "rate"), [("ogg", "libopus", 48_000), ("ogg", "vorbis", 44_100), ("flac", "flac", 96_000)])
def test_other_formats_are_read(server: Server, app_id: str, container: str, codec: str, rate: int) -> None:
    result = transcribe(server, app_id, make_file(tone(rate, 1.0, 2), rate, container, codec))
    assert result["duration"] == pytest.approx(1, abs=0.05)


def test_silence_is_an_empty_text(server: Server, app_id: str) -> None:
    result = transcribe(server, app_id, make_wav(tone(8_000, 2.0) * 0, 8_000, 8))
    assert (result["text"], result["segments"], result["duration"]) == ("", [], 2.0)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"files": {"audio": b"no audio"}}, 400, "VALIDATION_ERROR"),
        ({"files": {"audio": b""}}, 400, "VALIDATION_ERROR"),
        ({"files": {"sound": b"RIFF"}}, 400, "VALIDATION_ERROR"),
        ({"files": [("audio", b"RIFF"), ("audio", b"RIFF")]}, 400, "VALIDATION_ERROR"),
        ({"json": {"audio": "no base64!"}}, 400, "VALIDATION_ERROR"),
        ({"json": {"audio": ""}}, 400, "VALIDATION_ERROR"),
        ({"json": {}}, 400, "VALIDATION_ERROR"),
        ({"content": b"RIFF", "headers": {"Content-Type": "audio/wav"}}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"json": {"audio": "UklGRg==", "provider": "groq"}}, 400, "INVALID_PROVIDER"),
        ({"json": {"audio": "UklGRg==", "model": "huge"}}, 400, "INVALID_MODEL"),
        ({"json": {"audio": "UklGRg==", "provider": "whisper", "model": "base"}}, 503, "PROVIDER_UNAVAILABLE"),
        ({"files": {"audio": make_wav(tone(8_000, 0.1), 8_000, 8)}, "data": {"language": "de"}}, 400, "INVALID_LANGUAGE"),
    ],
)
def test_what_cannot_be_written_down_is_refused(server: Server, app_id: str, request_: Json, status: int, code: str) -> None:
    headers = {"X-App-Id": app_id} | request_.get("headers", {})
    answer = httpx.post(f"{server.url}/sdk/stt/transcribe", **{**request_, "headers": headers}, timeout=PROCESS_TIMEOUT_S, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["success"] is False


def test_what_plays_too_long_is_refused(server: Server, app_id: str) -> None:
    content = make_file(tone(8_000, 1_900) * 0, 8_000, "flac", "flac")
    answer = post(server, app_id, files={"audio": content})
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_an_app_needs_the_permission(server: Server, sdk: Sdk, admin: Admin) -> None:
    newcomer = admin.register("Eavesdropper")
    answer = post(server, newcomer, json={"audio": "UklGRg=="})
    assert (answer.status_code, answer.json()["permission"]) == (403, "stt.transcribe")
    admin.grant(newcomer, "stt.listen", "denied")
    with pytest.raises(PermissionDeniedError):
        asyncio.run(sdk(app_id=newcomer, app_name="Eavesdropper").stt._api_call("POST", "/sdk/stt/listen", json={}))
    assert sdk(app_id=newcomer, app_name="Eavesdropper").stt.list_providers_sync()["success"] is True


@pytest.mark.parametrize("options", [{"provider": "groq"}, {"language": "de"}, {"timeout": 99}, {"timeout": 120_001}, {"timeout": "soon"}])
def test_the_official_sdk_is_told_what_is_wrong_before_anybody_listens(sdk: Sdk, app_id: str, options: Json) -> None:
    with pytest.raises(Exception, match="^STT listen failed: ") as caught:
        sdk(app_id=app_id, app_name="Dictation").stt.listen_sync(options)
    assert "microphone" not in str(caught.value).lower()


def test_a_client_that_leaves_ends_the_work(server: Server, app_id: str, spoken: Pcm) -> None:
    content = encode(Pcm(spoken.samples * 30, spoken.rate), "wav")

    def searching() -> list[psutil.Process]:
        children = [child for process in server.processes() for child in process.children(recursive=True)]
        return [child for child in children if any("sphinx_process" in part for part in child.cmdline())]

    for _ in server.processes():  # behind nginx each gets one
        transcribe(server, app_id, encode(spoken, "wav"))
    before = searching()
    assert len(before) == len(server.processes())
    with pytest.raises(httpx.ReadTimeout):
        post(server, app_id, files={"audio": content}, timeout=httpx.Timeout(10, read=2))
    # That of the process which was asked is gone; others, of processes that were not, go on waiting for work.
    eventually(lambda: sum(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in before), lambda ended: ended == 1)
    assert words_right(transcribe(server, app_id, encode(spoken, "wav"))["text"]) >= 4
