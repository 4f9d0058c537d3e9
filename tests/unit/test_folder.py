"""A folder in which strangers name the files. Everything here happens in a folder of the test's own."""

import os
import shutil
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from adapters import folder as folder_module
from adapters.folder import MAX_DEPTH, MAX_FILE_BYTES, PART_PREFIX, Folder, check_path
from homeport.errors import AppError, Conflict, InvalidRequest, NotFound, PayloadTooLarge


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of an owner; beside it lies what must not be reached."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "owner").mkdir(mode=0o700)
    return tmp_path / "owner"


@pytest.fixture
def folder(base: Path) -> Folder:
    return Folder(base, "workspaces", "default")


@pytest.mark.parametrize("path", ["a", "notes/today.md", "./a.txt", "ä ö/ü.txt", ".hidden", "a..b", "console.txt", "名前/メモ.md"])
def test_what_can_be_a_path_is_one(folder: Folder, path: str) -> None:
    written = folder.write(path, b"text")
    assert written.path == path.removeprefix("./")
    assert folder.read(path) == b"text"
    assert [entry.path for entry in folder.list()] == [written.path]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        "a/./b",
        "../secret.txt",
        "a/../../secret.txt",
        "..\\secret.txt",
        "C:/secret.txt",
        "c:secret",
        "a:stream",
        "\\\\server\\share",
        "nul",
        "CON.txt",
        "a/com1.log",
        "lpt¹",
        "a\0b",
        "a\nb",
        "a\x7f",
        "a.",
        "a ",
        " a",
        "a./b",
        "\ud800",
        "x" * 256,
        "ä" * 128,
        "/".join("a" * (MAX_DEPTH + 1)),
        "a/" * 251,
        f"{PART_PREFIX}1",
        f"a/{PART_PREFIX.upper()}1",
    ],
)
def test_what_cannot_be_a_path_is_refused_for_reading_and_writing(folder: Folder, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_path(path)
    assert caught.value.code == "INVALID_PATH"
    with pytest.raises(InvalidRequest):
        folder.read(path)
    with pytest.raises(InvalidRequest):
        folder.write(path, b"")
    assert folder.list() == []


def test_a_folder_that_is_not_there_is_empty_and_made_private_by_the_first_file(folder: Folder, base: Path) -> None:
    assert folder.list() == []
    with pytest.raises(NotFound) as caught:
        folder.read("a/b")
    assert caught.value.code == "FILE_NOT_FOUND"
    assert list(base.iterdir()) == [], "nothing is made by looking"
    folder.write("a/b", b"1")
    for made in ("workspaces", "workspaces/default", "workspaces/default/a"):
        assert stat.S_IMODE((base / made).stat().st_mode) == 0o700
    assert stat.S_IMODE((base / "workspaces/default/a/b").stat().st_mode) == 0o600


def test_a_file_is_replaced_as_a_whole(folder: Folder, base: Path) -> None:
    folder.write("a", b"old and long")
    old = (base / "workspaces/default/a").open("rb")
    folder.write("a", b"new")
    with old:
        assert old.read() == b"old and long", "whoever reads the old one goes on reading it"
    assert folder.read("a") == b"new"
    assert os.listdir(base / "workspaces/default") == ["a"]


def test_no_link_leads_out(folder: Folder, base: Path) -> None:
    folder.write("a", b"1")
    inside = base / "workspaces/default"
    (inside / "file").symlink_to(base.parent / "secret.txt")
    (inside / "folder").symlink_to(base.parent)
    (inside / "loop").symlink_to("loop")
    (inside / "dangling").symlink_to(base.parent / "new.txt")
    for path in ("file", "folder/secret.txt", "loop", "loop/a", "dangling"):
        for work in (lambda path=path: folder.read(path), lambda path=path: folder.write(path, b"mine")):
            with pytest.raises(Conflict) as caught:
                work()
            assert caught.value.code == "NOT_A_FILE"
    assert [entry.path for entry in folder.list()] == ["a"]
    assert (base.parent / "secret.txt").read_text() == "secret"
    assert sorted(os.listdir(base.parent)) == ["owner", "secret.txt"]


@pytest.mark.parametrize("which", ["workspaces", "workspaces/default"])
def test_no_link_in_place_of_the_folder_itself_is_followed(folder: Folder, base: Path, which: str) -> None:
    outside = base.parent / "outside"
    outside.mkdir()
    (base / which).parent.mkdir(exist_ok=True)
    (base / which).symlink_to(outside)
    for work in (folder.list, lambda: folder.read("a"), lambda: folder.write("a", b"1")):
        with pytest.raises(Conflict):
            work()
    assert os.listdir(outside) == []


def test_a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere_else(folder: Folder, base: Path) -> None:
    folder.write("d/x", b"inside")
    inside, outside = base / "workspaces/default", base.parent / "outside"
    outside.mkdir()
    (outside / "x").write_text("outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (inside / "d").rename(inside / "kept")
            # A write that finds no folder makes one, at any moment in between.
            with suppress(FileExistsError):
                (inside / "d").symlink_to(outside)
                (inside / "d").unlink()
            while (inside / "kept").exists():
                shutil.rmtree(inside / "d", ignore_errors=True)
                with suppress(OSError):
                    (inside / "kept").rename(inside / "d")

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen: set[bytes | str] = set()
    try:
        for number in range(500):
            try:
                seen.add(folder.read("d/x"))
                folder.write("d/y", b"%d" % number)
            except AppError as error:
                seen.add(error.code)
    finally:
        stop.set()
        swapping.join()
    assert seen <= {b"inside", "NOT_A_FILE", "FILE_NOT_FOUND"}
    assert os.listdir(outside) == ["x"]


def test_what_is_no_plain_file_is_neither_read_nor_replaced_nor_waited_for(folder: Folder, base: Path) -> None:
    folder.write("a/b", b"1")
    os.mkfifo(base / "workspaces/default/pipe")
    for path in ("a", "pipe", "a/b/c"):
        for work in (lambda path=path: folder.read(path), lambda path=path: folder.write(path, b"")):
            with pytest.raises(Conflict) as caught:
                work()
            assert caught.value.code == "NOT_A_FILE"
    assert [entry.path for entry in folder.list()] == ["a/b"]


def test_files_and_folders_are_bounded(folder: Folder, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        folder.write("large", bytes(MAX_FILE_BYTES + 1))
    assert caught.value.code == "FILE_TOO_LARGE"
    folder.write("large", bytes(MAX_FILE_BYTES))
    with (base / "workspaces/default/large").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PayloadTooLarge):
        folder.read("large")
    monkeypatch.setattr(folder_module, "MAX_BYTES", MAX_FILE_BYTES + 10)
    folder.write("small", b"123456789")
    with pytest.raises(PayloadTooLarge) as caught:
        folder.write("more", b"1")
    assert caught.value.code == "FOLDER_FULL"
    folder.write("large", b"1")  # in its place there is room
    monkeypatch.setattr(folder_module, "MAX_FILES", 2)
    with pytest.raises(PayloadTooLarge, match="2 files"):
        folder.write("more", b"1")
    folder.write("small", b"2")
    assert [entry.size_bytes for entry in folder.list()] == [1, 1]


def test_of_many_that_write_at_once_none_exceeds_the_bound(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_FILES", 5)
    refused: list[AppError] = []

    def write(number: int) -> None:
        try:
            folder.write(f"f{number}", b"1")
        except AppError as error:
            refused.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(folder.list()), len(refused)) == (5, 15)


def test_parts_that_were_never_finished_are_not_shown_and_go_after_a_while(folder: Folder, base: Path) -> None:
    folder.write("a", b"1")
    inside = base / "workspaces/default"
    for name, age_s in (("new", 0), ("old", 10_000)):
        part = inside / f"{PART_PREFIX}{name}"
        part.write_bytes(b"half")
        os.utime(part, (part.stat().st_mtime - age_s,) * 2)
    assert [entry.path for entry in folder.list()] == ["a"]
    assert sorted(os.listdir(inside)) == [f"{PART_PREFIX}new", "a"]


def test_a_write_that_fails_leaves_nothing_behind(folder: Folder, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("a", b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(AppError, match="no room on the disk"):
            folder.write("a", b"new")
    assert os.listdir(base / "workspaces/default") == ["a"]
    assert folder.read("a") == b"old"
