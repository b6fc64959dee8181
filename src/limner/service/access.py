"""Who may ask: a bearer token, and for a loopback service the names by which it is called."""

import hmac
import ipaddress
from collections.abc import Collection
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from limner.service.bodies import ClientGone, discard
from limner.service.errors import RequestError
from limner.service.limits import Limits

OPEN = ("/healthz", "/readyz")  # answered without a token


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """ASGI middleware that refuses requests without the token; their bodies are not kept.

    With `loopback` it also refuses requests that were sent to another host's name: a web page whose name was made to
    point to this machine (DNS rebinding) could otherwise use the service.
    """

    def __init__(self, app: ASGIApp, token: str, loopback: bool, limits: Limits, more: Collection[str] = ()):
        """`more` are further paths that are answered without the token."""
        self.app, self.token, self.loopback, self.limits = app, token.encode(), loopback, limits
        self.open = {*OPEN, *more}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and (error := self._refusal(scope)):
            with suppress(ClientGone):
                await discard(scope, receive, self.limits)
                await error.response(scope["path"], close=True)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.loopback and not is_loopback(name):
            return RequestError(403, "this service answers requests to localhost only", "wrong_host")
        if not self.token or scope["path"] in self.open:
            return None
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token):
            return None
        return RequestError(401, "the bearer token is missing or wrong", "unauthorised")
