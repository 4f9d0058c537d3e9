"""The process that pyttsx3 runs in: ``python -m adapters.voices.system_process``. See ``adapters.voices.serving``.

pyttsx3 drops settings and texts, reads beyond the end of long ones, and loses errors. What is guarded against is said where it is.
"""

import ctypes
import os
import sys
import wave
from collections.abc import Callable
from pathlib import Path

from adapters.voices.serving import serve

ESPEAK_LIBRARIES = ("libespeak-ng.so.1", "libespeak.so.1")
RATE = 22_050


class Machine:
    """The machine's own voices, through pyttsx3. One text at a time, of about a sentence."""

    def __init__(self) -> None:
        if sys.platform.startswith("linux"):
            _preload_espeak()
        import pyttsx3  # type: ignore[import-untyped]

        self._engine = pyttsx3.init()
        self._driver: str = self._engine.driver_name
        self._wait: Callable[[], object] = _guard_espeak() if self._driver == "espeak" else bool
        # Until the first text pyttsx3 takes itself for busy, and would keep what is set for later.
        self._engine.proxy.setBusy(False)
        self._wait()
        self._default = self._engine.getProperty("voice")

    def voices(self) -> list[list[object]]:
        """The voices that the machine has, the one that is set first: ``[id, name, [language, …]]``."""
        found = sorted(self._engine.getProperty("voices"), key=lambda each: each.id != self._default)
        return [[each.id, each.name, [str(language) for language in each.languages if language]] for each in found]

    def speak(self, text: str, voice: str, wpm: int, folder: str) -> tuple[bytes, int]:
        """The samples of a text, and their rate. Raises RuntimeError when the voice is not there, or there is no sound."""
        self._engine.setProperty("voice", voice)
        self._engine.setProperty("rate", wpm)
        self._wait()
        if (chosen := self._engine.getProperty("voice")) != voice:
            raise RuntimeError(f"the voice {voice!r} was not taken, {chosen!r} was")
        file = Path(folder, "speech.aiff" if self._driver == "nsss" else "speech.wav")
        self._engine.save_to_file(_plain(text, self._driver), str(file))
        self._engine.runAndWait()
        self._wait()
        if not file.exists():
            raise RuntimeError("no file was written")
        return _read_wav(file) if self._driver == "espeak" else _read_any(file)


def _preload_espeak() -> None:
    """Where the machine has no eSpeak, load the one from the wheel: pyttsx3 then finds it by the name that is in it."""
    for name in ESPEAK_LIBRARIES:
        try:
            ctypes.CDLL(name)
            return
        except OSError:
            continue
    import espeakng_loader  # type: ignore[import-untyped]

    os.environ["ESPEAK_DATA_PATH"] = espeakng_loader.get_data_path()
    ctypes.CDLL(espeakng_loader.get_library_path())


def _guard_espeak() -> Callable[[], object]:
    """Keep pyttsx3 from reading beyond a text; returns how to wait until eSpeak, which works behind its back, has done what it was told.

    Without waiting it drops settings and whole texts.
    """
    from pyttsx3.drivers import _espeak  # type: ignore[import-untyped]

    def synth(text: bytes, flags: int) -> int:
        status: int = _espeak.cSynth(text, len(text) + 1, 0, _espeak.POS_CHARACTER, 0, flags, None, None)
        return status

    _espeak.Synth = synth
    wait: Callable[[], object] = _espeak.Synchronize
    return wait


def _plain(text: str, driver: str) -> str:
    """The text without what a driver would take for an order: SAPI reads a text that begins like XML as XML."""
    return text.replace("<", " ") if driver == "sapi5" else text


def _read_wav(path: Path) -> tuple[bytes, int]:
    with wave.open(str(path), "rb") as file:
        return file.readframes(file.getnframes()), file.getframerate()


def _read_any(path: Path) -> tuple[bytes, int]:
    """The samples of whatever another driver has written: macOS writes AIFF."""
    import av

    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(path)) as file:
        frames = [piece for frame in file.decode(audio=0) for piece in resampler.resample(frame)]
    frames += resampler.resample(None)
    return b"".join(bytes(each.planes[0])[: each.samples * 2] for each in frames), RATE


if __name__ == "__main__":
    serve(Machine)
