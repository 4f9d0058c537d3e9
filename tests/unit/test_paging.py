"""Cursors: opaque, bound to their list, and never a crash."""

import base64
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.clock import format_time, parse_time
from homeport.errors import InvalidRequest
from homeport.ids import parse_uuid, uuid7
from homeport.paging import Page, decode_cursor, encode_cursor

SOME_ID = "7d1f3a52-9c0e-4b8f-8a61-2e5d4c3b1a09"

TYPES = (datetime, UUID, str)


@given(moment=st.datetimes(timezones=st.just(UTC)), key=st.uuids(), text=st.text(max_size=50))
def test_a_cursor_gives_back_the_position_to_the_microsecond(moment: datetime, key: UUID, text: str) -> None:
    cursor = encode_cursor("apps", (moment, key, text))
    assert decode_cursor("apps", cursor, TYPES) == [moment, key, text]
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?#% ")


def test_a_cursor_of_another_list_or_filter_is_refused() -> None:
    cursor = encode_cursor("requests pending", ("a",))
    with pytest.raises(InvalidRequest) as refused:
        decode_cursor("requests granted", cursor, (str,))
    assert refused.value.code == "INVALID_CURSOR"


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_a_damaged_cursor_is_refused_and_never_a_crash(cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_cursor("apps", cursor, TYPES)


@pytest.mark.parametrize(
    "values",
    [[1, "x", 0], ["2024-01-01T00:00:00", SOME_ID], [["nested"]], ["0001-01-01T00:00:00+23:59", "x"]],
)
def test_a_cursor_with_the_right_mark_but_wrong_values_is_refused(values: list[object]) -> None:
    version, mark, *_ = orjson.loads(base64.urlsafe_b64decode(encode_cursor("apps", ()) + "=="))
    forged = base64.urlsafe_b64encode(orjson.dumps([version, mark, *values])).decode()
    with pytest.raises(InvalidRequest):
        decode_cursor("apps", forged, (datetime, UUID))


def test_a_page_is_rendered_with_its_cursor() -> None:
    assert Page([1, 2], "next").render(lambda number: {"number": number}) == {
        "items": [{"number": 1}, {"number": 2}],
        "next_cursor": "next",
    }
    assert Page([]).render(lambda number: {}) == {"items": [], "next_cursor": None}


def test_times_leave_as_rfc_3339_in_utc_whatever_zone_they_came_in() -> None:
    moment = datetime(2024, 1, 15, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == "2024-01-15T10:00:00.123Z"
    assert format_time(None) is None


@pytest.mark.parametrize("text", ["2024-01-15T10:00:00Z", "2024-01-15t10:00:00z", "2024-01-15T12:00:00+02:00", "2024-01-15T10:00:00.000Z"])
def test_times_are_read_in_every_spelling_of_rfc_3339(text: str) -> None:
    assert parse_time(text) == datetime(2024, 1, 15, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "2024-01-15", "2024-01-15T10:00:00", "9999-12-31T23:59:59-01:00", "2024-02-30T00:00:00Z"])
def test_what_is_no_usable_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a time"):
        parse_time(text)


def test_new_ids_are_version_7_and_sort_by_the_time_they_were_made() -> None:
    made = [uuid7() for _ in range(1000)]
    assert {key.version for key in made} == {7}
    assert {key.variant for key in made} == {"specified in RFC 4122"}
    assert len(set(made)) == 1000
    assert [key.int >> 64 for key in made] == sorted(key.int >> 64 for key in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "{0190d2c8-0000-7000-8000-000000000000}",
        "0190d2c8000070008000000000000000",
        f"urn:uuid:{SOME_ID}",
    ],
)
def test_only_the_usual_form_of_a_uuid_is_one(text: str) -> None:
    assert parse_uuid(text) is None
    assert parse_uuid("0190D2C8-0000-7000-8000-00000000000A") == UUID("0190d2c8-0000-7000-8000-00000000000a")
