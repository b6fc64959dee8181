"""JSON requests to a server that may be slow, busy, broken or wrong: deadlines, retries, and errors that say which.

The standard library is enough: a POST and a GET, no redirects (a key would go elsewhere), and sockets at hand, so that
a command can end at once although requests are under way.
"""

import http.client
import json
import random
import socket
import ssl
import threading
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from limner.inference.server.address import ServerAddress

ATTEMPTS = 6  # of a request: with the waits of 1, 2, 4, 8 and 16 s between them, half a minute
BACKOFF = 1.0  # seconds, the first of these waits
TIMED_OUT_ATTEMPTS = 2  # of a request that reached its deadline, which is minutes
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is not waited for
CONNECT_TIMEOUT = 10.0  # seconds
MAX_BODY = 4_000_000  # bytes of an answer; a caption with log-probabilities has some thousand
RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)


class RequestFailed(ValueError):
    """A request got no usable answer, also after retries.

    `status` is the HTTP status, 0 without one; `message` what the server says about it.
    """

    def __init__(self, why: str, status: int = 0, message: str = ""):
        super().__init__(why)
        self.status, self.message = status, message


class ServerUnusable(ValueError):
    """No request to this server can succeed: a wrong key, address or model.  `status` is the HTTP status, or 0."""

    def __init__(self, why: str, status: int = 0):
        super().__init__(why)
        self.status = status


class _Again(Exception):
    """An attempt failed in a way that may pass; `wait` is what the server asks for, in seconds."""

    def __init__(self, why: str, status: int = 0, wait: float | None = None, timed_out: bool = False):
        super().__init__(why)
        self.status, self.wait, self.timed_out = status, wait, timed_out


