"""The good recogniser: OpenAI's Whisper on faster-whisper, once one of its models is in the data directory.

*What it takes.* Loading, at the first use, takes 0.2 s for ``tiny`` and 3 s for ``small``; then 180 and 470 MB of memory, of which a part
is given back ten minutes after the last use. It hears 30 s at a time, whatever is in them: on two cores 0.6 s of ``tiny`` and 3 s of
``small``. Before the first of them the whole sound is searched for speech, which takes a hundredth of the time that it plays. One thread
of this process, several of the library's own; int8 on the processor.

Nothing is ever fetched here: the model is a folder, and one without its tokenizer, for which the library would ask the network, is not
offered.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from adapters.audio.pcm import Pcm
from adapters.recognizers import RecognizerModel, Segment, Transcript
from adapters.recognizers.languages import check_language, read_language
from adapters.recognizers.whisper_files import USUAL, list_models
from homeport.errors import AppError, Unavailable, UpstreamError

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

NAME = "whisper"
IDLE_S = 600.0
# More threads of the library do not make one window faster, and leave nothing to the rest of the server.
MAX_THREADS = 8

log = structlog.get_logger(__name__)

Result = TypeVar("Result")


class Whisper:
    """The models in ``folder``. One is kept in memory at a time."""

    name = NAME

    def __init__(self, folder: Path, *, idle_s: float = IDLE_S) -> None:
        self._folder = folder
        self._idle_s = idle_s
        self._thread = ThreadPoolExecutor(1, NAME)
        self._loaded: tuple[str, WhisperModel] | None = None
        self._in_use = 0
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def loaded(self) -> str | None:
        """The model that is in memory now."""
        return self._loaded[0] if self._loaded is not None else None

    def models(self) -> Sequence[RecognizerModel]:
        """The complete ones in the folder, the largest first."""
        return list_models(self._folder)

    def find_problem(self) -> str | None:
        """Whether it is not installed, or has no model."""
        if find_spec("faster_whisper") is None:
            return "The recogniser whisper is not installed. Install it with `pip install faster-whisper`."
        if not self.models():
            return f"No model of whisper is here yet. Fetch one with `homeport speech pull {USUAL}`."
        return None

    async def transcribe(self, audio: Pcm, *, model: str | None, language: str | None) -> Transcript:
        """Write down ``audio`` (16 kHz), 30 s at a time; between these others have their turn, and a caller who is cancelled is noticed.

        Raises InvalidRequest for a language that the model does not know, Unavailable when it cannot be loaded, UpstreamError
        (SPEECH_ERROR).
        """
        name = self._choose(model)
        self._enter()
        try:
            pieces, info = await self._call(lambda: _begin(self._load(name), name, audio, language))
            segments = []
            while (piece := await self._call(lambda: next(pieces, None))) is not None:
                segments.append(Segment(round(piece.start, 3), round(piece.end, 3), piece.text.strip()))
        finally:
            self._leave()
        kept = tuple(each for each in segments if each.text)
        text = " ".join(each.text for each in kept)
        return Transcript(text, info.language if text else read_language(language), kept, NAME, name, audio.duration_s)

    async def prepare(self, *, model: str | None, language: str | None) -> None:
        """Load a model. Raises InvalidRequest for a language that it does not know, Unavailable."""
        name = self._choose(model)
        self._enter()
        try:
            await self._call(lambda: _check(self._load(name), name, language))
        finally:
            self._leave()

    async def close(self) -> None:
        """Free the memory, after the 30 s of sound that are listened to now. Whoever asks gets Unavailable."""
        self._is_closed = True
        if self._idle is not None:
            self._idle.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        self._loaded = None

    def _choose(self, model: str | None) -> str:
        names = [each.id for each in self.models()]
        if not names or (model is not None and model not in names):
            raise Unavailable(f"The model '{model or USUAL}' of whisper is no longer here.", code="PROVIDER_UNAVAILABLE")
        return model or names[0]

    def _enter(self) -> None:
        self._in_use += 1
        if self._idle is not None:
            self._idle.cancel()

    def _leave(self) -> None:
        self._in_use -= 1
        if not self._in_use and not self._is_closed:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._forget)

    def _forget(self) -> None:
        if not self._in_use:
            self._loaded = None

    async def _call(self, use: Callable[[], Result]) -> Result:
        if self._is_closed:
            raise _closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._in_thread, use)

    def _in_thread(self, use: Callable[[], Result]) -> Result:
        if self._is_closed:
            raise _closed()
        try:
            return use()
        except AppError:
            raise
        except Exception as error:  # ctranslate2 and onnxruntime raise classes of their own; a request must end all the same
            log.exception("whisper failed")
            raise UpstreamError(
                "The recogniser whisper failed. Try again; the server's log has the reason.", code="SPEECH_ERROR"
            ) from error

    def _load(self, name: str) -> "WhisperModel":
        if self._loaded is not None and self._loaded[0] == name:
            return self._loaded[1]
        from faster_whisper import WhisperModel

        self._loaded = None  # first, so that two are never in memory together
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        try:
            model = WhisperModel(str(self._folder / name), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True)
        except Exception as error:
            log.exception("a model of whisper cannot be loaded", model=name)
            message = f"The model '{name}' of whisper cannot be loaded; the server's log has the reason. Fetch it again, or name another."
            raise Unavailable(message, code="PROVIDER_UNAVAILABLE") from error
        self._loaded = name, model
        return model


def _begin(model: "WhisperModel", name: str, audio: Pcm, language: str | None) -> tuple[Iterator[Any], Any]:
    """The pieces, which are listened to as they are asked for, and what is known before: the language."""
    import numpy as np

    _check(model, name, language)
    values = np.frombuffer(audio.samples, "<i2").astype(np.float32) / 32768
    pieces, info = model.transcribe(values, language=read_language(language), vad_filter=True)
    return iter(pieces), info


def _check(model: "WhisperModel", name: str, language: str | None) -> None:
    known = model.supported_languages
    fix = "Leave it out, and the model finds it out." if len(known) > 1 else "Use a model without '.en' in its name."
    check_language(language, known, f"The model '{name}' of whisper", fix)


def _closed() -> AppError:
    return Unavailable("The recogniser was stopped before this was done. Try again.", code="PROVIDER_UNAVAILABLE")
