"""Bounds on size and time of requests, the token, and the name of the host: refused before anything is decoded."""

import asyncio
from typing import Any

import pytest

from limner.inference.pipeline import Pipeline
from limner.service.access import Access
from limner.service.app import Settings
from limner.service.bodies import WholeBodies
from limner.service.limits import Limits
from limner.service.metrics import Metrics
from tests.service.world import error_of, png, service


class Connection:
    """A client of an ASGI app that sends `chunks`, then is silent; or closes the connection, for the chunk None."""

    def __init__(self, *chunks: bytes | None, headers: dict[str, str] | None = None, more: bool = False):
        self.chunks, self.more = list(chunks), more
        self.sent: list[dict[str, Any]] = []
        named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope = {"type": "http", "method": "POST", "path": "/v1/caption", "headers": named}

    async def receive(self) -> dict[str, Any]:
        if not self.chunks:
            await asyncio.Event().wait()
        chunk = self.chunks.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(self.chunks) or self.more}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]


class Echo:
    """Answers with the length of the body; with `hang`, never."""

    def __init__(self, hang: bool = False) -> None:
        self.hang, self.cancelled, self.bodies = hang, False, list[bytes]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        try:
            if self.hang:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def asked(connection: Connection, app: Any = None, **limits: Any) -> WholeBodies:
    guard = WholeBodies(app or Echo(), Limits(**limits), Metrics())
    asyncio.run(asyncio.wait_for(guard(connection.scope, connection.receive, connection.send), 10))
    assert guard.buffered == 0
    return guard


def test_a_body_in_parts_reaches_the_app_as_a_whole():
    app = Echo()
    connection = Connection(b"ab", b"", b"cd")
    asked(connection, app)
    assert app.bodies == [b"abcd"] and connection.status == 200


def test_a_promised_length_is_refused_before_the_body():
    connection = Connection(headers={"content-length": str(2 << 30)})
    asked(connection)
    assert connection.status == 413
    assert (b"connection", b"close") in connection.sent[0]["headers"]  # else the server goes on receiving


def test_a_client_that_lies_about_its_length_is_refused_when_it_goes_on():
    connection = Connection(b"x" * 6, b"x" * 6, headers={"content-length": "4"})
    asked(connection, body_bytes=10)
    assert connection.status == 413


def test_a_client_that_stops_in_the_middle_is_told_after_the_time():
    connection = Connection(b"x", more=True)
    asked(connection, upload_seconds=0.02)
    assert connection.status == 408


def test_bytes_of_all_requests_together_are_bounded():
    connection = Connection(b"x" * 8, b"x" * 8)
    asked(connection, buffered_bytes=10)
    assert connection.status == 429
    assert (b"retry-after", b"1") in connection.sent[0]["headers"]


def test_clients_that_send_a_little_too_much_can_send_it_all_before_they_read_the_answer():
    for headers in ({}, {"content-length": "24"}):
        connection = Connection(b"x" * 8, b"x" * 8, b"x" * 8, headers=headers)
        asked(connection, body_bytes=10)
        assert connection.status == 413 and connection.chunks == []
    waiting = Connection(b"x" * 24, headers={"content-length": "24", "expect": "100-continue"})
    asked(waiting, body_bytes=10)
    assert waiting.status == 413 and waiting.chunks == [b"x" * 24]
    endless = Connection(*[b"x" * 8] * 100)
    asked(endless, body_bytes=10)
    assert endless.status == 413 and len(endless.chunks) > 90


def test_compressed_bodies_are_refused():
    connection = Connection(b"\x1f\x8b", headers={"content-encoding": "gzip"})
    asked(connection)
    assert connection.status == 415


def test_a_client_that_leaves_frees_its_place():
    """Before the end of its request nothing is done; while it waits for the answer, the work is cancelled."""
    app, early = Echo(), Connection(b"x", None)
    guard = asked(early, app)
    assert early.sent == [] and app.bodies == [] and guard.metrics.hangups._value.get() == 1
    app, late = Echo(hang=True), Connection(b"x")

    async def leave() -> None:
        guard = WholeBodies(app, Limits(), Metrics())
        late.chunks = [b"x"]
        running = asyncio.ensure_future(guard(late.scope, late.receive, late.send))
        while not app.bodies:
            await asyncio.sleep(0)
        assert guard.buffered == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert guard.buffered == 0

    asyncio.run(leave())
    assert app.cancelled and late.sent == []
    app, gone = Echo(hang=True), Connection(b"x", None)
    gone.chunks, received = [b"x"], gone.receive

    async def receive() -> dict[str, Any]:
        if app.bodies:
            return {"type": "http.disconnect"}
        return await received() if gone.chunks else await _when(app)

    gone.receive = receive  # type: ignore[method-assign]
    assert asked(gone, app).metrics.hangups._value.get() == 1
    assert app.cancelled and gone.sent == []


async def _when(app: Echo) -> dict[str, Any]:
    while not app.bodies:
        await asyncio.sleep(0)
    return {"type": "http.disconnect"}


def test_the_token_is_needed_everywhere_but_for_health(pipeline: Pipeline):
    with service(pipeline, Settings(token="s3cret")) as client:
        files = {"file": png()}
        refused = client.post("/v1/caption", files=files)
        assert error_of(refused) == (401, "the bearer token is missing or wrong")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/api/tags").json() == {"error": "the bearer token is missing or wrong"}
        for header in ("Bearer wrong", "Bearer s3cre", "Basic s3cret", "s3cret", "Bearer ünlaut"):
            headers = {"authorization": header.encode()}
            assert client.post("/v1/caption", files=files, headers=headers).status_code == 401
        answer = client.post("/v1/caption", files=files, headers={"authorization": "Bearer s3cret"})
        assert answer.status_code == 200
        assert client.get("/healthz").status_code == 200 and client.get("/metrics").status_code == 401


@pytest.mark.parametrize(
    ("host", "answered"),
    [("localhost", True), ("localhost:8000", True), ("127.0.0.1:80", True), ("[::1]:8000", True), ("[::1]", True),
     ("evil.example", False), ("localhost.evil.example:8000", False), ("", False), ("10.0.0.5:8000", False)],
)  # fmt: skip
def test_a_loopback_service_answers_to_its_own_names_only(host: str, answered: bool):
    app, connection = Echo(), Connection(b"", headers={"host": host})
    asyncio.run(Access(app, "", True, Limits())(connection.scope, connection.receive, connection.send))
    assert connection.status == (200 if answered else 403)


def test_browsers_of_other_pages_are_not_allowed_unless_listed(pipeline: Pipeline):
    asking = {"origin": "https://editor.example", "access-control-request-method": "POST"}
    with service(pipeline) as client:
        assert "access-control-allow-origin" not in client.options("/v1/caption", headers=asking).headers
    with service(pipeline, Settings(origins=["https://editor.example"])) as client:
        answer = client.options("/v1/caption", headers=asking)
        assert answer.headers["access-control-allow-origin"] == "https://editor.example"
        others = {**asking, "origin": "https://evil.example"}
        assert "access-control-allow-origin" not in client.options("/v1/caption", headers=others).headers


def test_limits_are_numbers_above_0():
    with pytest.raises(ValueError, match="the limit pixels is 0; give a number above 0"):
        Limits(pixels=0)
