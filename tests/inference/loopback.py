"""A chat-completions server on this machine, whose answers a test decides."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the server sends: JSON, or text as it is; `cut` closes the connection in the middle."""

    body: Any
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012
    cut: bool = False
    drip: float = 0.0  # seconds between two bytes


def says(text: Any, logprobs: list[float] | None = None, **choice: Any) -> Answer:
    """A chat completion."""
    tokens = None if logprobs is None else {"content": [{"token": "x", "logprob": value} for value in logprobs]}
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": tokens, **choice}]
    return Answer({"object": "chat.completion", "choices": choices})


class Server(ThreadingHTTPServer):
    """Its `reply` makes the answer to a request's body; `seen` are (headers, body) of all requests."""

    daemon_threads = True
    reply: Callable[[dict[str, Any]], Answer]
    models: tuple[str, ...] = ("tiny-vlm",)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.lock, self.under_way, self.most = threading.Lock(), 0, 0

    @property
    def url(self) -> str:
        return f"openai:http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET /v1/models and POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.send(Answer({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((dict(self.headers), body))
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
        try:
            right = self.path == "/v1/chat/completions"
            self.send(self.server.reply(body) if right else Answer({"error": {"message": "no such path"}}, 404))
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def send(self, answer: Answer) -> None:
        text = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(text)),
            **answer.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.drip:
            for byte in text:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(answer.drip)
        else:
            self.wfile.write(text[: len(text) // 2] if answer.cut else text)
        if answer.cut:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(reply: Callable[[dict[str, Any]], Answer]) -> Iterator[Server]:
    """A running server."""
    server = Server()
    server.reply = reply
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
