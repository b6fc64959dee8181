"""A stand-in for a network camera: an RTSP server on loopback that plays an MPEG transport stream, with a password.

It speaks as much of RFC 2326 as a client needs that takes RTP packets over the same connection (interleaved), and packs
the stream as RFC 2250 says: seven packets of 188 bytes after a header of RTP (payload type 33).
"""

import base64
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=stand-in
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP 33
a=control:track1
"""
PACKETS = 7 * 188


class StandIn(socketserver.ThreadingTCPServer):
    """Plays `content`, which lasts `seconds`, to whoever gives `user` ("name:password"); `methods` were asked for."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, content: bytes, seconds: float, user: str):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.content, self.seconds, self.methods = content, seconds, list[str]()
        self.authorization = f"Basic {base64.b64encode(user.encode()).decode()}"


class _Connection(socketserver.StreamRequestHandler):
    server: StandIn

    def handle(self) -> None:
        with suppress(ConnectionError):
            while line := self.rfile.readline().decode():
                fields = dict(
                    field.split(": ", 1) for field in iter(lambda: self.rfile.readline().decode().strip(), "")
                )
                self.answer(line.split()[0], fields)

    def answer(self, method: str, fields: dict[str, str]) -> None:
        self.server.methods.append(method)
        if fields.get("Authorization") != self.server.authorization:
            self.say(fields, "401 Unauthorized", ['WWW-Authenticate: Basic realm="camera"'])
        elif method == "OPTIONS":
            self.say(fields, "200 OK", ["Public: DESCRIBE, SETUP, PLAY, TEARDOWN"])
        elif method == "DESCRIBE":
            self.say(fields, "200 OK", ["Content-Type: application/sdp"], SDP.replace("\n", "\r\n"))
        elif method == "SETUP":
            self.say(fields, "200 OK", ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"])
        elif method == "PLAY":
            self.say(fields, "200 OK", ["Session: 1"])
            self.play()
        else:
            self.say(fields, "200 OK", ["Session: 1"])

    def say(self, fields: dict[str, str], status: str, lines: list[str], body: str = "") -> None:
        head = [f"RTSP/1.0 {status}", f"CSeq: {fields['CSeq']}", *lines, f"Content-Length: {len(body)}", "", ""]
        self.wfile.write("\r\n".join(head).encode() + body.encode())

    def play(self) -> None:
        """Send the stream at its pace, then end the connection."""
        content, began = self.server.content, time.monotonic()
        for number, place in enumerate(range(0, len(content), PACKETS)):
            moment = self.server.seconds * place / len(content)
            time.sleep(max(0.0, began + moment - time.monotonic()))
            header = struct.pack(">BBHII", 0x80, 33, number % (1 << 16), int(90_000 * moment), 1)
            packet = header + content[place : place + PACKETS]
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
        self.connection.close()


@contextmanager
def playing(path: Path, seconds: float, user: str) -> Iterator[tuple[StandIn, str]]:
    """A stand-in that plays a file, and its address without a name and a password: `127.0.0.1:PORT/stream`."""
    server = StandIn(path.read_bytes(), seconds, user)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"127.0.0.1:{server.server_address[1]}/stream"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
