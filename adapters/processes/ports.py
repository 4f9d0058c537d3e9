"""Whether a port can be listened on, tried by listening."""

import errno
import socket

# A program may listen on any of these, and one that listens on another of them would be taken for it.
_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"))  # noqa: S104 tried, not kept
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_port_free(port: int) -> bool:
    """Whether a program could listen on this port now, on every address of this machine that local apps use."""
    return all(_can_listen(family, address, port) for family, address in _ADDRESSES)


def _can_listen(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            # As servers do: connections of an earlier program that are closing do not count.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tried.bind((address, port))
            # Two may be bound to one port as long as neither listens.
            tried.listen(1)
    except OSError as error:
        return error.errno in _NO_SUCH_ADDRESS  # a machine without IPv6
    return True