class ServerClient:
    """Sends requests to one server, from several threads; each thread keeps a connection open."""

    def __init__(self, address: ServerAddress, key: str = "", timeout: float = 300.0):
        """`timeout` is the time of one attempt in seconds."""
        self.address, self.timeout = address, timeout
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "limner"}
        self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self._too_late = f"no answer within {timeout:g} seconds"
        self._stopped = threading.Event()
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._not_before = 0.0  # a busy server asked all requests to wait until then (time.monotonic)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON and return the JSON of the answer.  Raises RequestFailed after retries, ServerUnusable."""
        return self._retried("POST", path, json.dumps(body).encode(), ATTEMPTS)

    def get(self, path: str) -> Any:
        """Return the JSON at a path, without retries.  Raises RequestFailed, ServerUnusable."""
        return self._retried("GET", path, None, 1)

    def close(self) -> None:
        """End all requests, also those under way: they raise RequestFailed."""
        self._stopped.set()
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def _retried(self, method: str, path: str, body: bytes | None, attempts: int) -> Any:
        timed_out = 0
        for attempt in range(1, attempts + 1):
            self._wait(self._not_before - time.monotonic())
            try:
                return self._attempt(method, path, body)
            except _Again as error:
                timed_out += error.timed_out
                if attempt == attempts or timed_out == TIMED_OUT_ATTEMPTS:
                    tries = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise RequestFailed(f"{error}{tries}", error.status) from error
                wait = error.wait
                if wait is None:
                    wait = BACKOFF * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
                elif wait > LONGEST_WAIT:
                    raise ServerUnusable(
                        f"{self.address.url} asks to wait {wait:.0f} seconds; try again then"
                    ) from error
                else:
                    self._not_before = max(self._not_before, time.monotonic() + wait)
                self._wait(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise RequestFailed("the request was ended")

    def _attempt(self, method: str, path: str, body: bytes | None) -> Any:
        """One request and its answer as JSON.  Raises _Again, RequestFailed or ServerUnusable."""
        connection = self._connection()
        late = threading.Event()

        def end() -> None:
            late.set()
            _shut(connection)

        # a server that sends a byte now and then never reaches the socket's own timeout
        deadline = threading.Timer(self.timeout, end)
        deadline.daemon = True
        deadline.start()
        try:
            connection.request(method, self.address.path + path, body, self._headers)
            answer = connection.getresponse()
            content = answer.read(MAX_BODY + 1)
        except (OSError, http.client.HTTPException) as error:
            self._drop(connection)
            if self._stopped.is_set():
                raise RequestFailed("the request was ended") from error
            if late.is_set() or isinstance(error, TimeoutError):
                raise _Again(self._too_late, timed_out=True) from error
            raise _Again(f"the connection broke ({type(error).__name__}: {error})") from error
        finally:
            deadline.cancel()
        if answer.length and len(content) <= MAX_BODY:  # less than Content-Length: it was cut, here or there
            self._drop(connection)
            if self._stopped.is_set():
                raise RequestFailed("the request was ended")
            if late.is_set():
                raise _Again(self._too_late, timed_out=True)
            raise _Again("the connection broke in the middle of the answer")
        if answer.will_close or len(content) > MAX_BODY:
            self._drop(connection)
        return self._checked(answer, content)

    def _checked(self, answer: http.client.HTTPResponse, content: bytes) -> Any:
        """The JSON of an answer of status 200; otherwise the error that fits the status."""
        status, said = answer.status, _message(content)
        what = f"{status} {answer.reason}" + (f": {said}" if said else "")
        if status in RETRIED:
            raise _Again(f"the server answers {what}", status, _retry_after(answer.getheader("Retry-After")))
        if status in (401, 403):
            raise ServerUnusable(
                f"{self.address.url} refuses the key ({what}): put the right one into the environment variable that "
                "--key-variable names",
                status,
            )
        if status == 404 or 300 <= status < 400:
            where = answer.getheader("Location")
            raise ServerUnusable(
                f"{self.address.url} has no such model or path ({what})"
                + (f"; it points to {where}, which is not followed" if where else "")
                + f": is {self.address.model!r} the name of a model there, and does the address end in /v1?",
                status,
            )
        if status != 200:
            raise RequestFailed(f"the server answers {what}", status, said)
        if len(content) > MAX_BODY:
            raise RequestFailed(f"the answer has more than {MAX_BODY:,} bytes", status)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            kind = (answer.getheader("Content-Type") or "text without a type").partition(";")[0]
            why = f"the server answers with {kind} ({_start(content)!r}) where JSON is expected"
            raise RequestFailed(why, status) from error

    def _connection(self) -> http.client.HTTPConnection:
        """The connection of this thread, opened when it is needed."""
        connection = getattr(self._mine, "connection", None)
        if connection is not None and connection.sock is not None:
            return connection
        host, port = self.address.host, self.address.port
        if self.address.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_TIMEOUT, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT)
        try:
            connection.connect()
            connection.sock.settimeout(self.timeout)
        except OSError as error:
            connection.close()
            raise _Again(f"no server answers at {self.address.url} ({error})") from error
        self._mine.connection = connection
        with self._lock:
            self._open.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        self._mine.connection = None
        connection.close()


def _shut(connection: http.client.HTTPConnection) -> None:
    """End what another thread reads from or writes to a connection."""
    with suppress(OSError, AttributeError):  # AttributeError: it was closed meanwhile
        connection.sock.shutdown(socket.SHUT_RDWR)


def _retry_after(text: str | None) -> float | None:
    """The header Retry-After, seconds or a date, in seconds from now; None when there is none, or nonsense.

    >>> _retry_after("2.5"), _retry_after("soon"), _retry_after("Wed, 21 Oct 2015 07:28:00 GMT")
    (2.5, None, 0.0)
    """
    if not text:
        return None
    with suppress(ValueError):
        seconds = float(text)
        return max(0.0, seconds) if seconds < float("inf") else None  # nan too
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _message(content: bytes) -> str:
    """What an answer says went wrong: `error.message` of its JSON, or the beginning of its text."""
    with suppress(ValueError, RecursionError):
        value = json.loads(content)
        error = value.get("error", value.get("detail", value)) if isinstance(value, dict) else value
        text = error.get("message", error) if isinstance(error, dict) else error
        return " ".join(str(text).split())[:300]
    return _start(content)


def _start(content: bytes) -> str:
    """The first characters of an answer, in one line."""
    return " ".join(content[:400].decode("utf-8", "replace").split())[:80]
