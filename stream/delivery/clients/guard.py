"""Rules about the addresses that the dispatcher may connect to. Pure.

Whoever may write the site file chooses a receiver's address, and somebody else's DNS server resolves its name.
Without rules about addresses, a receiver could make the dispatcher post into the internal network, which is called
server-side request forgery (https://owasp.org/www-community/attacks/Server_Side_Request_Forgery).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ingest.exceptions import ConfigError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
"""Prefixes of IPv6 addresses that a NAT64 gateway translates to the IPv4 address in their last 32 bits (RFC 6052, RFC
8215)."""
_PRIVATE = "address {} is private: set allow_private = true for a receiver in a private network"


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """The addresses that the operator of a dispatcher forbids to all receivers, whatever the ``config`` topic says.

    ``deny`` has host names, which may contain ``*``, and IP networks.
    """

    https_only: bool = False
    deny_names: tuple[str, ...] = ()
    deny_networks: tuple[IpNetwork, ...] = ()

    @classmethod
    def of(cls, deny: Sequence[str], *, https_only: bool) -> DeliveryPolicy:
        """Return the policy that the command line options set. Raise ConfigError for an invalid network."""
        names, networks = [], []
        for each in deny:
            try:
                networks.append(ipaddress.ip_network(each.strip("[]")))
            except ValueError:
                if "/" in each or not each.strip("0123456789.") or ":" in each:
                    expected = "a network such as 10.0.0.0/8, an IP address, or a host name such as *.internal"
                    raise ConfigError("dispatch", "--deny", each, expected) from None
                names.append(each.lower().removesuffix("."))
        return cls(https_only, tuple(names), tuple(networks))

    def name_refusal(self, host: str) -> str:
        """Return why a host name is refused, or an empty string."""
        name = host.lower().removesuffix(".")
        found = next((pattern for pattern in self.deny_names if fnmatchcase(name, pattern)), None)
        return f"{host} is refused by --deny {found} of the dispatcher" if found else ""

    def address_refusal(self, text: str, *, allow_private: bool) -> str:
        """Return why an IP address is refused, or an empty string.

        Link-local addresses are always refused, because cloud providers serve the credentials of a machine at
        169.254.169.254.
        """
        written = ipaddress.ip_address(text.partition("%")[0])
        address = _embedded(written)
        found = next((net for net in self.deny_networks if written in net or address in net), None)
        if found:
            return f"address {text} is refused by --deny {found} of the dispatcher"
        if address.is_loopback:  # ::1 is in a reserved network
            return "" if allow_private else _PRIVATE.format(text)
        if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
            return f"address {text} is link-local, multicast or reserved: expected the address of a host"
        return "" if address.is_global or allow_private else _PRIVATE.format(text)


def _embedded(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
