"""Which files are taken in, and what is read from them."""

import os
from pathlib import Path

import pytest

from homeport.cli.files import MAX_FILE_BYTES, Found, find_files, read_file


def make(folder: Path, **files: str | bytes) -> None:
    """Write files; a double underscore in a name stands for a slash, a single one for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def names(found: Found) -> list[str]:
    return [file.name for file in found.files]


def test_files_below_a_folder_are_named_by_their_place_in_it(tmp_path: Path) -> None:
    make(tmp_path, b_md="b", a_txt="a", sub__deep__c_py="c")
    found = find_files([tmp_path], None)
    assert names(found) == ["a.txt", "b.md", "sub/deep/c.py"]
    assert {file.folder for file in found.files} == {tmp_path.resolve()}
    assert +found.skipped == {}


def test_hidden_files_outward_links_special_and_large_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    folder, outside = tmp_path / "notes", tmp_path / "outside"
    make(folder, a_md="a", _hidden="x", _git__config="x", _git__deep__more="x")
    make(outside, secret_md="secret")
    (folder / "inward.md").symlink_to(folder / "a.md")
    (folder / "outward.md").symlink_to(outside / "secret.md")
    (folder / "folder").symlink_to(outside)
    (folder / "broken.md").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")
    with (folder / "large.txt").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    found = find_files([folder], None)
    assert names(found) == ["a.md", "inward.md"]
    assert +found.skipped == {"hidden": 2, "linked": 2, "special": 1, "too large": 1, "unreadable": 1}


def test_a_pattern_limits_what_is_below_folders_and_not_what_is_named(tmp_path: Path) -> None:
    make(tmp_path, a_md="a", b_txt="b", sub__c_md="c", sub__d_txt="d")
    assert names(find_files([tmp_path], "*.md")) == ["a.md", "sub/c.md"]
    assert names(find_files([tmp_path], "sub/*")) == ["sub/c.md", "sub/d.txt"]
    assert names(find_files([tmp_path / "b.txt", tmp_path / "sub"], "*.md")) == ["b.txt", "c.md"]


def test_a_file_that_is_named_twice_is_taken_once(tmp_path: Path) -> None:
    make(tmp_path, a_md="a")
    assert names(find_files([tmp_path, tmp_path / "a.md", tmp_path], None)) == ["a.md"]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.md", "# Größe\n".encode(), "# Größe\n"),
        ("a.md", b"\xef\xbb\xbfwith a mark", "with a mark"),
        ("a.md", b"\xff\xfe\x00x", None),
        ("a.md", b"PK\x03\x04\x00\x00", None),
        ("a.md", b"<b>kept</b>", "<b>kept</b>"),
    ],
)
def test_what_is_no_text_is_told_from_what_is(tmp_path: Path, name: str, content: bytes, text: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    (file,) = find_files([tmp_path], None).files
    assert read_file(file) == text


def test_of_a_page_only_what_a_reader_sees_is_taken(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>A page</title><style>p { color: red }</style></head>
    <body><script>if (1 < 2) alert("no")</script><h1>Bread &amp; butter</h1><p>First.<br>Second <b>bold</b>.</p><!-- no --></body>"""
    (tmp_path / "page.HTML").write_text(page, encoding="utf-8")
    (file,) = find_files([tmp_path], None).files
    text = read_file(file)
    assert text is not None
    assert " ".join(text.split()) == "A page Bread & butter First. Second bold."
    assert "butter\n\n" in text
    assert "First.\nSecond" in text
