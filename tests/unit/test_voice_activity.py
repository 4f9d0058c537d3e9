"""Where speech begins and ends, in made-up sounds and levels; with spoken sentences it is tested among the integration tests."""

import math
import random
from array import array

import pytest

from adapters.audio.voice_activity import LOWEST_DB, Speech, VoiceActivity, find_speech, level_db, noise_floor_db

RATE = 16_000
BLOCK = RATE // 10


def noise(duration_s: float, level: float, *, constant: int = 0) -> bytes:
    """White noise of a level in dB, the same each time, around a constant."""
    source = random.Random(7)
    deviation = 32768 / math.sqrt(2) * 10 ** (level / 20)
    values = (round(source.gauss(constant, deviation)) for _ in range(round(duration_s * RATE)))
    return array("h", (max(-32768, min(32767, value)) for value in values)).tobytes()


def heard(*sounds: bytes) -> VoiceActivity:
    """What is known when all the sounds have come, in blocks, unless speech has ended before."""
    samples = b"".join(sounds)
    activity = VoiceActivity(RATE)
    for start in range(0, len(samples), 2 * BLOCK):
        activity.add(samples[start : start + 2 * BLOCK])
        if activity.has_ended:
            break
    return activity


def duration_s(activity: VoiceActivity) -> float:
    speech = activity.speech()
    assert speech is not None
    return speech.duration_s


def test_the_level_of_a_sound_is_that_of_a_sine_as_loud() -> None:
    sine = array("h", (round(32767 * math.sin(2 * math.pi * 1000 * time / RATE)) for time in range(BLOCK)))
    assert level_db(sine.tobytes()) == pytest.approx(0, abs=0.01)
    assert level_db(noise(1, -30)) == pytest.approx(-30, abs=0.5)
    assert level_db(noise(1, -50, constant=3000)) == pytest.approx(-50, abs=0.5)
    assert level_db(bytes(100)) == level_db(array("h", [5000] * 100).tobytes()) == LOWEST_DB


@pytest.mark.parametrize("level", [-20, -40, -60, -80])
def test_steady_noise_is_no_speech_however_loud(level: int) -> None:
    assert not heard(noise(6, level)).has_begun
    assert heard(noise(6, level)).speech() is None


def test_silence_and_a_constant_are_no_speech() -> None:
    assert not heard(bytes(2 * RATE * 5)).has_begun
    assert not heard(array("h", [900] * RATE * 5).tobytes()).has_begun


def test_a_device_that_begins_late_is_no_silence_before_speech() -> None:
    assert not heard(bytes(2 * RATE // 2), noise(6, -40)).has_begun


def test_a_click_is_no_speech() -> None:
    assert not heard(noise(1, -60), noise(0.08, -10), noise(2, -60)).has_begun


@pytest.mark.parametrize("room", [-100, -70, -45])
def test_speech_has_ended_after_a_pause_and_not_before(room: int) -> None:
    assert not heard(noise(1, room), noise(1, -25), noise(0.7, room)).has_ended
    activity = heard(noise(1, room), noise(1, -25), noise(3, room))
    assert activity.has_ended
    assert duration_s(activity) == pytest.approx(0.5 + 1 + 0.3, abs=0.11)


def test_a_short_pause_is_part_of_what_is_said() -> None:
    activity = heard(noise(1, -60), noise(1, -25), noise(0.6, -60), noise(1, -25), noise(3, -60))
    assert activity.has_ended
    assert duration_s(activity) == pytest.approx(0.5 + 2.6 + 0.3, abs=0.11)


def test_who_speaks_from_the_first_moment_is_heard_from_there() -> None:
    activity = heard(noise(0.5, -25), noise(3, -60))
    assert activity.has_ended
    assert duration_s(activity) == pytest.approx(0.5 + 0.3, abs=0.11)


def test_speech_that_is_cut_off_by_the_end_of_the_recording_is_kept() -> None:
    activity = heard(noise(1, -60), noise(2, -25))
    assert activity.has_begun
    assert not activity.has_ended
    assert duration_s(activity) == pytest.approx(0.5 + 2, abs=0.11)


def test_sound_that_comes_in_odd_pieces_is_the_same() -> None:
    samples = noise(1, -60) + noise(1, -25) + noise(1, -60)
    activity = VoiceActivity(RATE)
    for start in range(0, len(samples), 1_234):
        activity.add(samples[start : start + 1_234])
    assert activity.speech() == heard(samples).speech()


def test_the_noise_floor_is_the_quietest_sound_and_never_nothing() -> None:
    assert noise_floor_db([-40, -50, -30]) == -50
    assert noise_floor_db([-80]) == noise_floor_db([LOWEST_DB]) == noise_floor_db([]) == -65


def test_speech_once_found_stays_when_it_gets_louder_all_around() -> None:
    known = find_speech([-60] * 20 + [-20] * 10)
    assert known == Speech(20, 30)
    assert find_speech([-60] * 20 + [-20] * 10 + [-20] * 80, known) == known
