"""Where the server may connect on behalf of an app. Names are answered by a table here: what counts is what becomes of the answers."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from adapters import outbound
from adapters.outbound import AddressRefused, HostUnknown, Outbound, is_public

pytestmark = pytest.mark.anyio

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "126.255.255.255",
    "128.0.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.167.255.255",
    "192.169.0.1",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450:4001::1",
]

Answers = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """The names that can be resolved, with their addresses; change it and the next look-up sees it."""
    answers: Answers = {}

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        if host not in answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.1", "0x7f.1", "2130706433", "017700000001", "0", "localhost", "169.254.169.254"])
async def test_every_spelling_of_a_private_address_is_refused_by_default(host: str) -> None:
    with pytest.raises(AddressRefused, match="HOMEPORT_PRIVATE_HOSTS") as caught:
        await Outbound().resolve(host, 5432)
    assert (caught.value.status, caught.value.code) == (400, "PRIVATE_ADDRESS")


async def test_a_public_address_is_answered_as_it_is() -> None:
    assert await Outbound().resolve("8.8.8.8", 5432) == ("8.8.8.8",)
    assert await Outbound().resolve("2606:4700::1111", 443) == ("2606:4700::1111",)


async def test_a_name_with_one_private_address_is_refused(names: Answers) -> None:
    names["mixed.example"] = ["8.8.8.8", "2606:4700::1111", "10.0.0.5"]
    with pytest.raises(AddressRefused, match=r"mixed\.example") as caught:
        await Outbound().resolve("mixed.example", 443)
    assert "10.0.0.5" not in str(caught.value)


async def test_a_name_gives_all_its_addresses_once_and_in_their_order(names: Answers) -> None:
    names["db.example"] = ["2606:4700::1111", "8.8.8.8", "8.8.8.8", "1.1.1.1"]
    assert await Outbound().resolve("db.example", 5432) == ("2606:4700::1111", "8.8.8.8", "1.1.1.1")


async def test_a_name_that_points_elsewhere_later_is_checked_again(names: Answers) -> None:
    outbound = Outbound()
    names["moving.example"] = ["8.8.8.8"]
    assert await outbound.resolve("moving.example", 5432) == ("8.8.8.8",)
    names["moving.example"] = ["127.0.0.1"]
    with pytest.raises(AddressRefused):
        await outbound.resolve("moving.example", 5432)


@pytest.mark.parametrize("host", ["nowhere.example", "", "a" * 64 + ".example", "a..b", "a\0b", "ü" * 300, "a b", "[::1]", "10.0.0.0/8"])
async def test_a_name_that_means_nothing_is_unknown(names: Answers, host: str) -> None:
    with pytest.raises(HostUnknown) as caught:
        await Outbound(("10.0.0.0/8",)).resolve(host, 5432)
    assert (caught.value.status, caught.value.code) == (400, "HOST_UNKNOWN")


@pytest.mark.parametrize(
    ("allowed", "host", "address"),
    [
        (("10.0.0.0/8",), "db.example", "10.1.2.3"),
        (("10.0.0.1/8",), "db.example", "10.1.2.3"),
        (("10.1.2.3",), "db.example", "::ffff:10.1.2.3"),
        (("10.0.0.0/8",), "db.example", "64:ff9b::10.1.2.3"),
        (("::1",), "db.example", "::1"),
        (("[::1]",), "db.example", "::1"),
        (("fd00::/8",), "db.example", "fd00::5"),
        (("db.example",), "db.example", "192.168.0.9"),
        (("DB.Example.",), "db.example", "192.168.0.9"),
        (("db.example",), "DB.EXAMPLE.", "192.168.0.9"),
        (("localhost",), "localhost", "::1"),
        (("localhost",), "db.example", "127.0.0.2"),
        (("other", "*"), "db.example", "169.254.169.254"),
    ],
)
async def test_what_an_operator_allows_is_let_through(names: Answers, allowed: tuple[str, ...], host: str, address: str) -> None:
    names[host] = [address]
    assert await Outbound(allowed).resolve(host, 5432) == (address,)


@pytest.mark.parametrize(
    ("allowed", "addresses"),
    [
        (("10.0.0.0/8",), ["10.0.0.1", "192.168.0.1"]),
        (("localhost",), ["10.0.0.1"]),
        (("127.0.0.1",), ["127.0.0.2"]),
        (("127.0.0.0/8",), ["::1"]),
        (("db",), ["10.0.0.1"]),
        (("example", "sub.db.example"), ["10.0.0.1"]),
        (("0.0.0.0/0",), ["fd00::1"]),
    ],
)
async def test_what_an_operator_allows_opens_nothing_else(names: Answers, allowed: tuple[str, ...], addresses: list[str]) -> None:
    names["db.example"] = addresses
    with pytest.raises(AddressRefused):
        await Outbound(allowed).resolve("db.example", 5432)


async def test_a_resolver_that_hangs_is_given_up_and_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "RESOLVE_S", 0.2)
    released, asked = threading.Event(), threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", _hanging(asked, released))
    guard = Outbound()
    began = time.monotonic()
    waiting = asyncio.create_task(guard.resolve("slow.example", 5432))
    try:
        assert await asyncio.to_thread(asked.wait, 5)
        with pytest.raises(HostUnknown):
            await waiting
        assert time.monotonic() - began < 5
    finally:
        released.set()


async def test_look_ups_that_hang_are_bounded_and_give_their_places_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "RESOLVE_S", 0.2)
    monkeypatch.setattr(outbound, "CONCURRENT_LOOKUPS", 2)
    released, asked = threading.Event(), threading.Event()
    running = threading.active_count()
    monkeypatch.setattr(socket, "getaddrinfo", _hanging(asked, released))
    guard = Outbound()
    results = await asyncio.gather(*(guard.resolve("slow.example", 5432) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, HostUnknown) for result in results)
    assert threading.active_count() <= running + 2
    released.set()
    monkeypatch.setattr(outbound, "RESOLVE_S", 5.0)
    assert await guard.resolve("slow.example", 5432) == ("8.8.8.8",)


def _hanging(asked: threading.Event, released: threading.Event) -> Callable[..., list[Any]]:
    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.set()
        assert released.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]

    return getaddrinfo
