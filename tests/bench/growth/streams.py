"""100, 1 000 and 5 000 streams that are open at once: what each takes, and what they cost whoever asks meanwhile."""

import json
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from homeport.http.protocol import raise_descriptor_limit
from tests.bench.cores import LOAD_CORE
from tests.bench.growth.study import Panel, Series, Study, publish
from tests.bench.homeport_server import Homeport, register_app
from tests.bench.peers.growth_timing import Timer, Times, running_timer
from tests.bench.peers.shapes import chat_body
from tests.bench.servers import free_port, running, running_stand_in
from tests.bench.table import QUICK, Effort, Line
from tests.bench.workers import Worker, running_worker

COUNTS = (1, 100, 1_000, 5_000)
QUICK_COUNTS = (1, 50, 200)
EVERY_S = 5  # a token of each stream
PINGS = 1_500
WARM = 20
CLOSE_LIMIT_S = 60.0
SPARE_DESCRIPTORS = 8
SPARE_MB = 24.0
NAME = "growth-streams"  # also of its data directory
PROVIDER, MODEL = "bench-clock", f"clock-{EVERY_S}"

Figures = dict[str, list[tuple[float, float]]]


def measure_streams(folder: Path, effort: Effort) -> list[Line]:
    """Up to 5 000 streams open at once: memory of each, how late tokens and pings are, processor time, what is left when they close."""
    raise_descriptor_limit()
    counts = QUICK_COUNTS if effort is QUICK else COUNTS
    pings, seconds = (100, EVERY_S + 1) if effort is QUICK else (PINGS, 2 * EVERY_S)
    found: Figures = defaultdict(list)
    with (
        running_stand_in(folder) as upstream,
        _serving(folder) as homeport,
        running_timer(homeport.base, homeport.headers) as timer,
        _streaming(homeport, upstream) as streams,
    ):
        server = psutil.Process(homeport.pid)
        timer.time([("GET", "/sdk/ping", None)] * pings)
        # A few first, so that whatever is loaded and made at the first stream is not counted as that of one.
        streams.ask({"ask": "open", "count": WARM})
        _close(streams, upstream, server, 0)
        descriptors, before_mb = server.num_fds(), _resident_mb(server)
        for count in counts:
            print(f"  {count:,} streams …", file=sys.stderr, flush=True)
            found["opened"].append((count, count / streams.ask({"ask": "open", "count": count})))
            found["resident"].append((count, _resident_mb(server)))
            _listen(count, streams, timer, server, pings, seconds, found)
        after = [_close(streams, upstream, server, descriptors)]
        again_mb = []
        for _ in range(2):
            streams.ask({"ask": "open", "count": counts[-1]})
            again_mb.append(_resident_mb(server))
            after.append(_close(streams, upstream, server, descriptors))
    most = counts[-1]
    each_kb = (found["resident"][-1][1] - before_mb) / most * 1000
    series = {name: Series(name, points) for name, points in found.items()}
    publish(_study(series, most, each_kb, before_mb, again_mb, after), effort)
    return _lines(series, most, each_kb, again_mb, [each - descriptors for each in after])


def _listen(count: int, streams: Worker, timer: Timer, server: psutil.Process, pings: int, seconds: float, found: Figures) -> None:
    """What the server does with so many streams, and how it answers others meanwhile."""
    before = _cpu_s(server)
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as listener:
        listening = listener.submit(streams.ask, {"ask": "listen", "seconds": seconds})
        heard = listening.result()
        share = (_cpu_s(server) - before) / (time.perf_counter() - started)
        listening = listener.submit(streams.ask, {"ask": "listen", "seconds": seconds})
        pinged = timer.time([("GET", "/sdk/ping", None)] * pings)
        listening.result()
    if heard["lost"]:
        raise RuntimeError(f"{heard['lost']} of {count} streams ended before they were closed")
    found["refused"].append((count, heard["refused"]))
    tokens = Times.of(heard["delays"])
    found["processor"].append((count, share * 100))
    for name, times in (("token", tokens), ("ping", pinged)):
        found[f"{name}, p50"].append((count, times.p50_ms))
        found[f"{name}, p95"].append((count, times.p95_ms))


def _close(streams: Worker, upstream: str, server: psutil.Process, descriptors: int) -> int:
    """Leave all streams; the file descriptors of the server once it and the model have noticed. Raises RuntimeError when they never do."""
    streams.ask({"ask": "close"})
    deadline = time.monotonic() + CLOSE_LIMIT_S
    url = upstream.removesuffix("/v1") + "/stand-in/state"
    while True:
        with urllib.request.urlopen(url, timeout=10) as answer:
            left = json.load(answer)["open"]
        now = server.num_fds()
        if left == 0 and (not descriptors or now <= descriptors + SPARE_DESCRIPTORS):
            return now
        if time.monotonic() > deadline:
            raise RuntimeError(f"{left} streams of the model and {now - descriptors} file descriptors are left {CLOSE_LIMIT_S:.0f} s later")
        time.sleep(0.2)


