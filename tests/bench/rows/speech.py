"""Speech: how fast each engine is and what it takes, how soon a stream can be heard, and many texts at once.

An engine has the first core to itself. Homeport has both where texts are spoken at once.
"""

import json
import statistics
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.bench.calls import Calls, first_ms, running_caller
from tests.bench.cores import SERVER_CORE
from tests.bench.homeport_server import running_homeport
from tests.bench.peers.speech_calls import SENTENCES
from tests.bench.table import Effort, Line, Measured
from tests.bench.workers import Worker, running_worker
from tests.whisper_fixture import make_whisper_model

PARAGRAPH = " ".join(SENTENCES * 2)
FIRST_CHUNK = "event: chunk"
LAST_EVENT = f'event: done\ndata: {{"total":{len(SENTENCES) * 2}}}\n\n'
FIRST_CHUNK_MS = 300
AT_ONCE = 8
COLD_STARTS = 3


def measure_engines(folder: Path, effort: Effort) -> list[Line]:
    """Each engine in process: seconds of work for a second of sound, and the memory that it takes once it is loaded."""
    whisper = folder / "whisper" / "tiny-shaped"
    if not whisper.exists():
        make_whisper_model(whisper)
    engines = {
        "espeak": "espeak (voice)",
        "system": "system, pyttsx3 (voice)",
        "pocketsphinx": "pocketsphinx (recogniser)",
        str(whisper): "whisper on the tests' model (recogniser; no real model is as small)",
    }
    said = str(folder / "said.raw")
    with _running_engine("espeak", said) as worker:
        worker.ask("record")
    lines = []
    for engine, what in engines.items():
        with _running_engine(engine, said) as worker:
            memory = worker.ask("memory")
            took = [worker.ask(max(effort.calls // 60, 1)) for _ in range(effort.rounds)]
        lines += [Line("speech", f"real-time factor of {what}, one core", _shown_factor(took)), _memory_line(what, memory)]
    return lines


def measure_stream(folder: Path, effort: Effort) -> list[Line]:
    """The time to the first chunk of a stream over HTTP with the local voice, warm, and when nobody has spoken before."""
    body = json.dumps({"text": PARAGRAPH})
    cold = []
    for _ in range(COLD_STARTS):
        with running_homeport(folder) as homeport, running_caller() as caller:
            url = f"{homeport.base}/sdk/tts/stream"
            cold.append(first_ms(url, homeport.headers, body, FIRST_CHUNK))
            calls = Calls(url, homeport.headers, [body], count=effort.calls // 4, first=FIRST_CHUNK, last=LAST_EVENT)
            warm = [caller.make(calls).first_ms for _ in range(effort.rounds)]
    sentences = f"{len(SENTENCES) * 2} sentences"
    return [_first_chunk_line(f"p50 of streams of {sentences}, warm", warm), _first_chunk_line("the first stream after the start", cold)]


def measure_at_once(folder: Path, effort: Effort) -> list[Line]:
    """Eight texts at once, until all of them are spoken, against one alone, on both cores."""
    with running_homeport(folder, core=None) as homeport, running_caller() as caller:
        url, bodies = f"{homeport.base}/sdk/tts", [json.dumps({"text": PARAGRAPH})]
        alone, together = [], []
        for _ in range(effort.rounds):
            alone.append(caller.make(Calls(url, homeport.headers, bodies, count=effort.calls // 10)).p50_ms)
            took = [caller.make(Calls(url, homeport.headers, bodies, AT_ONCE, AT_ONCE)) for _ in range(effort.rounds)]
            together.append(statistics.median(1000 * AT_ONCE / each.rate for each in took))
    one, all_of_them = Measured.of(alone), Measured.of(together)
    times = all_of_them.median / one.median
    value = f"{times:.2f} x (±{one.spread + all_of_them.spread:.0%}; {all_of_them.median:.0f} against {one.median:.0f} ms)"
    what = f"{AT_ONCE} texts of {len(PARAGRAPH)} characters at once over HTTP against one alone, two cores"
    return [Line("speech-at-once", what, value, f"≤ {AT_ONCE} x", times <= AT_ONCE)]


def _running_engine(engine: str, said: str) -> AbstractContextManager[Worker]:
    return running_worker("tests.bench.peers.speech_calls", engine, said, core=SERVER_CORE)


def _first_chunk_line(what: str, times: list[float]) -> Line:
    median = statistics.median(times)
    value = f"{median:.0f} ms ({min(times):.0f} to {max(times):.0f})"
    return Line("speech-stream", f"time to the first chunk over HTTP, {what}", value, f"≤ {FIRST_CHUNK_MS} ms", median <= FIRST_CHUNK_MS)


def _shown_factor(took: list[dict[str, Any]]) -> str:
    sound_s = took[0]["sound_s"]
    work = Measured.of([statistics.median(each["times"]) for each in took])
    return f"{work.median / sound_s:.4f} (±{work.spread:.0%}; {work.median * 1000:,.0f} ms for {sound_s:.1f} s of sound)"


def _memory_line(what: str, memory: dict[str, float]) -> Line:
    own = f"{memory['own_mb']:.0f} MB in the server"
    others = f"{memory['others_mb']:.0f} MB in {memory['others']:.0f} process of its own, " if memory["others"] else ""
    return Line("speech", f"memory of {what}, loaded", f"{others}{own}; first use {memory['first_s']:.2f} s")
