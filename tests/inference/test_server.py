"""Captioners behind a server: a real HTTP server on this machine, which is also slow, busy, broken or lying."""

import base64
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from email.utils import formatdate
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.core.torch_free import Caption, Failure
from limner.decode.options import Beam, Sample
from limner.decode.rules import Rules
from limner.inference.load import load
from limner.inference.prompting import CLIP_PROMPT, PROMPT
from limner.inference.server import client
from limner.inference.server.address import ServerAddress
from limner.inference.server.pipeline import OpenAIPipeline
from limner.text.refusals import is_refusal
from limner.text.scripts import foreign_script
from tests.apps.test_caption import picture
from tests.data.videos import greys, write
from tests.inference.loopback import Answer, says, serving

FREE = Rules(0, 20, no_repeat_word=False, allow_unknown=True)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF", 0.01)


def shown(body: dict[str, Any]) -> list[np.ndarray]:
    """The pictures in a request, RGB."""
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in urls]


def grey_of(body: dict[str, Any]) -> str:
    """The grey of the first picture, as a word: a caption by which a request is known again."""
    return f"grey {round(float(shown(body)[0].mean()))}"


def greys_in(folder: Path, count: int) -> list[str]:
    return [picture(folder / f"{k:02}.png", 10 * k) for k in range(count)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pictures_clips_and_prompts_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One request per file, with pictures scaled down, the frames of a clip, the prompt, the key of the variable."""
    monkeypatch.setenv("MY_KEY", "s3cret")
    with serving(lambda body: says("  A dog\nruns. ", [-0.5, -0.25, -0.125])) as server:
        address = f"{server.url}#tiny-vlm"
        captioner = load(address, system="Be brief.", max_side=64)
        wide = np.zeros((100, 200, 3), np.uint8)
        caption = captioner.caption(wide)
        assert (caption.text, caption.logprob, caption.finished) == ("A dog runs.", -0.875, True)
        (headers, body), *_ = server.seen
        assert [image.shape for image in shown(body)] == [(32, 64, 3)] and "Authorization" not in headers
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert body["messages"][1]["content"][-1] == {"type": "text", "text": PROMPT}
        asked = {name: body[name] for name in ("model", "temperature", "max_tokens", "stream", "logprobs")}
        assert asked == {"model": "tiny-vlm", "temperature": 0, "max_tokens": 64, "stream": False, "logprobs": True}
        captioner = OpenAIPipeline.load(address, frames=3, key_variable="MY_KEY")
        captioner.caption(write(tmp_path / "v.mp4", greys(30)))
        headers, body = server.seen[-1]
        frames = [image.mean() for image in shown(body)]
        assert len(frames) == 3 and frames == sorted(frames) and frames[0] < frames[2] - 20
        assert (
            body["messages"][-1]["content"][-1]["text"] == CLIP_PROMPT and headers["Authorization"] == "Bearer s3cret"
        )
        assert "s3cret" not in repr(vars(captioner)) + json.dumps(captioner.settings())
        drawn = captioner.caption(wide, Sample(3, 0.7, FREE, top_p=0.9))
        bodies = [body for _, body in server.seen[-3:]]
        assert len(drawn.others) == 2 and len({body["seed"] for body in bodies}) == 3
        assert all((body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 20) for body in bodies)


@pytest.mark.parametrize(
    ("decoding", "reason"),
    [
        (Beam(3, rules=FREE), r"a beam \(--beam\): a server answers greedily"),
        (Beam(1, rules=FREE, must=("dog",)), r"words that must appear \(--must\)"),
        (Sample(2, rules=FREE, top_k=5), "--top-k"),
        (Beam(1, rules=Rules(0, 20, no_repeat_word=False, never=("dog",))), r"words that must not appear"),
        (Beam(1), "a least number of words"),
    ],
)
def test_searches_that_servers_do_not_have(decoding: Any, reason: str):
    captioner = OpenAIPipeline(ServerAddress.parse("openai:http://127.0.0.1:1/v1#x"))
    with pytest.raises(ValueError, match=reason):
        captioner.captions([], decoding)


def test_several_requests_are_under_way_and_results_keep_their_order(tmp_path: Path):
    """Four requests at a time meet at a barrier, which one after the other could not pass."""
    meet = threading.Barrier(4, timeout=10)

    def reply(body: dict[str, Any]) -> Answer:
        meet.wait()
        time.sleep(0.05 if grey_of(body) == "grey 0" else 0)  # the first one comes last
        return says(grey_of(body))

    files = greys_in(tmp_path, 12)
    with serving(reply) as server:
        found = [(source, caption.text) for source, caption in load(f"{server.url}#tiny-vlm").captions(files)]
        assert found == [(file, f"grey {10 * k}") for k, file in enumerate(files)]
        assert server.most == 4 and len(server.seen) == 12


def test_busy_and_failing_servers_are_asked_again(monkeypatch: pytest.MonkeyPatch):
    """429 with seconds or a date, 503 with a page, and a connection that breaks; then an answer."""
    answers = [
        Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.2"}),
        Answer("<html>Bad Gateway</html>", 503, {"Content-Type": "text/html"}),
        Answer("{}", 429, {"Retry-After": formatdate(time.time() - 5, usegmt=True)}),
        Answer(says("a dog").body, cut=True),
        says("a dog"),
    ]
    moments: list[float] = []

    def reply(body: dict[str, Any]) -> Answer:
        moments.append(time.monotonic())
        return answers[len(moments) - 1]

    with serving(reply) as server:
        caption = load(f"{server.url}#tiny-vlm").caption(np.zeros((8, 8, 3), np.uint8))
    assert caption.text == "a dog" and isnan(caption.logprob) and len(moments) == 5 and moments[1] - moments[0] >= 0.2


LYING: dict[str, Answer] = {
    "html": Answer("<!doctype html><title>Welcome to nginx", headers={"Content-Type": "text/html; charset=utf-8"}),
    "empty": says(""),
    "thought": says("<think>What is this? A dog.</think>  a dog in the park "),
    "null": says(None, finish_reason="length"),
    "refusal": says("I'm sorry, but I can't help with identifying people in images."),
    "field": says("", message={"content": None, "refusal": "not allowed"}),
    "filter": says("a", finish_reason="content_filter"),
    "long": says("dog " * 12_500),
    "russian": says("Собака бежит по траве.", [-1.0]),
    "form": Answer({"answer": 42}),
    "list": Answer([1, 2]),
    "odd": says("a \ud83d dog", [float("nan")]),
    "parts": says([{"type": "text", "text": "two "}, {"type": "text", "text": "birds"}], finish_reason="length"),
    "bad": Answer({"error": {"message": "image too small"}}, 400),
    "twice": says("a man with a ball", [-1.0, -2.0]),
}
FAILED = {
    "html": "the server answers with text/html ('<!doctype html><title>Welcome to nginx') where JSON is expected",
    "empty": "the answer has no text",
    "null": "the answer has no text within the limit of tokens",
    "refusal": "the model refuses (\"I'm sorry, but I can't help with identifying people in images.\")",
    "field": "the model refuses ('not allowed')",
    "filter": "the model refuses ('its filter')",
    "long": "the answer has 49,999 characters, for a limit of 64 tokens ('" + "dog " * 15 + "')",
    "form": "the answer is no chat completion (\"{'answer': 42}\")",
    "list": "the answer is no chat completion ('[1, 2]')",
    "bad": "the server answers 400 Bad Request: image too small",
}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "html"])
def test_wrong_answers_are_files_that_failed_and_the_rest_is_done(tmp_path: Path, capsys, ending: str):
    files = greys_in(tmp_path / "in", len(LYING))
    answers = dict(zip((f"grey {10 * k}" for k in range(len(files))), LYING.values(), strict=True))
    out = tmp_path / f"c.{ending}"
    with serving(lambda body: answers[grey_of(body)]) as server:
        command = ["caption", str(tmp_path / "in"), "--model", f"{server.url}#tiny-vlm", "--out", str(out)]
        assert main(command) == 3
        error = capsys.readouterr().err
        named = dict(zip(LYING, files, strict=True))
        assert f"{len(FAILED)} files got no caption:" in error and "could not be read" not in error
        assert [line for line in error.splitlines() if ".png: " in line][: len(FAILED)] == [
            f"  {named[name]}: {why}" for name, why in FAILED.items()
        ]
        assert f"{named['russian']}: the answer is written in Cyrillic, unlike the prompt" in error
        if ending == "html":
            assert "Files without a caption" in out.read_text() and "two birds" in out.read_text()
            return
        rows = rows_of(out) if ending == "jsonl" else list(csv.DictReader(out.open(encoding="utf-8")))
        captions = {row["file"]: (row["caption"], row["logprob"], row["finished"]) for row in rows}
        empty, true = (None, True) if ending == "jsonl" else ("", "True")
        assert captions == {
            named["thought"]: ("a dog in the park", empty, true),
            named["russian"]: ("Собака бежит по траве.", -1.0 if ending == "jsonl" else "-1.0", true),
            named["odd"]: ("a ? dog", empty, true),
            named["parts"]: ("two birds", empty, False if ending == "jsonl" else "False"),
            named["twice"]: ("a man with a ball", -3.0 if ending == "jsonl" else "-3.0", true),
        }
        server.reply = lambda body: says("a new caption")
        count = len(server.seen)
        assert main([*command, "--resume"]) == 0  # only what failed is asked again
        assert len(server.seen) - count == len(FAILED)
        again = rows_of(out) if ending == "jsonl" else list(csv.DictReader(out.open(encoding="utf-8")))
        assert Counter(row["caption"] for row in again)["a new caption"] == len(FAILED) and len(again) == len(files)


def test_a_slow_server_reaches_the_deadline(tmp_path: Path):
    """Also one that sends a byte now and then; the file fails after two attempts, the others are done."""
    slow = Answer(says("a dog").body, drip=0.05)
    files = greys_in(tmp_path, 3)
    with serving(lambda body: slow if grey_of(body) == "grey 10" else says("a cat")) as server:
        captioner = OpenAIPipeline.load(f"{server.url}#tiny-vlm", timeout=0.3)
        began = time.monotonic()
        first, second, third = (result for _, result in captioner.captions(files))
        assert (first.text, third.text) == ("a cat", "a cat") and time.monotonic() - began < 5
        assert second == Failure(files[1], f"{files[1]}: no answer within 0.3 seconds (2 attempts)", unreadable=False)


def test_servers_that_cannot_be_used_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(lambda body: says("x")) as server:
        url = server.url
        assert load(url).name == f"{url}#tiny-vlm"  # the only one
        server.models = ("a", "b")
        with pytest.raises(ValueError, match=rf"name the model: {url}#NAME; the server has a, b"):
            load(url)
        for answer, reason in (
            (
                Answer({"error": {"message": "model 'x' not found"}}, 404),
                r"no such model or path \(404 Not Found: model",
            ),
            (
                Answer("", 302, {"Location": "http://elsewhere/"}),
                "it points to http://elsewhere/, which is not followed",
            ),
            (
                Answer({"detail": "who are you?"}, 401),
                r"refuses the key \(401 Unauthorized: who are you\?\): put the right",
            ),
            (Answer({}, 429, {"Retry-After": "7200"}), "asks to wait 7200 seconds; try again then"),
        ):
            server.reply = lambda body, answer=answer: answer
            with pytest.raises(ValueError, match=reason):
                list(load(f"{url}#x").captions(greys_in(tmp_path, 2)))
    with pytest.raises(ValueError, match=r"no server answers at http://127.0.0.1:\d+/v1 \(.+\): start the server, or"):
        load(f"{url}#x")
    monkeypatch.setenv("LIMNER_API_KEY", "k")
    with pytest.raises(ValueError, match="is not encrypted, and the key in LIMNER_API_KEY could be"):
        load("openai:http://example.com/v1#x")
    for text in ("openai:127.0.0.1:8000#x", "openai:ftp://a/v1#x", "openai:http://[::1", "openai:http://a:99999/v1"):
        with pytest.raises(ValueError, match="is no address of a server"):
            load(text)
    with pytest.raises(ValueError, match="a key is given in an environment variable"):
        load("openai:https://me:pass@example.com/v1#x")


def test_parameters_that_a_server_does_not_know_are_left_out(tmp_path: Path):
    """`max_tokens` gets its newer name, `logprobs` is left out; the next requests know it."""

    def reply(body: dict[str, Any]) -> Answer:
        for name in ("logprobs", "max_tokens"):
            if name in body:
                return Answer({"error": {"message": f"Unsupported parameter: '{name}'"}}, 400)
        return says(f"{body['max_completion_tokens']} tokens")

    with serving(reply) as server:
        captioner = OpenAIPipeline.load(f"{server.url}#tiny-vlm", requests=1)
        found = [result.text for _, result in captioner.captions(greys_in(tmp_path, 3))]
        assert found == ["64 tokens"] * 3 and len(server.seen) == 5


def test_a_server_that_fails_ends_the_command_and_resume_continues(tmp_path: Path, capsys):
    """After ten files in a row; the captions so far are kept, and the rest follows when it is up again."""
    files, out = greys_in(tmp_path / "in", 25), tmp_path / "c.jsonl"
    with serving(lambda body: says("fine") if int(grey_of(body)[5:]) < 50 else Answer("oh", 500)) as server:
        command = ["caption", str(tmp_path / "in"), "--model", f"{server.url}#tiny-vlm", "--out", str(out)]
        assert main(command) == 1
        error = capsys.readouterr().err
        assert "10 files in a row got no caption, the last because the server answers 500" in error
        assert "(6 attempts); see to the server, then continue with --resume" in error and not out.exists()
        server.reply, count = lambda body: says("now"), len(server.seen)
        assert main([*command, "--resume"]) == 0
        assert [row["caption"] for row in rows_of(out)] == ["fine"] * 5 + ["now"] * 20
        assert len(server.seen) - count == 20 and len(rows_of(out)) == len(files)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "limner", "caption", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_command_is_resumed(tmp_path: Path):
    """SIGKILL while requests are under way: what was written is kept, each other file is asked once more at most."""
    greys_in(tmp_path / "in", 16)
    out, partial = tmp_path / "c.jsonl", tmp_path / "c.jsonl.partial"
    go_on = threading.Event()

    def reply(body: dict[str, Any]) -> Answer:
        if int(grey_of(body)[5:]) >= 60:
            go_on.wait(30)
        return says(grey_of(body))

    with serving(reply) as server:
        arguments = [str(tmp_path / "in"), "--model", f"{server.url}#tiny-vlm", "--out", str(out), "--requests", "3"]
        command = start(*arguments)
        wait_until(lambda: partial.exists() and partial.read_text().count("\n") == 7)
        os.kill(command.pid, signal.SIGKILL)
        command.communicate()
        go_on.set()
        assert main(["caption", *arguments, "--resume"]) == 0
        assert [row["caption"] for row in rows_of(out)] == [f"grey {10 * k}" for k in range(16)]
        asked = Counter(grey_of(body) for _, body in server.seen)
        assert (
            len(asked) == 16 and sum(asked.values()) <= 16 + 3 and all(asked[f"grey {10 * k}"] == 1 for k in range(6))
        )


def test_an_interrupted_command_does_not_wait_for_answers(tmp_path: Path):
    """SIGTERM while the server keeps silent: the command ends at once, and says what is kept."""
    greys_in(tmp_path / "in", 8)
    silent = threading.Event()
    with serving(lambda body: says("x") if grey_of(body) == "grey 0" else silent.wait(60) and says("")) as server:
        command = start(str(tmp_path / "in"), "--model", f"{server.url}#tiny-vlm", "--out", str(tmp_path / "c.csv"))
        wait_until(lambda: server.under_way == 4)
        began = time.monotonic()
        command.send_signal(signal.SIGTERM)
        _, error = command.communicate(timeout=30)
        assert command.returncode == 130 and time.monotonic() - began < 10
        assert "continue with: " in error and "--resume" in error
        silent.set()


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I cannot describe this image.", True),
        ("Sorry, I don't see any image attached.", True),
        ("Unfortunately, I am unable to view pictures.", True),
        ("As an AI language model, I have no eyes.", True),
        ("I'm an AI assistant", True),
        ("Please provide an image so that I can describe it.", True),
        ("There is no image in this conversation.", True),
        ("I see a dog that can not reach the ball.", False),
        ("There is no picture of the man on the wall.", False),
        ("A man says sorry to a woman who can't hear him.", False),
        ("I can see two birds.", False),
    ],
)
def test_refusals(text: str, refused: bool):
    assert is_refusal(text) == refused


def test_another_script_is_noticed():
    assert foreign_script("一只狗", "Describe it.") == "Cjk" and foreign_script("a dog", "Опиши") == "Latin"
    assert foreign_script("a dog 狗", "Describe it.") == "" == foreign_script("", "x") == foreign_script("собака", "?")


def test_only_captioning_asks_servers(tmp_path: Path, capsys):
    assert main(["evaluate", "openai:http://127.0.0.1:1/v1#x"]) == 1
    assert "is a server: only `limner caption` asks these" in capsys.readouterr().err
    for option, reason in ((["--dtype", "float16"], "--dtype is for models on this machine"),
                           (["--with", "x"], "--with is about runs of limner"),):  # fmt: skip
        assert main(["caption", "x.png", "--model", "openai:http://127.0.0.1:1/v1#x", *option]) == 2
        assert reason in capsys.readouterr().err
    assert main(["caption", "x.png", "--requests", "2"]) == 2
    assert "--requests is for servers (--model openai:...)" in capsys.readouterr().err
    assert isinstance(OpenAIPipeline(ServerAddress.parse("openai:https://a/v1/chat/completions#x")).decoding, Beam)
    assert ServerAddress.parse("openai:https://a/v1/chat/completions#x").url == "https://a/v1" and Caption


def test_words_beside_a_picture_are_part_of_the_request(tmp_path: Path, capsys):
    """Also for the parts of a clip; a sidecar that is no text is a note, and the picture is captioned all the same."""
    files = greys_in(tmp_path / "in", 3)
    (tmp_path / "in" / "00.txt").write_text("Rex at the lake")
    (tmp_path / "in" / "01.txt").mkdir()
    write(tmp_path / "in" / "v.mp4", greys(30))
    (tmp_path / "in" / "v.caption").write_text("a parade")
    asked: list[str] = []

    def reply(body: dict[str, Any]) -> Answer:
        asked.append(body["messages"][-1]["content"][-1]["text"])
        return says("x")

    with serving(reply) as server:
        command = ["caption", str(tmp_path / "in"), "--model", f"{server.url}#tiny-vlm", "--requests", "1"]
        assert main([*command, "--context", "sidecar", "--prompt", "Describe it.", "--every", "0.5"]) == 0
    known = [text.partition("\nThis is known about it: ")[2] for text in asked]
    assert known[:3] == ["Rex at the lake", "", ""] and set(known[3:]) == {"a parade"} and len(known) > 4
    assert (
        f"01.txt is a folder, where a text file is expected; {files[1]} is captioned without it"
        in capsys.readouterr().err
    )
