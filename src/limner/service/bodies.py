"""Requests are received whole, within bounds of size and time, before anything else sees them.

So a slow client costs a few bytes of memory and nobody's time, and a client that closes the connection frees its place.
"""

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limner.service.errors import RequestError
from limner.service.limits import Limits
from limner.service.metrics import Metrics


class ClientGone(Exception):
    """The client closed the connection before it had sent the whole request."""


class WholeBodies:
    """ASGI middleware: receives the body of a request, then calls the app with it."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics):
        self.app, self.limits, self.metrics = app, limits, metrics
        self.buffered = 0  # bytes of all bodies that are in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of events pass."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        chunks: list[bytes] = []
        try:
            await self._receive(scope, receive, chunks)
            await self._answer(scope, b"".join(chunks), receive, send)
        except ClientGone:
            self.metrics.hangups.inc()
        except RequestError as error:
            self.metrics.refused.labels(error.code).inc()
            self.metrics.requests.labels("not received", str(error.status)).inc()
            await error.response(scope["path"], close=True)(scope, receive, send)  # what follows is not received
        finally:
            self._count(-sum(map(len, chunks)))

    def _count(self, difference: int) -> None:
        self.buffered += difference
        self.metrics.buffered.set(self.buffered)

    async def _receive(self, scope: Scope, receive: Receive, chunks: list[bytes]) -> None:
        """Append the body to `chunks`.  Raises RequestError when it is too large, too slow, or compressed."""
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            raise RequestError(415, "the body is compressed (Content-Encoding): send it as it is", "compressed")
        most, received = self.limits.body_bytes, 0
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > most:
            await discard(scope, receive, self.limits)
            raise _too_large(most)
        deadline = asyncio.get_running_loop().time() + self.limits.upload_seconds
        more = True
        while more:
            try:
                left = max(0.0, deadline - asyncio.get_running_loop().time())
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError as error:
                seconds = f"{self.limits.upload_seconds:g} s"
                raise RequestError(408, f"the request was not complete after {seconds}", "too_slow") from error
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk, more = message.get("body", b""), message.get("more_body", False)
            received += len(chunk)
            if received > most:
                if more:
                    await discard(scope, receive, self.limits)
                raise _too_large(most)
            if self.buffered + len(chunk) > self.limits.buffered_bytes:
                raise RequestError(429, "too many bytes of requests are waiting: try again", "busy", retry_after=1)
            self._count(len(chunk))
            chunks.append(chunk)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the app; cancel it when the client closes the connection before the end of the answer."""
        gone = asyncio.ensure_future(receive())
        unread, complete = [body], False

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await asyncio.shield(gone)

        async def watched_send(message: Message) -> None:
            nonlocal complete
            complete |= message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        work = asyncio.ensure_future(self.app(scope, replay, watched_send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not complete:
                work.cancel()
                self.metrics.hangups.inc()
                with suppress(asyncio.CancelledError):
                    await work
                return
            await work
        finally:
            gone.cancel()
            work.cancel()


async def discard(scope: Scope, receive: Receive, limits: Limits) -> None:
    """Receive the rest of a request that is refused, up to as many bytes as are allowed, without keeping it.

    Many clients read no answer before they have sent everything, and lose it when the connection is closed meanwhile.
    Nothing is received from a client that waits to be asked for the body (Expect: 100-continue), or that promises more
    than four times what is allowed.  The answer must close the connection: else the server goes on receiving.
    """
    headers, received, more = dict(scope["headers"]), 0, True
    length = headers.get(b"content-length", b"0")
    if b"expect" in headers or (length.isdigit() and int(length[:20]) > 4 * limits.body_bytes):
        return
    deadline = asyncio.get_running_loop().time() + limits.upload_seconds
    with suppress(asyncio.TimeoutError):
        while more and received <= 4 * limits.body_bytes:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - asyncio.get_running_loop().time()))
            if message["type"] == "http.disconnect":
                raise ClientGone
            received += len(message.get("body", b""))
            more = message.get("more_body", False)


def _too_large(most: int) -> RequestError:
    return RequestError(413, f"the request has more than {most} bytes, which is the most that is allowed", "too_large")