def _study(series: dict[str, Series], most: int, each_kb: float, before_mb: float, again_mb: list[float], after: list[int]) -> Study:
    ping, token, processor = series["ping, p50"], series["token, p50"], series["processor"]
    title = (
        f"{most:,} open streams take {each_kb:.0f} kB each; a ping takes {ping.points[-1][1] - ping.points[0][1]:.1f} ms longer meanwhile"
    )
    panels = [
        Panel("a token late by, a ping takes (ms)", [series[f"{name}, {which}"] for name in ("token", "ping") for which in ("p50", "p95")]),
        Panel("memory (MB)", [series["resident"]]),
        Panel("one core (%)", [processor]),
        Panel("opened a second", [series["opened"]]),
    ]
    tokens = most / EVERY_S
    notes = [
        f"A token of each stream every {EVERY_S} s: {tokens:,.0f} a second at {most:,}, with {processor.points[-1][1]:.0f} % of one core",
        f"A token is late by {token.points[-1][1]:.1f} ms at {most:,}, all the way from the model's server to the client, "
        f"and by {token.points[0][1]:.1f} ms when it is alone",
        f"Without streams the server has {before_mb:.0f} MB; closed and opened again twice, {most:,} streams take it to "
        f"{' and '.join(f'{each:.0f}' for each in again_mb)} MB, and it has as many file descriptors afterwards as before "
        f"({', '.join(map(str, after))})",
    ]
    return Study(NAME, title, "open streams", panels, notes)


def _lines(series: dict[str, Series], most: int, each_kb: float, again_mb: list[float], left: list[int]) -> list[Line]:
    lines = [Line(NAME, f"memory of each of {most:,} streams", f"{each_kb:.0f} kB")]
    for name in ("ping, p50", "ping, p95", "token, p50", "token, p95"):
        first, last = series[name].points[0][1], series[name].points[-1][1]
        lines.append(
            Line(NAME, f"{name} with {most:,} streams", f"{last - first:.2f} ms more ({last:.2f} against {first:.2f} ms with one)")
        )
    refused = int(series["refused"].points[-1][1])
    lines.append(Line(NAME, f"streams refused until {most:,} were open", f"{refused}", "0", refused == 0))
    processor = series["processor"]
    # Without what the server does when it has nothing to do.
    per_token = (processor.points[-1][1] - processor.points[0][1]) / 100 / (most / EVERY_S) * 1e6
    lines.append(Line(NAME, f"processor with {most:,} streams", f"{processor.points[-1][1]:.0f} % of one core, {per_token:.0f} µs a token"))
    grown = again_mb[-1] - again_mb[0]
    lines.append(
        Line(NAME, "memory when opened a third time against the second", f"{grown:+.1f} MB", f"≤ {SPARE_MB:g} MB", grown <= SPARE_MB)
    )
    lines.append(
        Line(
            NAME,
            "file descriptors left when all are closed",
            ", ".join(map(str, left)),
            f"≤ {SPARE_DESCRIPTORS}",
            max(left) <= SPARE_DESCRIPTORS,
        )
    )
    return lines


def _resident_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _serving(folder: Path) -> Iterator[Homeport]:
    """The command as people run it, because it is what bounds connections and their number."""
    port, data_dir = free_port(), folder / NAME
    environment = {
        "HOMEPORT_DATA_DIR": str(data_dir),
        "HOMEPORT_PORT": str(port),
        "HOMEPORT_LOG_LEVEL": "warning",
        "HOMEPORT_OLLAMA_URL": "off",
    }
    base = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "homeport", "serve"], f"{base}/health", folder / f"{NAME}.log", environment) as pid:
        register_app(data_dir)
        yield Homeport(base, pid, data_dir)


@contextmanager
def _streaming(homeport: Homeport, upstream: str) -> Iterator[Worker]:
    """The clients, in a process of their own on the second core."""
    homeport.add_provider(PROVIDER, "--base-url", upstream, "--model", MODEL)
    body = json.dumps({**chat_body(), "provider": PROVIDER, "model": MODEL})
    with running_worker("tests.bench.peers.growth_streams", homeport.base, json.dumps(homeport.headers), body, core=LOAD_CORE) as worker:
        yield worker
