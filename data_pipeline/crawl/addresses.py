"""Which addresses a crawl may connect to: those of the public internet, and what the user names.

A name is looked up once; every address it has is checked, and the connection goes to a checked address itself, so
that a second answer of the name server (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from data_pipeline.crawl_config import CrawlConfig

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# IPv6 networks whose addresses carry an IPv4 address in their last 32 bits (RFC 6052 for NAT64).
EMBEDDING = [ipaddress.IPv6Network(network) for network in ("::ffff:0:0/96", "64:ff9b::/96")]
# Tunnels (6to4, Teredo), IPv4-compatible, site-local and NAT64-local addresses: no web server of today has one,
# and each can stand for a private address.
REFUSED = [
    ipaddress.IPv6Network(network)
    for network in ("2002::/16", "2001::/32", "::/96", "fec0::/10", "64:ff9b:1::/48")
]


class RefusedAddress(Exception):
    """A host has an address that a crawl must not touch."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} resolves to the private address {address}; name it in crawl.allow_private")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, tunnels and embedded addresses seen through."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in EMBEDDING):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif any(ip in network for network in REFUSED):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def targets(host: str, port: int, config: CrawlConfig) -> list[tuple[str, int]]:
    """The (address, port) pairs that a host may be fetched from, best first.

    Raises:
        RefusedAddress: one of its addresses is private, and the user did not name the host.
        OSError, UnicodeError: the name cannot be resolved.
    """
    if place := config.place_to_connect(host, port):
        given = urlsplit(f"//{place}")
        return [(given.hostname or "", given.port or port)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    if host not in config.allow_private:
        for address in addresses:
            if not is_public(address):
                raise RefusedAddress(host, address)
    return [(address, port) for address in addresses]
