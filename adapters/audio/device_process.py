"""The process that holds a sound device, one for each recording or playback: ``python -m adapters.audio.device_process WORK LIBRARY``.

A process of its own, because sound systems hang, crash, write to standard error and remember what was plugged in when they were loaded;
and because whatever it held is free when it has ended. ``WORK`` is

    record    samples of the default recording device to standard output, until standard input ends
    play      samples from standard input, the rate being the first line, to the default playback device
    find      nothing more than to look for the default recording device

Samples are as in ``adapters.audio.pcm``. The first line on standard output is JSON: either what was opened (``device``, ``rate``) or
``problem``, why it could not be.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from typing import BinaryIO, NoReturn, Protocol, TypeVar

BLOCK_S = 0.1
# With PortAudio's own choice it loses sound and takes up to 70 times the CPU.
LATENCY_S = 0.3
MAX_WAITING_BLOCKS = 50
PIECES_AHEAD = 4
SAMPLE_BYTES = 2
# What is asked of a library that does not tell the device's own rate; it converts.
USUAL_RATE = 48_000

Blocks = queue.Queue[bytes | None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Opened:
    """The device that was opened, as the first line tells it."""

    device: str
    rate: int


class Output(Protocol):
    """An opened playback device."""

    def write(self, samples: bytes) -> None:
        """Play samples after those before; waits while enough are waiting."""

    def finish(self) -> None:
        """Wait until everything has been played."""


def record_with_sounddevice(blocks: Blocks) -> Opened:
    """Start to put what the default device hears into ``blocks``."""
    import sounddevice  # type: ignore[import-untyped]  # raises OSError where PortAudio is missing

    device = sounddevice.query_devices(kind="input")
    rate = int(device["default_samplerate"])

    def take(samples: bytes, *_: object) -> None:
        _hand_over(blocks, bytes(samples))

    stream = sounddevice.RawInputStream(
        samplerate=rate,
        blocksize=int(rate * BLOCK_S),
        channels=1,
        dtype="int16",
        latency=LATENCY_S,
        callback=take,
        finished_callback=lambda: _hand_over(blocks, None),
    )
    stream.start()
    _KEPT.append(stream)
    return Opened(device["name"], rate)


def record_with_miniaudio(blocks: Blocks) -> Opened:
    """Start to put what the default device hears into ``blocks``."""
    import miniaudio  # type: ignore[import-untyped]

    def take() -> Generator[None, bytes, None]:
        while True:
            _hand_over(blocks, bytes((yield)))

    taking = take()
    next(taking)
    device = miniaudio.CaptureDevice(nchannels=1, sample_rate=USUAL_RATE, buffersize_msec=int(BLOCK_S * 1000))
    _refuse_no_device(device.backend)
    device.stop_callback = lambda: _hand_over(blocks, None)
    device.start(taking)
    _KEPT.append(device)
    return Opened(device.backend, USUAL_RATE)


def find_with_sounddevice() -> Opened:
    """The default recording device, not opened."""
    import sounddevice

    device = sounddevice.query_devices(kind="input")
    return Opened(device["name"], int(device["default_samplerate"]))


def find_with_miniaudio() -> Opened:
    """The first recording device, not opened."""
    import miniaudio

    devices = miniaudio.Devices()
    _refuse_no_device(devices.backend)
    found = devices.get_captures()
    return Opened(found[0]["name"], USUAL_RATE)


class SounddeviceOutput:
    """The default playback device through PortAudio."""

    def __init__(self, rate: int) -> None:
        import sounddevice

        self.opened = Opened(sounddevice.query_devices(kind="output")["name"], rate)
        self._stream = sounddevice.RawOutputStream(samplerate=rate, channels=1, dtype="int16", latency=LATENCY_S)
        self._stream.start()
        self._rest = bytes(int(rate * LATENCY_S) * SAMPLE_BYTES)

    def write(self, samples: bytes) -> None:
        """Play samples after those before; waits while enough are waiting."""
        self._stream.write(samples)

    def finish(self) -> None:
        """Wait until everything has been played."""
        # Silence after it, because stopping cuts off what the sound system still holds.
        self._stream.write(self._rest)
        self._stream.stop()


class MiniaudioOutput:
    """The default playback device through miniaudio, which fetches what it plays."""

    def __init__(self, rate: int) -> None:
        import miniaudio

        self._waiting: Blocks = queue.Queue(MAX_WAITING_BLOCKS)
        self._is_done = threading.Event()
        self._rest = bytearray()
        device = miniaudio.PlaybackDevice(nchannels=1, sample_rate=rate, buffersize_msec=int(BLOCK_S * 1000))
        _refuse_no_device(device.backend)
        giving = self._give()
        next(giving)
        device.start(giving)
        _KEPT.append(device)
        self.opened = Opened(device.backend, rate)

    def write(self, samples: bytes) -> None:
        """Play samples after those before; waits while enough are waiting."""
        self._waiting.put(samples)

    def finish(self) -> None:
        """Wait until everything has been played."""
        self._waiting.put(None)
        self._is_done.wait()

    def _give(self) -> Generator[bytes, int, None]:
        """What the device asks for: so many frames of samples, or of silence while none wait."""
        is_last = False
        silent = 0
        frames = yield b""
        while True:
            while len(self._rest) < frames * SAMPLE_BYTES and not is_last:
                try:
                    samples = self._waiting.get_nowait()
                except queue.Empty:
                    break
                is_last = samples is None
                self._rest += samples or b""
            given = bytes(self._rest[: frames * SAMPLE_BYTES])
            del self._rest[: len(given)]
            if is_last and not given:
                # Several pieces that it was given before may still be waiting to be played.
                silent += 1
                if silent > PIECES_AHEAD:
                    self._is_done.set()
            frames = yield given.ljust(frames * SAMPLE_BYTES, b"\0")


RECORDERS: dict[str, Callable[[Blocks], Opened]] = {"sounddevice": record_with_sounddevice, "miniaudio": record_with_miniaudio}
FINDERS: dict[str, Callable[[], Opened]] = {"sounddevice": find_with_sounddevice, "miniaudio": find_with_miniaudio}
OUTPUTS: dict[str, type[SounddeviceOutput] | type[MiniaudioOutput]] = {"sounddevice": SounddeviceOutput, "miniaudio": MiniaudioOutput}
# Devices close when nothing refers to them any more.
_KEPT: list[object] = []


def main(work: str, library: str) -> None:
    """Do the work; returns when standard input (``record``: or the device) has ended."""
    out = sys.stdout.buffer
    match work:
        case "record":
            _record(library, out)
        case "play":
            _play(library, sys.stdin.buffer, out)
        case "find":
            _open(lambda: (FINDERS[library](), None), out)


def _record(library: str, out: BinaryIO) -> None:
    blocks: Blocks = queue.Queue(MAX_WAITING_BLOCKS)
    _open(lambda: (RECORDERS[library](blocks), None), out)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    while (block := blocks.get()) is not None:
        out.write(block)
        out.flush()


def _play(library: str, source: BinaryIO, out: BinaryIO) -> None:
    rate = int(source.readline())

    def start() -> tuple[Opened, Output]:
        output = OUTPUTS[library](rate)
        return output.opened, output

    output = _open(start, out)
    while samples := source.read(int(rate * BLOCK_S) * SAMPLE_BYTES):
        output.write(samples)
    output.finish()


def _open(start: Callable[[], tuple[Opened, Result]], out: BinaryIO) -> Result:
    try:
        opened, result = start()
    except Exception as error:  # noqa: BLE001 - libraries raise what they like, and whatever it is, it is told
        _tell({"problem": f"{type(error).__name__}: {error}"}, out)
        sys.exit(1)
    _tell(asdict(opened), out)
    return result


def _tell(line: object, out: BinaryIO) -> None:
    out.write(json.dumps(line).encode() + b"\n")
    out.flush()


def _hand_over(blocks: Blocks, block: bytes | None) -> None:
    # A reader that is five seconds late loses sound: the device's thread must not wait.
    if block is None or not blocks.full():
        blocks.put(block)


def _end_with_standard_input() -> None:
    sys.stdin.buffer.read()
    _leave(0)


def _leave(status: int) -> NoReturn:
    # Not through Python's own end, which closes the device: that can hang, and the system does it anyway.
    os._exit(status)


def _refuse_no_device(backend: str) -> None:
    # What miniaudio falls back to when there is no sound system: it records silence and plays into nothing.
    if backend == "Null":
        raise OSError("there is no sound system")


if __name__ == "__main__":
    status = 1
    try:
        main(sys.argv[1], sys.argv[2])
        status = 0
    finally:
        _leave(status)
