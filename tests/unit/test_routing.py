"""The segment table finds what the document says, whichever order it says it in."""

import pytest

from homeport.contract.routing import SegmentTable, TemplateClash, UndecodablePath, split_path

PATHS = ["/a/{x}/c", "/a/b/d", "/a/{x}", "/a/new", "/a", "/{anything}", "/a/{x}/c/{y}"]


def table(paths: list[str]) -> SegmentTable[str]:
    routes: SegmentTable[str] = SegmentTable()
    for path in paths:
        routes.add(path, "GET", path)
    return routes


@pytest.mark.parametrize("paths", [PATHS, PATHS[::-1]], ids=["as written", "reversed"])
@pytest.mark.parametrize(
    ("request_path", "expected", "parameters"),
    [
        (b"/a", "/a", {}),
        (b"/a/new", "/a/new", {}),
        (b"/a/1", "/a/{x}", {"x": "1"}),
        (b"/a/b/d", "/a/b/d", {}),
        (b"/a/b/c", "/a/{x}/c", {"x": "b"}),
        (b"/a/b/c/2", "/a/{x}/c/{y}", {"x": "b", "y": "2"}),
        (b"/z", "/{anything}", {"anything": "z"}),
        (b"/a/1/z", None, {}),
        (b"/a//c", None, {}),
        (b"/", None, {}),
    ],
)
def test_a_literal_beats_a_template_and_a_dead_end_is_left_again(
    paths: list[str], request_path: bytes, expected: str | None, parameters: dict[str, str]
) -> None:
    found = table(paths).match(request_path)
    assert (found and (found[0]["GET"], found[1])) == (expected and (expected, parameters))


def test_a_slash_that_is_percent_encoded_stays_inside_its_segment() -> None:
    assert split_path(b"/tools/fs%2Fread/execute") == ["tools", "fs/read", "execute"]


@pytest.mark.parametrize("path", [b"/a/b", b"/a/b/", b"//a/b"])
def test_a_base_address_that_ends_in_a_slash_and_a_trailing_slash_make_no_difference(path: bytes) -> None:
    assert split_path(path) == ["a", "b"]


@pytest.mark.parametrize("path", [b"/a/%ff", b"/a/\xff"])
def test_a_path_that_is_not_utf_8_cannot_be_decoded(path: bytes) -> None:
    with pytest.raises(UndecodablePath):
        split_path(path)


def test_paths_that_differ_only_in_parameter_names_clash() -> None:
    routes = table(["/a/{x}"])
    with pytest.raises(TemplateClash, match=r"/a/\{x\}"):
        routes.add("/a/{y}", "POST", "other")
