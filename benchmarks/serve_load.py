"""Load on `limner serve`: many clients at a time on loopback, some of them with bad input.

    python benchmarks/serve_load.py FOLDER_OF_IMAGES --clients 64 --requests 2000

Every answer is compared with the caption that the pipeline gives for the image alone.  Two services run, one that
captions in batches and one that captions one image at a time; they take turns, so that a busy machine harms both alike.
"""

import argparse
import base64
import http.client
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import limner
from limner.data.media_folder import media_below

BAD = {  # what bad clients send -> the status that they should get
    b"<!doctype html><p>not found</p>": 422,
    b"": 422,
    b"\xff\xd8\xff\xe0" + bytes(500): 422,
    b"RIFF\0\0\0\0AVI " + bytes(500): 422,
}
JSON = {"Content-Type": "application/json"}


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)  # of good requests
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    wall: float = 0.0

    def __iadd__(self, other: "Tally") -> "Tally":
        self.seconds += other.seconds
        self.statuses += other.statuses
        self.wrong += other.wrong
        self.wall += other.wall
        return self

    def line(self, name: str) -> str:
        ordered = sorted(self.seconds)
        p99 = quantiles(ordered, n=100)[98]
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{name:24} {len(ordered) / self.wall:6.1f} captions/s  p50 {1000 * median(ordered):6.0f} ms  "
            f"p99 {1000 * p99:6.0f} ms  wrong {len(self.wrong)}  {statuses}"
        )


@contextmanager
def service(*options: str) -> Iterator[tuple[int, int]]:
    """A service in a process of its own -> (its port, its process id)."""
    command = [sys.executable, "-m", "limner", "serve", "--port", "0", "--queue", "100000", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(60)


def native(content: bytes) -> tuple[str, bytes]:
    """(path, body) of a request to limner's own interface."""
    return "/v1/caption", json.dumps({"image": base64.b64encode(content).decode()}).encode()


def openai(content: bytes) -> tuple[str, bytes]:
    """(path, body) of a request to OpenAI's interface."""
    url = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    parts = [{"type": "text", "text": "Describe this image."}, {"type": "image_url", "image_url": {"url": url}}]
    return "/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()


def caption_in(answer: dict) -> str:
    """The caption in an answer of either interface."""
    return answer["caption"] if "caption" in answer else answer["choices"][0]["message"]["content"]


def load(
    port: int,
    form: Callable[[bytes], tuple[str, bytes]],
    images: Sequence[tuple[bytes, str]],
    clients: int,
    requests: int,
    bad_share: float,
    seed: int = 0,
) -> Tally:
    """Send `requests` requests from `clients` connections at a time; `images` are (bytes, expected caption)."""
    tally, lock = Tally(), threading.Lock()
    rng = random.Random(seed)
    good = [(content, caption, 200) for content, caption in images]
    bad = [(content, "", status) for content, status in BAD.items()]
    jobs = [rng.choice(bad if rng.random() < bad_share else good) for _ in range(requests)]

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while True:
            with lock:
                if not jobs:
                    break
                content, expected, status = jobs.pop()
            path, body = form(content)
            began = perf_counter()
            connection.request("POST", path, body, JSON)
            answer = connection.getresponse()
            text = answer.read()
            seconds = perf_counter() - began
            with lock:
                tally.statuses[answer.status] += 1
                if status == 200:
                    tally.seconds.append(seconds)
                    found = caption_in(json.loads(text)) if answer.status == 200 else text.decode()
                    if found != expected:
                        tally.wrong.append(f"{found!r}, expected {expected!r}")
                elif answer.status not in (status, 400):  # OpenAI's clients get 400 for an image that cannot be read
                    tally.wrong.append(f"{answer.status} for bad input, expected {status}")
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.wall = perf_counter() - began
    return tally


def megabytes(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--compared", type=int, default=400, help="requests of each round of the comparisons")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = ["--model", options.model] if options.model else []
    pipeline = limner.load(options.model)
    paths = media_below(options.folder).media[: options.images]
    images = [(path.read_bytes(), pipeline.caption(path).text) for path in paths]
    print(f"{len(images)} images, {options.clients} clients")
    with service(*model) as (batching, process), service(*model, "--batch-size", "1") as (single, _):
        for port in (batching, single):
            load(port, native, images, options.clients, 64, 0)
        memory, whole = [megabytes(process)], Tally()
        for quarter in range(4):
            whole += load(batching, native, images, options.clients, options.requests // 4, 0.02, seed=quarter)
            memory.append(megabytes(process))
        print(whole.line(f"{options.requests} requests, 2 % bad"))
        print(f"memory after each quarter, MB: {', '.join(f'{size:.0f}' for size in memory)}")
        for line in whole.wrong[:5]:
            print(f"  wrong: {line}")
        ways = {"in batches": (batching, native), "one at a time": (single, native), "of OpenAI": (batching, openai)}
        tallies: dict[str, list[Tally]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, (port, form) in ways.items():
                tally = load(port, form, images, options.clients, options.compared, 0)
                tallies[name].append(tally)
                print(tally.line(name))
    speed = {name: median(len(it.seconds) / it.wall for it in found) for name, found in tallies.items()}
    print(f"batches / one at a time: {speed['in batches'] / speed['one at a time']:.2f}")
    print(f"OpenAI's interface / limner's own: {speed['of OpenAI'] / speed['in batches']:.2f}")


if __name__ == "__main__":
    main()
