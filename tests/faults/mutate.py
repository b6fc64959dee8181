"""Damaged copies of a file: bytes changed, cut, repeated or moved, and values of JSON replaced.  Seeded."""

import json
import random
from collections.abc import Callable
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, float("nan"), "", "x", "\ud800", "\0", [], {}, [[]], {"": None}, "1e9", [1, "a"],
)  # fmt: skip
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutate(data: bytes, seed: int) -> bytes:
    """A damaged copy, different from `data`.

    >>> mutate(b"limner", 0) != b"limner", mutate(b"limner", 3) == mutate(b"limner", 3)
    (True, True)
    """
    draw = random.Random(seed)
    for _ in range(20):
        damaged = data
        kind = draw.choice(JSON_KINDS) if data[:1] in (b"{", b"[") and draw.random() < 0.5 else draw.choice(BYTE_KINDS)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            damaged = kind(damaged, draw)
        if damaged != data:
            return damaged
    return data + b"\0"


def _place(data: bytes, draw: random.Random) -> int:
    """A byte; headers and ends are met more often."""
    size = max(1, len(data))
    near = draw.random()
    if near < 0.3:
        return draw.randrange(min(size, 64))
    return size - 1 - draw.randrange(min(size, 64)) if near < 0.4 else draw.randrange(size)


def flip(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :] if data else data


def overwrite(data: bytes, draw: random.Random) -> bytes:
    """Some bytes become others."""
    place = _place(data, draw)
    return data[:place] + draw.randbytes(draw.choice((1, 2, 4, 16))) + data[place + 16 :]


def number(data: bytes, draw: random.Random) -> bytes:
    """A number of 1 to 8 bytes becomes a size that is seldom right."""
    place, size = _place(data, draw), draw.choice((1, 2, 4, 8))
    order = draw.choice(("little", "big"))
    value = draw.choice(NUMBERS) & ((1 << 8 * size) - 1)
    return data[:place] + value.to_bytes(size, order) + data[place + size :]  # type: ignore[arg-type]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def drop(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + data[place + draw.choice((1, 2, 7, 100, 5000)) :]


def repeat(data: bytes, draw: random.Random) -> bytes:
    place, size = _place(data, draw), draw.choice((1, 8, 100, 5000))
    return data[: place + size] + data[place : place + size] * draw.choice((1, 2, 50)) + data[place + size :]


def insert(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return (
        data[:place] + draw.choice((b"\0", b"\xff", b"\r", b"\n", b'"', b"[", b"{", b"-", b"\0" * 100)) + data[place:]
    )


def move(data: bytes, draw: random.Random) -> bytes:
    place, size, to = _place(data, draw), draw.choice((1, 16, 1000)), _place(data, draw)
    block, rest = data[place : place + size], data[:place] + data[place + size :]
    return rest[:to] + block + rest[to:]


def replace_value(data: bytes, draw: random.Random) -> bytes:
    """A value of a JSON file becomes another one."""
    return _edited(data, draw, lambda place, key: place.__setitem__(key, draw.choice(ODD_VALUES)))


def remove_value(data: bytes, draw: random.Random) -> bytes:
    return _edited(data, draw, lambda place, key: place.__delitem__(key))


def repeat_value(data: bytes, draw: random.Random) -> bytes:
    """A value stands where another one was."""

    def change(place: Any, key: Any) -> None:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        place[key] = place[draw.choice(keys)]

    return _edited(data, draw, change)


def nest(data: bytes, draw: random.Random) -> bytes:
    """A value becomes a list in lists."""
    place = _place(data, draw)
    return data[:place] + b"[" * draw.choice((10, 100_000)) + data[place:]


def _edited(data: bytes, draw: random.Random, change: Callable[[Any, Any], None]) -> bytes:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return flip(data, draw)
    places: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        value = left.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        places += [(value, key) for key in keys]
        left += [value[key] for key in keys]
    if not places:
        return b"null"
    change(*draw.choice(places))
    return json.dumps(tree).encode()


BYTE_KINDS = (flip, flip, overwrite, number, number, cut, drop, repeat, insert, move)
JSON_KINDS = (replace_value, replace_value, remove_value, repeat_value, nest)
