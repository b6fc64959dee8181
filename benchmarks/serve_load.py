"""Load on `limner serve`: many clients at a time on loopback, some of them with bad input.

    python benchmarks/serve_load.py FOLDER_OF_IMAGES --clients 64 --requests 2000

Every answer is compared with the caption that the pipeline gives for the image alone.  Two services run, one that
captions in batches and one that captions one image at a time.  What is compared takes turns in short rounds, whose
order is reversed each time, so that a busy machine harms all alike; the CPU time of the service does not depend on
others.
"""

import argparse
import base64
import http.client
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    cpu: float = 0.0  # seconds of the service

    def __iadd__(self, other: "Tally") -> "Tally":
        self.seconds += other.seconds
        self.statuses += other.statuses
        self.wrong += other.wrong
        self.wall += other.wall
        self.cpu += other.cpu
        return self

    @property
    def speed(self) -> float:
        """Captions per second."""
        return len(self.seconds) / self.wall

    def line(self, name: str) -> str:
        ordered = sorted(self.seconds)
        p99 = quantiles(ordered, n=100)[98]
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{name:24} {self.speed:6.1f} captions/s  p50 {1000 * median(ordered):6.0f} ms  p99 {1000 * p99:6.0f} ms  "
            f"CPU {1000 * self.cpu / len(ordered):5.1f} ms a caption  wrong {len(self.wrong)}  {statuses}"
        )


@dataclass(frozen=True)
class Service:
    """A service in a process of its own."""

    port: int
    process: int

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that all of its threads have used."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service(*options: str) -> Iterator[Service]:
    """Start a service, and end it."""
    command = [sys.executable, "-m", "limner", "serve", "--port", "0", "--queue", "100000", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Service(int(process.stdout.readline().rpartition(":")[2]), process.pid)
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
    service: Service,
    form: Callable[[bytes], tuple[str, bytes]],
    images: Sequence[tuple[bytes, str]],
    clients: int,
    requests: int,
    bad_share: float,
    seed: int = 0,
) -> Tally:
    """Send `requests` requests from `clients` connections at a time; `images` are (bytes, expected caption)."""
    tally, lock = Tally(cpu=-service.cpu), threading.Lock()
    rng = random.Random(seed)
    good = [(content, caption, 200) for content, caption in images]
    bad = [(content, "", status) for content, status in BAD.items()]
    jobs = [rng.choice(bad if rng.random() < bad_share else good) for _ in range(requests)]

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=600)
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
    tally.cpu += service.cpu
    return tally


def compare(
    ways: Mapping[str, tuple[Service, Callable[[bytes], tuple[str, bytes]]]],
    images: Sequence[tuple[bytes, str]],
    options: argparse.Namespace,
) -> None:
    """Print how two ways differ: short rounds in turn, the order reversed each time."""
    tallies: dict[str, list[Tally]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            tallies[name].append(load(*ways[name], images, options.clients, options.compared, 0, seed=number))
    for name, found in tallies.items():
        print(sum_of(found).line(name))
    first, second = tallies.values()
    ratios = sorted(b.speed / a.speed for a, b in zip(first, second, strict=True))
    cpu = sum_of(second).cpu / sum_of(first).cpu
    print(
        f"{' / '.join(reversed(list(ways)))}: {sum_of(second).speed / sum_of(first).speed:.2f} in captions/s "
        f"(rounds: {ratios[0]:.2f} to {ratios[-1]:.2f}, median {median(ratios):.2f}), {cpu:.3f} in CPU time"
    )


def compare_at_once(
    ways: Mapping[str, tuple[Service, Callable[[bytes], tuple[str, bytes]]]],
    images: Sequence[tuple[bytes, str]],
    options: argparse.Namespace,
) -> None:
    """Print how two ways differ that share the service at the same time, with half of the clients each.

    Other work on the machine then harms both in the same moment.
    """
    clients, requests = options.clients // 2, options.compared * options.rounds // 2
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda way: load(*way, images, clients, requests, 0), ways.values())
    for name, tally in zip(ways, (first, second), strict=True):
        print(f"{name:24} {tally.speed:6.1f} captions/s  p50 {1000 * median(tally.seconds):6.0f} ms  at the same time")
    print(f"{' / '.join(reversed(list(ways)))}, at the same time: {second.speed / first.speed:.3f} in captions/s")


def sum_of(tallies: Sequence[Tally]) -> Tally:
    """All of them as one."""
    whole = Tally()
    for tally in tallies:
        whole += tally
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=None)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--compared", type=int, default=128, help="requests of each round of the comparisons")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    model = ["--model", options.model] if options.model else []
    pipeline = limner.load(options.model)
    paths = media_below(options.folder).media[: options.images]
    images = [(path.read_bytes(), pipeline.caption(path).text) for path in paths]
    print(f"{len(images)} images, {options.clients} clients")
    with service(*model) as batching, service(*model, "--batch-size", "1") as single:
        for each in (batching, single):
            load(each, native, images, options.clients, 64, 0)
        memory, whole = [batching.megabytes], Tally()
        for quarter in range(4):
            whole += load(batching, native, images, options.clients, options.requests // 4, 0.02, seed=quarter)
            memory.append(batching.megabytes)
        print(whole.line(f"{options.requests} requests, 2 % bad"))
        print(f"lost: {options.requests - sum(whole.statuses.values())}")
        print(f"memory after each quarter, MB: {', '.join(f'{size:.0f}' for size in memory)}")
        for line in whole.wrong[:5]:
            print(f"  wrong: {line}")
        compare({"one at a time": (single, native), "in batches": (batching, native)}, images, options)
        interfaces = {"limner's own interface": (batching, native), "OpenAI's": (batching, openai)}
        compare(interfaces, images, options)
        compare_at_once(interfaces, images, options)


if __name__ == "__main__":
    main()
