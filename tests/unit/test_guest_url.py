"""The URL of an app's own database: what may stand in it, how it is shown, and what a connection is made from."""

import psycopg
import pytest

from adapters.postgres.guest_url import DatabaseUrlInvalid, GuestUrl, parse_guest_url
from adapters.postgres.guests import reason_of

SECRET = "s3cr3t"
SEED = "postgresql://user:pass@host:5432/db"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (SEED, SEED),
        ("postgres://user:pass@host/db", SEED),
        ("postgresql+psycopg://user:pass@host:5432/db", SEED),
        ("postgresql://host:5432/db?user=user&password=pass", SEED),
        ("postgresql:///db?host=host&user=user&password=pass", SEED),
        ("postgresql://user:first@host:5432/db?password=pass", SEED),
        ("postgresql://user@host", "postgresql://user@host:5432"),
        ("postgresql://user:@host:6543/", "postgresql://user@host:6543"),
        (
            "postgresql://u%40x:p%40ss%3Aword%2F1@[2606:4700::1111]/d%2Fb",
            "postgresql://u%40x:p%40ss%3Aword%2F1@[2606:4700::1111]:5432/d%2Fb",
        ),
        ("postgresql://u:p@h.example/d?ssl=true", "postgresql://u:p@h.example:5432/d?sslmode=require"),
        (
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=system&channel_binding=require&application_name=My%20app&connect_timeout=3",
            "postgresql://u:p@h:5432/d?application_name=My%20app&channel_binding=require&connect_timeout=3&sslmode=verify-full&sslrootcert=system",
        ),
    ],
)
def test_a_url_is_read_as_libpq_reads_it(text: str, canonical: str) -> None:
    url = parse_guest_url(text)
    assert url.text == canonical
    assert parse_guest_url(url.text) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a PostgreSQL URL"),
        ("host=h user=u password={}", "not a PostgreSQL URL"),
        ("mysql://u:{}@h/d", "not a PostgreSQL URL"),
        ("POSTGRESQL://u:{}@h/d", "not a PostgreSQL URL"),
        ("postgresql://u:{}%zz@h/d", "not a PostgreSQL URL"),
        ("postgresql://u:{}%00@h/d", "not a PostgreSQL URL"),
        ("postgresql://u:{}@h/d\0@evil", "not a PostgreSQL URL"),
        ("postgresql://u:{}@h/d\n", "not a PostgreSQL URL"),
        ("postgresql://u:{}\ud800@h/d", "not a PostgreSQL URL"),
        ("postgresql://u:{}@h/d?no_such=1", "not a PostgreSQL URL"),
        ("postgresql://h/d?password={}", "names no user"),
        ("postgresql://u:{}@/d", "one host"),
        ("postgresql://u:{}@h1,h2/d", "one host"),
        ("postgresql://u:{}@h1:1,h2:2/d", "one host"),
        ("postgresql://u:{}@%2Fvar%2Frun%2Fpostgresql/d", "one host"),
        ("postgresql://u:{}@/d?host=/tmp", "one host"),
        ("postgresql://u:{}@/d?host=@abstract", "one host"),
        ("postgresql://u:{}@h%20x/d", "one host"),
        ("postgresql://u:{}@[fe80::1%25eth0]/d", "one host"),
        ("postgresql://u:{}@h:0/d", "port"),
        ("postgresql://u:{}@h:65536/d", "port"),
        ("postgresql://u:{}@h:x/d", "port"),
        ("postgresql://u:{}@h/d?hostaddr=127.0.0.1", "'hostaddr'"),
        ("postgresql://u:{}@h/d?passfile=/etc/passwd", "'passfile'"),
        ("postgresql://u:{}@h/d?service=other", "'service'"),
        ("postgresql://u:{}@h/d?sslkey=/root/.ssh/id_rsa", "'sslkey'"),
        ("postgresql://u:{}@h/d?sslcert=/x", "'sslcert'"),
        ("postgresql://u:{}@h/d?sslcrl=/x", "'sslcrl'"),
        ("postgresql://u:{}@h/d?sslkeylogfile=/tmp/x", "'sslkeylogfile'"),
        ("postgresql://u:{}@h/d?options=-csearch_path%3Dx", "'options'"),
        ("postgresql://u:{}@h/d?krbsrvname=x", "'krbsrvname'"),
        ("postgresql://u:{}@h/d?replication=database", "'replication'"),
        ("postgresql://u:{}@h/d?require_auth=gss", "'require_auth'"),
        ("postgresql://u:{}@h/d?oauth_issuer=https://x", "'oauth_issuer'"),
        ("postgresql://u:{}@h/d?sslmode=bogus", "'sslmode'"),
        ("postgresql://u:{}@h/d?sslrootcert=/etc/passwd", "'sslrootcert'"),
        ("postgresql://u:{}@h/d?sslrootcert=system&sslmode=require", "'verify-full'"),
        ("postgresql://u:{}@h/d?connect_timeout=soon", "'connect_timeout'"),
    ],
)
def test_a_url_that_says_more_or_less_than_it_may_is_refused_without_its_password(text: str, said: str) -> None:
    with pytest.raises(DatabaseUrlInvalid, match=said) as caught:
        parse_guest_url(text.format(SECRET))
    assert (caught.value.status, caught.value.code) == (400, "DATABASE_URL_INVALID")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_url_is_shown_without_its_password() -> None:
    for text in (f"postgresql://user:{SECRET}@host:5432/db", f"postgresql://user@host:5432/db?password={SECRET}"):
        url = parse_guest_url(text)
        assert url.masked == "postgresql://user:****@host:5432/db"
        assert SECRET not in repr(url)
    assert parse_guest_url("postgresql://user@host/db").masked == "postgresql://user@host:5432/db"


