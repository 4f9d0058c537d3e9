"""Listening over the wire: an app asks with the official SDK, and a sentence is spoken into the microphone of the server's machine."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from realtimex_sdk import RealtimeXSDK, SDKConfig  # type: ignore[import-untyped]

from adapters.audio.pcm import Pcm
from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, TIMEOUT_S, Server, Servers, eventually
from tests.sounds import speak, wrong_words
from tests.virtual_microphone import NO_SOUND, VirtualMicrophone, virtual_microphone

SENTENCE = "please open the door"


@pytest.fixture(scope="module")
def microphone() -> Iterator[VirtualMicrophone]:
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture(scope="module")
def servers(folder: Path, running_upstream: RunningUpstream) -> Iterator[Servers]:
    with Servers(folder, **provider_settings(running_upstream)) as servers:
        yield servers


@pytest.fixture(scope="module")
def server(servers: Servers, microphone: VirtualMicrophone) -> Server:
    """A server whose machine has a microphone. It has loaded what it recognizes speech with: on a busy machine that alone takes longer than
    the official client waits."""
    server = servers.start("listening", **microphone.environment)
    assert post(server, timeout=200).status_code == 200
    return server


@pytest.fixture(scope="module")
def spoken() -> Pcm:
    return asyncio.run(speak(SENTENCE))


def developer(server: Server) -> RealtimeXSDK:
    """The official client, which waits 5 s for an answer."""
    return RealtimeXSDK(SDKConfig(url=server.url, api_key=server.first_key))


def post(server: Server, *, wait_s: float = PROCESS_TIMEOUT_S, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {server.first_key}"}
    return httpx.post(f"{server.url}/sdk/stt/listen", json=options, headers=headers, timeout=wait_s, trust_env=False)


def recorders(microphone: VirtualMicrophone, wanted: int) -> None:
    """Wait until so many record."""
    eventually(microphone.recorders, lambda found: found == wanted, 2 * TIMEOUT_S)


@pytest.mark.long
@pytest.mark.anyio
async def test_the_official_client_is_told_what_was_said(server: Server, microphone: VirtualMicrophone, spoken: Pcm) -> None:
    playing = asyncio.create_task(asyncio.to_thread(microphone.play_to_next, spoken))
    answer = await developer(server).stt.listen({"timeout": 3000, "language": "en-US"})
    await playing
    assert answer["success"] is True
    assert wrong_words(SENTENCE, answer["text"]) <= 1
    assert microphone.recorders() == 0


@pytest.mark.anyio
@pytest.mark.parametrize("timeout_ms", [200, 3000, 5000])
async def test_silence_is_an_empty_text_before_the_official_client_gives_up(server: Server, timeout_ms: int) -> None:
    answer = await developer(server).stt.listen({"timeout": timeout_ms})
    assert (answer["success"], answer["text"], answer["segments"]) == (True, "", [])


def test_one_listens_at_a_time_and_a_client_that_leaves_frees_the_microphone(
    server: Server, microphone: VirtualMicrophone, spoken: Pcm
) -> None:
    with ThreadPoolExecutor(1) as executor:
        first = executor.submit(post, server, wait_s=3.0, timeout=60_000)
        recorders(microphone, 1)
        second = post(server, timeout=60_000)
        assert (second.status_code, second.json()["code"]) == (409, "MICROPHONE_BUSY")
        assert isinstance(first.exception(), httpx.ReadTimeout)
    recorders(microphone, 0)

    with ThreadPoolExecutor(1) as executor:
        third = executor.submit(post, server, timeout=60_000)
        microphone.play_to_next(spoken)
        assert wrong_words(SENTENCE, third.result().json()["text"]) <= 1


def test_a_wrong_choice_is_refused_at_once(server: Server) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (({"model": "nothing"}, "INVALID_MODEL"), ({"language": "de"}, "INVALID_LANGUAGE"))
    for options, code in wrong:
        answer = post(server, **options)
        assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.long
def test_many_listeners_leave_nothing_behind(server: Server, microphone: VirtualMicrophone) -> None:
    process = psutil.Process(server.process.pid)

    def held() -> tuple[int, int, int]:
        return process.num_fds(), process.num_threads(), len(process.children(recursive=True))

    assert post(server, timeout=300).status_code == 200
    before = held()
    for _ in range(20):
        assert post(server, timeout=300).json()["text"] == ""
    # Connections and workers for blocking calls come and go; what listening held would be twenty of each.
    eventually(held, lambda now: all(new <= old + 5 for new, old in zip(now, before, strict=True)), 2 * TIMEOUT_S)
    recorders(microphone, 0)


@pytest.mark.anyio
async def test_without_a_sound_system_the_official_client_is_told_what_to_do(servers: Servers) -> None:
    server = servers.start("deaf", **NO_SOUND)
    with pytest.raises(Exception, match="No microphone can be used"):
        await developer(server).stt.listen({"timeout": 3000})
    answer = post(server)
    assert (answer.status_code, answer.json()["code"]) == (503, "MICROPHONE_UNAVAILABLE")
    assert "ALSA" not in server.log
