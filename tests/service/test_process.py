"""`limner serve` as a process of its own: signals, slow clients, clients that leave, and what it says."""

import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.apps.serve import raise_open_files
from tests.service.process import ask, half_a_request, head_of, running
from tests.service.world import images, text_of


def test_a_process_with_bad_clients_serves_the_good_ones_and_finishes_at_sigterm(tiny: Path, tmp_path: Path):
    """Also after the folder of its model was deleted."""
    (path,) = images(tiny, 1)
    content = path.read_bytes()
    shutil.copytree(tiny / "run", tmp_path / "run")
    with running(tmp_path / "run", "--upload-timeout", "2", "--wait-ms", "1") as (process, port):
        expected = ask(port, content)
        shutil.rmtree(tmp_path / "run")
        slow = [half_a_request(port) for _ in range(50)]
        for client in [half_a_request(port) for _ in range(20)]:
            client.close()
        huge = half_a_request(port, f"Content-Length: {2 << 30}")
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(port, content), range(40))) == {expected}
        assert huge.recv(100).startswith(b"HTTP/1.1 413")
        assert slow[0].recv(100).startswith(b"HTTP/1.1 408")
        last = socket.create_connection(("127.0.0.1", port), timeout=30)
        body = json.dumps({"image": text_of(content)}).encode()
        last.sendall(head_of(body) + body[:100])
        time.sleep(0.2)  # so that it has begun when the signal comes
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.2)
        last.sendall(body[100:])
        answer = b"".join(iter(lambda: last.recv(4096), b""))
        assert (
            answer.startswith(b"HTTP/1.1 200") and json.loads(answer.partition(b"\r\n\r\n")[2])["caption"] == expected
        )
        out, error = process.communicate(timeout=30)
        assert process.returncode == 0 and out == "stopped; what was begun is finished\n" and error == ""
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)


@pytest.mark.slow
def test_a_thousand_uploads_at_once(tiny: Path):
    """Some are answered with 429; none is lost, and the next request is answered."""
    (path,) = images(tiny, 1)
    body = json.dumps({"image": text_of(path.read_bytes())}).encode()
    raise_open_files()
    with running(tiny / "run", "--queue", "100") as (_, port):
        clients = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(1000)]
        for client in clients:
            client.sendall(head_of(body) + body[:-1])
        for client in clients:
            client.sendall(body[-1:])
        statuses = [int(client.recv(100).split()[1]) for client in clients]
        assert set(statuses) == {200, 429} and statuses.count(200) >= 100
        assert ask(port, path.read_bytes())


def test_what_cannot_be_served(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = str(tiny / "run")
    (tmp_path / "empty").touch()
    (tmp_path / "spaced").write_text("two words\n")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = str(taken.getsockname()[1])
    for arguments, status, message in (
        (["--token-file", str(tmp_path / "empty")], 1, "is empty; it should hold the token"),
        (["--token-file", str(tmp_path / "spaced")], 1, "the token has other characters than ASCII letters"),
        (["--token-file", str(tmp_path / "none")], 1, "there is no file or folder"),
        (["--port", port], 1, f"127.0.0.1:{port} cannot be used"),
        (["--port", "70000"], 1, "127.0.0.1:70000 cannot be used"),
        (["--model", run, "--model", run, "--port", "0"], 2, "two models are called run: give --model NAME="),
        (["--model", str(tmp_path / "nothing"), "--port", "0"], 1, "nothing"),
        (["--beem", "3"], 2, "unknown arguments: --beem 3"),
    ):
        assert main(["serve", *arguments]) == status
        assert message in capsys.readouterr().err
    taken.close()