@pytest.mark.parametrize(
    "sent",
    [
        "postgresql://user:****@host:5432/db?sslmode=require",
        "postgres://user:****@HOST/db?sslmode=require",
        "postgresql://user:%2A%2A%2A%2A@host/db?sslmode=require",
        "postgresql://user@host/db?sslmode=require&password=****",
        "postgresql://user:****@host/other?sslmode=require&application_name=x&connect_timeout=2",
    ],
)
def test_a_mask_stands_for_the_kept_password(sent: str) -> None:
    kept = parse_guest_url(f"postgresql://user:{SECRET}@host/db?sslmode=require")
    assert parse_guest_url(sent).unmasked(kept).password == SECRET


@pytest.mark.parametrize(
    "sent",
    [
        "postgresql://user:****@other:5432/db?sslmode=require",
        "postgresql://user:****@host.evil.example:5432/db?sslmode=require",
        "postgresql://user:****@host:5433/db?sslmode=require",
        "postgresql://other:****@host:5432/db?sslmode=require",
        "postgresql://user:****@host:5432/db?sslmode=disable",
        "postgresql://user:****@host:5432/db",
        "postgresql://user:****@host:5432/db?sslmode=require&channel_binding=disable",
    ],
)
def test_a_mask_in_another_place_is_refused(sent: str) -> None:
    with pytest.raises(DatabaseUrlInvalid, match="Send the password"):
        parse_guest_url(sent).unmasked(parse_guest_url(f"postgresql://user:{SECRET}@host/db?sslmode=require"))


def test_a_mask_stands_for_nothing_when_nothing_is_kept() -> None:
    for kept in (None, parse_guest_url("postgresql://user@host/db")):
        with pytest.raises(DatabaseUrlInvalid, match="Send the password"):
            parse_guest_url("postgresql://user:****@host/db").unmasked(kept)


def test_a_password_that_is_given_is_used_whatever_is_kept() -> None:
    new = parse_guest_url("postgresql://other:new@elsewhere/db")
    assert new.unmasked(parse_guest_url(SEED)) is new
    none = parse_guest_url("postgresql://user@host:5432/db")
    assert none.unmasked(parse_guest_url(SEED)).password == ""


def parameters(url: str) -> dict[str, object]:
    return parse_guest_url(url).parameters(("8.8.8.8",))


def test_a_connection_goes_to_the_checked_addresses_under_the_name_of_the_host() -> None:
    url: GuestUrl = parse_guest_url("postgresql://u:p@h.example:6543/d")
    made = url.parameters(("8.8.8.8", "2606:4700::1111"))
    assert (made["host"], made["hostaddr"], made["port"]) == ("h.example,h.example", "8.8.8.8,2606:4700::1111", "6543,6543")


def test_a_connection_leaves_nothing_to_the_environment_and_to_files() -> None:
    made = parameters("postgresql://u@h/d")
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar}
    assert known - made.keys() == {"service"}
    assert (made["password"], made["passfile"]) == ("", "/dev/null/none")
    assert (made["sslcertmode"], made["gssencmode"], made["sslmode"]) == ("disable", "disable", "prefer")
    assert made["require_auth"] == "password,md5,scram-sha-256,none"


def test_certificates_are_checked_against_the_machines_authorities_when_asked_for() -> None:
    assert parameters("postgresql://u@h/d?sslmode=require")["sslrootcert"] == "/dev/null/none"
    for query in ("sslmode=verify-full", "sslmode=verify-full&sslrootcert=system", "sslrootcert=system"):
        made = parameters(f"postgresql://u@h/d?{query}")
        assert made["sslmode"] == "verify-full"
        assert made["sslrootcert"] not in ("/dev/null/none", "")


@pytest.mark.parametrize(("given", "used"), [("", 5), ("connect_timeout=0", 5), ("connect_timeout=3", 3), ("connect_timeout=99999", 5)])
def test_connecting_is_bounded(given: str, used: int) -> None:
    assert parameters(f"postgresql://u@h/d?{given}")["connect_timeout"] == used


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'connection failed: connection to server at "192.0.2.1", port 1 failed: Connection refused\n\tIs the server running?',
            "connection refused",
        ),
        (
            'connection failed: connection to server at "db.example" (192.0.2.1), port 5432 failed: FATAL:  password authentication failed '
            'for user "x"',
            'password authentication failed for user "x"',
        ),
        (
            'connection failed: connection to server at "h", port 1 failed: fe_sendauth: no password supplied',
            "fe_sendauth: no password supplied",
        ),
        ("connection timeout expired", "timeout expired"),
        ('connection is bad: invalid sslmode value: "x"', 'invalid sslmode value: "x"'),
        ("SSL error: x\x1b[31m", "SSL error: x [31m"),
        ("x" * 1000, "x" * 200),
        ("", "the connection failed"),
    ],
)
def test_a_reason_is_one_short_line(text: str, reason: str) -> None:
    assert reason_of(psycopg.OperationalError(text)) == reason
