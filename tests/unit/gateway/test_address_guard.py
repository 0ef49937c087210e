"""Which addresses are public, in a table of every special range, and hosts that lead to others."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from segserve.errors import FetchError, InvalidRequestError
from segserve.gateway.address_guard import AddressGuard, is_public, resolve

PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.0.1",
    "192.167.1.1",
    "223.255.255.254",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:0808:0808::1",
]
NOT_PUBLIC = [
    ("0.0.0.0", "this host"),
    ("0.1.2.3", "this network"),
    ("10.0.0.1", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.1", "carrier NAT"),
    ("127.0.0.1", "loopback"),
    ("127.8.9.10", "loopback"),
    ("169.254.169.254", "cloud metadata"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.1", "protocol assignments"),
    ("192.0.0.170", "NAT64 discovery"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4 relay"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "benchmarking"),
    ("198.51.100.7", "documentation"),
    ("203.0.113.7", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "IPv4-compatible"),
    ("::ffff:127.0.0.1", "mapped loopback"),
    ("::ffff:10.0.0.1", "mapped private"),
    ("::ffff:169.254.169.254", "mapped metadata"),
    ("64:ff9b::7f00:1", "NAT64 of loopback"),
    ("64:ff9b::a9fe:a9fe", "NAT64 of metadata"),
    ("64:ff9b:1::1", "local NAT64"),
    ("100::1", "discard"),
    ("2001::1", "Teredo"),
    ("2001:2::1", "benchmarking"),
    ("2001:20::1", "ORCHID"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::1", "6to4 of loopback"),
    ("2002:a9fe:a9fe::1", "6to4 of metadata"),
    ("2002:c0a8:101::1", "6to4 of private"),
    ("3fff::1", "documentation"),
    ("5f00::1", "segment routing"),
    ("fc00::1", "unique local"),
    ("fd00:ec2::254", "cloud metadata"),
    ("fe80::1", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("ff0e::1", "multicast"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC)
def test_not_public(address: str, why: str) -> None:
    assert not is_public(ipaddress.ip_address(address)), why


def guard(found: list[str] | Exception, *allow: str) -> AddressGuard:
    async def resolver(host: str, port: int) -> list[str]:
        if isinstance(found, Exception):
            raise found
        return found

    return AddressGuard(allow, resolver)


def addresses(of: AddressGuard, host: str = "host.example") -> list[str]:
    return asyncio.run(of.addresses(host, 80))


def test_all_public_addresses_are_given_in_their_order() -> None:
    assert addresses(guard(["2606:4700::1111", "1.1.1.1"])) == ["2606:4700::1111", "1.1.1.1"]


@pytest.mark.parametrize("found", [["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["fe80::1%eth0"], ["not an address"]])
def test_one_bad_address_is_enough_to_refuse_and_is_not_told(found: list[str]) -> None:
    with pytest.raises(FetchError) as raised:
        addresses(guard(found))
    assert raised.value.error_code == "fetch_forbidden"
    assert "host.example" in raised.value.message
    assert found[-1] not in raised.value.message


@pytest.mark.parametrize(
    "found", [[], socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
def test_a_host_without_an_address(found: list[str] | Exception) -> None:
    with pytest.raises(FetchError, match="cannot be resolved") as raised:
        addresses(guard(found))
    assert raised.value.error_code == "fetch_failed"


@pytest.mark.parametrize(
    ("found", "allow"),
    [
        ("10.1.2.3", "host.example"),
        ("10.1.2.3", "HOST.example."),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("::1", "::1"),
        ("::1", "[::1]"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("fd00::5", "fd00::/8"),
    ],
)
def test_exceptions_of_the_operator(found: str, allow: str) -> None:
    assert addresses(guard([found], allow)) == [found]


@pytest.mark.parametrize("allow", ["10.1.2.4", "11.0.0.0/8", "other.example", "example", "2001:db8::/32"])
def test_exceptions_do_not_reach_further(allow: str) -> None:
    with pytest.raises(FetchError):
        addresses(guard(["10.1.2.3"], allow))


def test_an_exception_that_is_no_network_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"10\.0\.0\.0/99"):
        AddressGuard(("10.0.0.0/99",))


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "0x7f000001", "localhost", "::1"])
def test_odd_spellings_of_loopback_are_seen_through(host: str) -> None:
    """The system's resolver reads what the connection would read."""
    with pytest.raises(FetchError, match="public internet"):
        asyncio.run(AddressGuard((), resolve).addresses(host, 80))
