"""Which network addresses an image URL may lead to: public ones, and the exceptions that the operator lists.

The host is resolved once; the caller connects to the addresses returned here and never resolves it again, so that
a name server that answers differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from segserve.errors import FetchError, InvalidRequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) to textual addresses, the best first. Raises OSError when there are none."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 of the local network
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
        "2620:4f:8000::/48",  # AS112 sinks
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local, deprecated
    )
)
"""Special networks that ipaddress counts as global, in one Python release or another."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet.

    Not so: loopback, private, link-local (cloud metadata), shared, multicast, reserved and documentation ranges,
    and IPv6 forms (IPv4-mapped, NAT64, 6to4) that carry such an IPv4 address.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that traffic to this IPv6 address ends up at, where its form says so."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


async def resolve(host: str, port: int) -> list[str]:
    """The system's resolver. It also reads the decimal, octal and short forms of IPv4 addresses.

    Raises:
        OSError: the host has no address.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressGuard:
    """Turns a host into the addresses that may be connected to.

    Args:
        allow: host names, addresses or networks (CIDR) that may be reached although they are not public.
        resolver: replaces the system's, in tests.

    Raises:
        InvalidRequestError: an entry of allow looks like a network but is none.
    """

    def __init__(self, allow: Sequence[str] = (), resolver: Resolver = resolve) -> None:
        self._resolver = resolver
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        for entry in allow:
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if "/" in entry:
                    raise InvalidRequestError(f"fetch.allow: {entry!r} is not a network.") from None
                self._hosts.add(entry.lower().rstrip("."))

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where to connect to for host, the best first; every one of its addresses has been checked.

        Raises:
            FetchError: the host has no address, or one that may not be reached; does not say which address.
        """
        try:
            found = list(await self._resolver(host, port))
        except (OSError, UnicodeError) as error:
            raise FetchError(f"The host {host!r} cannot be resolved: check its name.") from error
        if not found:
            raise FetchError(f"The host {host!r} cannot be resolved: check its name.")
        if host.lower().rstrip(".") not in self._hosts and not all(self._may_reach(text) for text in found):
            raise FetchError(
                f"The host {host!r} is not on the public internet, and images are fetched from there only. "
                "Send the image as base64 instead, or have the operator allow the host.",
                code="fetch_forbidden",
            )
        return found

    def _may_reach(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if is_public(address):
            return True
        candidates: list[Address] = [address]
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            candidates.append(address.ipv4_mapped)
        return any(candidate in network for candidate in candidates for network in self._networks)
