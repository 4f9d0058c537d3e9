"""A sound system of the tests' own: PulseAudio with one sink that plays into nothing, whose monitor is the default microphone.

What is played into the sink is what a recording hears. The daemon runs in folders of its own, so nothing of the machine changes.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.audio.files import encode
from adapters.audio.pcm import Pcm
from tests.acceptance.servers import eventually
from tests.system_packages import require_package

SINK = "microphone"
TIMEOUT_S = 10.0
SILENCE_S = 0.5
PACKAGES = ("libportaudio2", "libasound2-plugins", "pulseaudio", "pulseaudio-utils")
# What a process is told so that it finds no sound system, whatever this machine has.
NO_SOUND = {
    "ALSA_CONFIG_PATH": os.devnull,
    "PULSE_SERVER": "unix:/nowhere",
    "PIPEWIRE_REMOTE": "/nowhere",
    "JACK_NO_START_SERVER": "1",
}
THROUGH_PULSEAUDIO = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"


@dataclass(frozen=True, slots=True)
class VirtualMicrophone:
    """A running sound system. Processes with ``environment`` added to theirs use it."""

    environment: dict[str, str]
    daemon: "subprocess.Popen[bytes]"

    @contextmanager
    def playing(self, sound: Pcm) -> Iterator["subprocess.Popen[bytes]"]:
        """Play a sound into the microphone, from now on; stopped on the way out."""
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(encode(sound, "wav"))
            file.flush()
            with self.running("paplay", f"--device={SINK}", file.name) as player:
                yield player

    def play_to_next(self, sound: Pcm) -> None:
        """Wait until somebody records, play a sound, and return when it has been played."""
        eventually(self.recorders, timeout_s=TIMEOUT_S)
        # A recording that has just been opened misses the first moments.
        silence = bytes(2 * int(SILENCE_S * sound.rate))
        with self.playing(Pcm(silence + sound.samples, sound.rate)) as player:
            assert player.wait(60) == 0

    def recorders(self) -> int:
        """How many recordings are open, without the one that keeps the sink awake."""
        listed = self._pactl("list", "short", "source-outputs")
        assert listed.returncode == 0, listed.stderr
        return len(listed.stdout.splitlines()) - 1

    def is_up(self) -> bool:
        """Whether it answers."""
        return self._pactl("info").returncode == 0

    def _pactl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["pactl", *arguments]
        return subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    @contextmanager
    def running(self, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A process that uses it; ended on the way out."""
        process = subprocess.Popen(command, env=os.environ | self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait(TIMEOUT_S)


@contextmanager
def virtual_microphone() -> Iterator[VirtualMicrophone]:
    """Start the sound system, and end it on the way out."""
    for package in PACKAGES:
        require_package(package)
    # The path of a socket may have 108 characters: not below pytest's own folders.
    with tempfile.TemporaryDirectory(prefix="sound-") as name, (Path(name) / "log").open("w+b") as log:
        (Path(name) / ".asoundrc").write_text(THROUGH_PULSEAUDIO, encoding="utf-8")
        environment = {"HOME": name, "XDG_RUNTIME_DIR": name, "PULSE_SERVER": f"unix:{name}/socket"}
        daemon = subprocess.Popen(_command(name), env=os.environ | environment, stdout=log, stderr=log)
        microphone = VirtualMicrophone(environment, daemon)
        try:
            eventually(lambda: daemon.poll() is not None or microphone.is_up(), timeout_s=TIMEOUT_S)
            assert daemon.poll() is None, (Path(name) / "log").read_text(encoding="utf-8")
            # Without a reader the sink hands on what it plays every two seconds only.
            with microphone.running("parec", f"--device={SINK}.monitor", "--latency-msec=20"):
                eventually(lambda: microphone.recorders() == 0, timeout_s=TIMEOUT_S)
                yield microphone
        finally:
            daemon.kill()
            daemon.wait(TIMEOUT_S)


def _command(folder: str) -> list[str]:
    modules = [
        f"module-native-protocol-unix socket={folder}/socket auth-anonymous=1",
        f"module-null-sink sink_name={SINK} rate=48000 channels=1",
    ]
    options = ["--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no", "--realtime=no", "--high-priority=no"]
    return ["pulseaudio", "-n", "--daemonize=no", *options, *(f"--load={module}" for module in modules)]
