"""The key for what changes the service: scaling, loading and unloading models."""

from __future__ import annotations

from starlette.requests import Request

from segserve.errors import UnauthorizedError
from segserve.gateway.middleware import check_key
from segserve.gateway.services import services_of


def check_admin_key(request: Request, what: str) -> None:
    """Whether the request shows the admin key, or the local key of this machine's user. what: e.g. ``Scaling``.

    Raises:
        UnauthorizedError: it does not, or there is no admin key.
    """
    settings = services_of(request).settings
    keys = [key.encode("utf-8") for key in (settings.admin_key, settings.local_key) if key]
    if not keys:
        raise UnauthorizedError(f"{what} through the gateway is off: start it with SEGSERVE_ADMIN_KEY set.")
    check_key(request.scope, keys, f"{what} needs the admin key (SEGSERVE_ADMIN_KEY)")
