"""Piper: neural voices, for whoever installs it and puts the files of a voice into a folder.

It is not among what Homeport requires, because it is under the GPL. Each voice is loaded once, in a thread of its own that speaks.
"""

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog

from adapters.audio.pcm import Pcm
from adapters.voices import Voice
from homeport.errors import AppError, Unavailable, UpstreamError

MAX_LOADED = 2  # some 60 to 120 MB each
SUFFIX = ".onnx"
PREFERRED = {"en-us", "en-gb", "en"}

log = structlog.get_logger(__name__)

Json = dict[str, Any]


class Piper:
    """The engine, with the voices of a folder."""

    name = "piper"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "piper")
        self.loaded: OrderedDict[str, Any] = OrderedDict()
        self._is_closed = False

    def find_problem(self) -> str | None:
        """Why it cannot be used: it is not installed, or there is no voice."""
        if not find_spec("piper"):
            return "Piper is not installed: pip install 'homeport[piper]'"
        if not self._files():
            return f"Piper has no voice: put NAME{SUFFIX} and NAME{SUFFIX}.json into the folder speech/piper in Homeport's data directory."
        return None

    async def voices(self) -> Sequence[Voice]:
        """The voices whose files are in the folder now, English ones first."""
        voices = await asyncio.to_thread(lambda: [_describe(file) for file in self._files()])
        if not voices:
            raise Unavailable(self.find_problem(), code="PROVIDER_UNAVAILABLE")
        return sorted(voices, key=lambda voice: not {*voice.languages} & PREFERRED)

    async def speak(self, text: str, *, voice: Voice, speed: float) -> Pcm:
        """The sound of a text. See VoiceEngine."""
        if self._is_closed:
            raise _closed()
        is_cancelled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._speak, text, voice.id, speed, is_cancelled)
        finally:
            is_cancelled.set()

    async def close(self) -> None:
        """Wait for the sentence that is being spoken, and free the voices. What still waits fails with Unavailable."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self.loaded.clear()

    def _files(self) -> list[Path]:
        return sorted(file for file in self._folder.glob(f"*{SUFFIX}") if file.with_name(f"{file.name}.json").is_file())

    def _speak(self, text: str, voice_id: str, speed: float, is_cancelled: threading.Event) -> Pcm:
        if self._is_closed:
            raise _closed()
        name, _, speaker = voice_id.partition("+")
        model = self._load(name)
        try:
            settings = import_module("piper").SynthesisConfig(
                speaker_id=model.config.speaker_id_map.get(speaker), length_scale=model.config.length_scale / speed
            )
            pieces: list[bytes] = []
            for piece in model.synthesize(text, settings):
                pieces.append(piece.audio_int16_bytes)
                if is_cancelled.is_set():
                    break
            return Pcm(b"".join(pieces), model.config.sample_rate)
        except Exception as error:
            log.exception("Piper failed", voice=voice_id)
            raise UpstreamError(
                "Piper failed to speak. Try another voice; the server's log has the reason.", code="SPEECH_ERROR"
            ) from error

    def _load(self, name: str) -> Any:
        if name not in self.loaded:
            try:
                voice = import_module("piper").PiperVoice.load(self._folder / f"{name}{SUFFIX}", download_dir=self._folder)
            except Exception as error:
                log.exception("a voice of Piper cannot be loaded", voice=name)
                message = (
                    f"The voice '{name}' of Piper cannot be loaded. Put its two files in place again; the server's log has the reason."
                )
                raise Unavailable(message, code="PROVIDER_UNAVAILABLE") from error
            self.loaded[name] = voice
            if len(self.loaded) > MAX_LOADED:
                self.loaded.popitem(last=False)
        self.loaded.move_to_end(name)
        return self.loaded[name]


def _describe(file: Path) -> Voice:
    """A voice as its files describe it; one whose description makes no sense is there all the same, and says so when it is to speak."""
    name = file.name.removesuffix(SUFFIX)
    try:
        described: Json = json.loads(file.with_name(f"{file.name}.json").read_text(encoding="utf-8"))
        language = described.get("language", {}).get("code") or described["espeak"]["voice"]
        return Voice(name, name, (language.replace("_", "-").lower(),), variants=tuple(described.get("speaker_id_map", {})))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        log.warning("a voice of Piper is not described", voice=name)
        return Voice(name, name)


def _closed() -> AppError:
    return Unavailable("Piper was stopped before this was spoken. Try again.", code="PROVIDER_UNAVAILABLE")
