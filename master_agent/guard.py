"""From a host and a port to a connection or a refusal: only public addresses and those allowed by name are reached."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Collection
from typing import Any

import httpcore

from master_agent.errors import FetchRefusedError
from master_agent.hosts import on_this_machine

PORTS = (80, 443, 8080, 8443)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")


class Guard(httpcore.AsyncNetworkBackend):
    """Opens connections, but only to addresses and ports that may be reached.

    An entry of `allowed_hosts` is a host or `host:port` as it stands in the URL. It may be private; it may have any
    port when it names that port or is a loopback host.
    """

    def __init__(self, allowed_hosts: Collection[str], backend: httpcore.AsyncNetworkBackend) -> None:
        self._allowed = tuple(_host_and_port(entry) for entry in allowed_hosts)
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to an address of the host; FetchRefusedError when any of its addresses is private."""
        known = self._known(host, port)
        addresses = await _resolved(host, port, timeout)
        private = [address for address in addresses if not is_public(address)]
        if private and not known:
            raise _not_public(host if private[0] == _plain(host) else f"{host} ({private[0]})")
        failure = ""
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = reason(error)  # another of its addresses may answer
        raise httpcore.ConnectError(failure)

    def passes_by_a_proxy(self, host: str) -> bool:
        """Whether the host is this machine's own and allowed by name: no proxy needs to be asked for it."""
        return on_this_machine(_plain(host)) and any(entry == _plain(host) for entry, _ in self._allowed)

    def check_name(self, host: str, port: int) -> None:
        """What can be said before the name is looked up: FetchRefusedError for a port, or an address in numbers."""
        if not self._known(host, port) and (on_this_machine(_plain(host)) or _is_private_number(_plain(host))):
            raise _not_public(host)

    def _known(self, host: str, port: int) -> bool:
        """Whether the host is allowed by name; FetchRefusedError when its port is none that may be connected to."""
        known = [named for entry, named in self._allowed if entry == _plain(host) and named in (None, port)]
        if port not in PORTS and port not in known and not (known and on_this_machine(_plain(host))):
            ports = ", ".join(map(str, PORTS))
            raise FetchRefusedError(f"{host}:{port} may not be fetched from: only the ports {ports} may")
        return bool(known)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Always refused."""
        raise FetchRefusedError("a unix socket may not be fetched from")

    async def sleep(self, seconds: float) -> None:
        """Waits between attempts to connect."""
        await asyncio.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, in whatever way it is wrapped."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.teredo or ip.is_site_local or ip in _LOCAL_NAT64:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def _is_private_number(host: str) -> bool:
    """Whether a host is an address in numbers, in any spelling that a resolver takes, and no public one."""
    try:
        return not is_public(host)
    except ValueError:
        pass
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return False


def _not_public(where: str) -> FetchRefusedError:
    hint = "Whoever runs this may allow the host by name with --allow-host."
    return FetchRefusedError(f"{where} may not be fetched from: it is not a public address", hint=hint)


async def _resolved(host: str, port: int, timeout: float | None) -> list[str]:  # noqa: ASYNC109 - passed on
    try:
        async with asyncio.timeout(timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise httpcore.ConnectTimeout("its name was not resolved in time") from None
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"its name is not known ({getattr(error, 'strerror', None) or error})") from None
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    if not addresses:
        raise httpcore.ConnectError("its name has no address")
    return addresses


def reason(error: BaseException) -> str:
    """The system's own words for why a connection failed, which lie at the bottom of a chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__
    return str(error) or "no answer in time"


def _host_and_port(entry: str) -> tuple[str, int | None]:
    """`name`, `name:80`, `::1` or `[::1]:80` as host and port."""
    host, colon, port = entry.strip().rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        return _plain(host), int(port)
    return _plain(entry.strip()), None


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
