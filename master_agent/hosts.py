"""From the address of a server to what is known of it by its address alone."""

import ipaddress
from urllib.parse import urlsplit


def is_near(address: str) -> bool:
    """Whether a server is on this machine or in its own network, by its address alone."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".lan", ".internal", ".home.arpa"))


def on_this_machine(host: str) -> bool:
    """Whether a name or an address is this machine's own, as far as its letters tell."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
