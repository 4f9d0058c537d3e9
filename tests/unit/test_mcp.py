"""The parts of MCP sessions that need no server: lines, limits, the log, words from outside, and what importing costs."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mcp.failures import clean, find_cause
from adapters.mcp.limit import Limit
from adapters.mcp.lines import LineBuffer, Oversized
from adapters.processes.log import MAX_BYTES, ProcessLog, follow_log, old_path, tail_log

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_come_whole_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    buffer = LineBuffer(1000)
    found = [line for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for line in buffer.feed(stream[start:end])]
    assert found == lines


@pytest.mark.parametrize("piece", [1, 7, 1000, 10_000])
def test_a_line_that_is_too_long_is_read_past_and_its_edges_are_kept(piece: int) -> None:
    stream = b"first\n" + b"<" + b"x" * 3000 + b">\nlast\n"
    buffer = LineBuffer(1000)
    found = [line for start in range(0, len(stream), piece) for line in buffer.feed(stream[start : start + piece])]
    assert found[0] == b"first"
    assert found[2] == b"last"
    assert isinstance(found[1], Oversized)
    assert found[1].head.startswith(b"<xxx")
    assert found[1].tail.endswith(b"xxx>")


def test_a_line_of_just_the_largest_size_is_no_too_long_one() -> None:
    assert list(LineBuffer(5).feed(b"12345\n123456\n")) == [b"12345", Oversized(b"123456", b"123456")]


def test_a_log_is_bounded_and_keeps_one_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = ProcessLog(path)
    for number in range(30):
        log.write(f"{number} ".encode() + b"x" * (MAX_BYTES // 10) + b"\n")
    log.close()
    assert {file.name for file in tmp_path.iterdir()} == {"a.log", "a.log.1"}
    assert all(file.stat().st_size < 1.2 * MAX_BYTES for file in tmp_path.iterdir())
    assert [line.split()[0] for line in tail_log(path, 3)] == ["27", "28", "29"]
    assert len(tail_log(path, 1000)) >= 11


def test_two_programs_may_write_to_one_log(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    first, second = ProcessLog(path), ProcessLog(path)
    for number in range(30):
        first.write(f"first {number} ".encode() + b"x" * (MAX_BYTES // 20) + b"\n")
        second.write(f"second {number} ".encode() + b"x" * (MAX_BYTES // 20) + b"\n")
    first.close()
    second.close()
    assert {file.name for file in tmp_path.iterdir()} == {"a.log", "a.log.1"}
    assert [line.split()[:2] for line in tail_log(path, 4)] == [["first", "28"], ["second", "28"], ["first", "29"], ["second", "29"]]


def test_a_log_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ProcessLog(tmp_path / "file" / "a.log").note("lost")
    assert tail_log(tmp_path / "missing.log", 10) == []


def test_lines_of_ours_stand_alone_and_nothing_in_a_log_steers_a_terminal(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path / "a.log")
    log.write(b"no end of line")
    log.note("ours")
    log.write(b"\x1b[2Jred\tblue \xff\r\n")
    log.close()
    first, second, third = tail_log(tmp_path / "a.log", 10)
    assert (first, second[:4], second[-5:], third) == ("no end of line", "--- ", " ours", "[2Jred\tblue \ufffd")


def test_a_log_is_followed_across_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = ProcessLog(path)
    log.write(b"old\nlast\n")
    followed = follow_log(path, 1)
    found = [next(followed)]

    def write() -> None:
        log.write(b"one\n")
        log.close()
        path.replace(old_path(path))
        log.write(b"two\n")
        log.close()

    writer = Thread(target=write)
    writer.start()
    found += islice(followed, 2)
    writer.join()
    followed.close()
    assert found == ["last", "one", "two"]


def test_words_from_outside_are_one_short_line() -> None:
    assert clean("a\n\tb\x1b[0m \u202e c") == "a b [0m c"
    assert len(clean("long " * 1000)) == 501


def test_the_cause_in_a_group_is_found() -> None:
    cause = ValueError("inner")
    assert find_cause(ExceptionGroup("a", [ExceptionGroup("b", [cause]), KeyError()])) is cause
    assert find_cause(cause) is cause


async def _live(idle_s: float, signs: int, every_s: float) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    limit = Limit(idle_s)
    with suppress(TimeoutError):
        async with limit:
            for _ in range(signs):
                await asyncio.sleep(every_s)
                limit.renew()
            await asyncio.sleep(5)
            pytest.fail("there was no end to it")
    limit.renew()  # too late: without effect
    return loop.time() - started


def test_a_limit_ends_without_a_sign_of_life_is_renewed_by_one_and_has_an_end() -> None:
    assert asyncio.run(_live(0.05, 0, 0)) >= 0.05
    assert asyncio.run(_live(0.1, 4, 0.05)) >= 0.3
    assert asyncio.run(_live(0.05, 1000, 0.01)) >= 0.5


def test_importing_the_sessions_does_not_load_the_library() -> None:
    program = "import sys, adapters.mcp; print([name for name in ('mcp', 'mcp_types', 'httpx2') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"
