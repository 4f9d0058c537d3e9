"""eSpeak NG's C API, as far as it is needed here, on the library that comes in a wheel. Its state is global: one thread may use it."""

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYNCHRONOUS = 2
PIECE_MS = 100
DONT_EXIT = 0x8000  # when the data are missing, say so instead of ending the process
RATE = 1
UTF8_AND_PAUSE_AT_END = 1 | 0x1000  # no SSML, no [[phonemes]]: a text is spoken as it stands
BYTES_PER_SAMPLE = 2
MAX_SAMPLES_BYTES = 64 * 1024 * 1024  # 25 minutes, of one sentence

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("padding", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class _ListedVoice:
    name: str
    identifier: str
    languages: tuple[str, ...]


class EspeakLibrary:
    """The library, loaded and ready. Raises OSError when it cannot be."""

    def __init__(self) -> None:
        import espeakng_loader  # type: ignore[import-untyped]

        self._data = Path(espeakng_loader.get_data_path())
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        _declare(self._library)
        self._rate: int = self._library.espeak_Initialize(SYNCHRONOUS, PIECE_MS, os.fsencode(self._data), DONT_EXIT)
        if self._rate <= 0:
            raise OSError("eSpeak NG finds no data")
        self._samples = bytearray()
        self._callback = _Callback(self._take)  # kept: the library calls it for as long as it is loaded
        self._library.espeak_SetSynthCallback(self._callback)

    def voices(self) -> dict[str, Any]:
        """``voices``, as ``[identifier, name, [language, …]]``, without those that the library has no dictionary for; and ``variants``,
        what may follow an identifier after a ``+``."""
        spoken = [each for each in self._listed(None) if self._has_dictionary(each)]
        wanted = _Voice(languages=ctypes.cast(ctypes.c_char_p(b"variant"), ctypes.c_void_p))
        variants = [each.identifier.rpartition("/")[2] for each in self._listed(ctypes.byref(wanted))]
        return {"voices": [[each.identifier, each.name, each.languages] for each in spoken], "variants": variants}

    def speak(self, text: str, voice: str, wpm: int, folder: str) -> tuple[bytes, int]:
        """The samples of a text, and their rate. Raises RuntimeError."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"the voice {voice!r} was not taken")
        self._library.espeak_SetParameter(RATE, wpm, 0)
        self._samples.clear()
        content = text.encode()
        status = self._library.espeak_Synth(content, len(content) + 1, 0, 1, 0, UTF8_AND_PAUSE_AT_END, None, None)
        if status != 0:
            raise RuntimeError(f"the synthesis failed ({status})")
        samples, self._samples = bytes(self._samples), bytearray()
        return samples, self._rate

    def _take(self, samples: int | None, count: int, events: int | None) -> int:
        """Called with each piece of sound; another answer than 0 ends the synthesis."""
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, count * BYTES_PER_SAMPLE)
        return int(len(self._samples) > MAX_SAMPLES_BYTES)

    def _listed(self, wanted: object) -> Iterator[_ListedVoice]:
        listed = self._library.espeak_ListVoices(wanted)
        number = 0
        while listed[number]:
            voice = listed[number].contents
            yield _ListedVoice(voice.name.decode().strip(), voice.identifier.decode(), tuple(_languages(voice.languages)))
            number += 1

    def _has_dictionary(self, voice: _ListedVoice) -> bool:
        lines = (self._data / "lang" / voice.identifier).read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.split()[1] for line in lines if line.startswith("dictionary ")]
        return (self._data / f"{named[0] if named else voice.languages[0].partition('-')[0]}_dict").exists()


def _declare(library: ctypes.CDLL) -> None:
    library.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    library.espeak_SetSynthCallback.argtypes = (_Callback,)
    library.espeak_SetSynthCallback.restype = None
    library.espeak_SetVoiceByName.argtypes = (ctypes.c_char_p,)
    library.espeak_SetParameter.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
    library.espeak_ListVoices.argtypes = (ctypes.c_void_p,)
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_Synth.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )


def _languages(address: int) -> Iterator[str]:
    """A list in memory: a byte of priority and a text for each language, and a zero at the end."""
    while ctypes.string_at(address, 1) != b"\0":
        tag = ctypes.string_at(address + 1)
        yield tag.decode()
        address += 1 + len(tag) + 1
