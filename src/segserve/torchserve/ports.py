"""Free ports on loopback."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from itertools import islice

from segserve.errors import InvalidRequestError


def free_ports(count: int, within: tuple[int, int] | None = None) -> list[int]:
    """So many different ports that nothing listens on at this moment. within: the first and the last allowed.

    Raises:
        InvalidRequestError: there are fewer free ones within.
    """
    if within is not None:
        found = list(islice((port for port in range(within[0], within[1] + 1) if is_free(port)), count))
        if len(found) < count:
            raise InvalidRequestError(
                f"Ports {within[0]} to {within[1]}: {count} free ones are needed, {len(found)} are."
            )
        return found
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose last connections are just closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
