"""Where the server may connect on behalf of an app: never to this machine or a private network, unless an operator allows it.

A name is resolved once, every address is checked, and the caller connects to exactly the checked addresses: a name that points
elsewhere a moment later (DNS rebinding) changes nothing. Whoever follows a redirect checks the new address like the first.
"""

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from homeport.errors import InvalidRequest

RESOLVE_S = 5.0
CONCURRENT_LOOKUPS = 16

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What the registries of IANA do not call globally reachable, and what clouds answer on: https://www.iana.org/assignments/iana-ipv4-special-registry
_REFUSED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; the metadata of Alibaba Cloud
        "127.0.0.0/8",
        "168.63.129.16/32",  # the metadata of Azure
        "169.254.0.0/16",  # link-local; the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; the metadata of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Outside of it lie loopback, link-local, unique-local (with the metadata of AWS and Google), multicast and everything unassigned.
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_REFUSED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class AddressRefused(InvalidRequest):
    """The host lies in a private network."""

    code = "PRIVATE_ADDRESS"


class HostUnknown(InvalidRequest):
    """The host name cannot be resolved."""

    code = "HOST_UNKNOWN"


class Outbound:
    """Resolves and checks where a user-supplied address leads.

    ``private_hosts`` are the private places that an operator allows: host names, addresses, networks; ``localhost`` means the loopback
    addresses as well, ``*`` everything.
    """

    def __init__(self, private_hosts: Sequence[str] = ()) -> None:
        self._allows_all = "*" in private_hosts
        self._names = frozenset(_canonical(host) for host in private_hosts)
        networks = [network for host in private_hosts if (network := _network(host)) is not None]
        self._networks = (*networks, *(_LOOPBACK if "localhost" in self._names else ()))
        self._lookups = asyncio.Semaphore(CONCURRENT_LOOKUPS)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses of ``host``, all checked, in the order in which to try them; at least one. Connect to these, not to the name.

        Raises AddressRefused when only one of them is private, and HostUnknown when there are none, or none within RESOLVE_S.
        """
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await self._look_up(host, port)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError, UnicodeError a ValueError
            raise HostUnknown(f"The host name '{host[:253]}' cannot be resolved. Check its spelling.") from error
        if not self._is_allowed(host, found):
            raise AddressRefused(
                f"The host '{host[:253]}' lies in a private network, or is this machine, and apps may not have the server connect there. "
                "The operator of this server can allow it with HOMEPORT_PRIVATE_HOSTS."
            )
        return tuple(found)

    def is_listed(self, host: str, addresses: Sequence[str]) -> bool:
        """Whether an operator has allowed this place: the host by its name, or each of its addresses."""
        if self._allows_all or _canonical(host) in self._names:
            return True
        return all(self._is_listed(ip_address(address)) for address in addresses)

    async def _look_up(self, host: str, port: int) -> list[str]:
        """The addresses of ``host``. Raises OSError or ValueError.

        Each look-up has a daemon thread of its own: the system's resolver cannot be interrupted, and one that hangs must hold up
        neither the program's other threads nor its end. It counts until it really ends, also when nobody waits any more.
        """
        await self._lookups.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def finish(outcome: list[str] | Exception) -> None:
            self._lookups.release()
            _settle(answer, outcome)

        def work() -> None:
            outcome: list[str] | Exception
            try:
                outcome = _addresses(host, port)
            except (OSError, ValueError) as error:
                outcome = error
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(finish, outcome)

        threading.Thread(target=work, name="resolve a host", daemon=True).start()
        return await answer

    def _is_allowed(self, host: str, found: list[str]) -> bool:
        if self._allows_all or _canonical(host) in self._names:
            return True
        return all(is_public(address) or self._is_listed(address) for address in map(ip_address, found))

    def _is_listed(self, address: Address) -> bool:
        inner = _inner(address)
        return any(each in network for network in self._networks for each in (address, inner) if each.version == network.version)


def is_public(address: Address) -> bool:
    """Whether ``address`` is one of the open internet. What it embeds (IPv4-mapped, NAT64) is looked at instead of it."""
    inner = _inner(address)
    if isinstance(inner, IPv4Address):
        return not any(inner in network for network in _REFUSED_IPV4)
    return inner in _GLOBAL_IPV6 and not any(inner in network for network in _REFUSED_IPV6)


def _inner(address: Address) -> Address:
    """The IPv4 address to which packets for an IPv6 address are sent in the end, else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _canonical(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _network(host: str) -> Network | None:
    try:
        return ip_network(host.strip("[]"), strict=False)
    except ValueError:
        return None  # a host name


def _addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says, each address once. Raises OSError or ValueError."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    if not entries:
        raise OSError("no addresses")
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def _settle(answer: "asyncio.Future[list[str]]", outcome: list[str] | Exception) -> None:
    if answer.done():
        return  # nobody waits any more
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
