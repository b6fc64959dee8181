"""The client of a service: it captions as the pipeline behind the service does."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

import limner
from limner.apps.cli import main
from limner.client import Client
from limner.core.torch_free import Caption, Failure, Medium
from limner.data.media import frames_of
from limner.decode.options import Beam, Sample
from limner.inference.load import CaptionPipeline
from limner.inference.pipeline import Pipeline
from limner.service.app import Settings
from tests.service.world import images, png, served


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Pipeline:
    return Pipeline.load(tiny / "run")


@pytest.fixture(scope="module")
def address(pipeline: Pipeline) -> Iterator[str]:
    with served(pipeline) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address)


def same(found: Any, expected: Caption) -> None:
    """The small model says much the same about every image, but not with the same probability and attention."""
    assert found.text == expected.text and found.words == expected.words and found.finished == expected.finished
    assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)
    assert found.attention == pytest.approx(expected.attention, abs=2e-5)


def test_it_is_a_captioner_like_others(client: Client, pipeline: Pipeline, address: str):
    assert isinstance(client, CaptionPipeline)
    assert client.name == f"{address}#tiny" and client.fingerprint() == pipeline.fingerprint()
    assert client.frames == pipeline.frames == 4 and client.clip == pipeline.clip
    assert client.decoding.size == 2 and client.decoding.rules.max_length == 10
    assert isinstance(limner.load(f"{address}#tiny"), Client)


def test_captions_are_those_of_the_pipeline(client: Client, pipeline: Pipeline, tiny: Path):
    paths = images(tiny, 4)
    for source in (paths[0], str(paths[1]), paths[2].read_bytes(), frames_of(paths[3])[0], Medium("x", str(paths[3]))):
        same(client.caption(source), pipeline.caption(source))
    clip = np.concatenate([frames_of(path) for path in paths])
    same(client.caption(clip), pipeline.caption(clip))
    best, expected = (
        client.caption(paths[0], beam=4, n_best=3, max_length=6),
        pipeline.caption(paths[0], beam=4, n_best=3, max_length=6),
    )
    assert [each.text for each in (best, *best.others)] == [each.text for each in (expected, *expected.others)]


def test_many_in_order_and_failures_in_their_places(client: Client, pipeline: Pipeline, tiny: Path, tmp_path: Path):
    (tmp_path / "page.jpg").write_text("<!doctype html>")
    paths = [*images(tiny, 5), tmp_path / "page.jpg", tmp_path / "none.jpg", *images(tiny, 2)]
    results = list(client.captions(paths))
    assert [source for source, _ in results] == paths
    for path, result in results:
        if path.parent == tmp_path:
            assert isinstance(result, Failure) and result.source == str(path)
        else:
            same(result, pipeline.caption(path))
    parts = [client.read(path, []) for path in paths[:3]]
    for path, found in zip(paths, client.decode(parts, client.decoding), strict=False):
        same(found, pipeline.caption(path))


def test_what_a_service_does_not_offer(client: Client, address: str):
    with pytest.raises(ValueError, match="searches with a beam here, not with 'sample'"):
        client.caption(png(), Sample())
    with pytest.raises(ValueError, match="these options of a beam only: beam, n_best, must, max_length, never"):
        client.caption(png(), Beam(size=4, groups=2))
    with pytest.raises(ValueError, match="beam: input should be less than or equal to 20"):
        client.caption(png(), beam=50)
    with pytest.raises(ValueError, match="has no model 'gpt'; it has tiny"):
        Client(f"{address}#gpt")
    with pytest.raises(ValueError, match="leave out frames and clip"):
        limner.load(address, frames=3)


def test_nobody_answers_or_somebody_else(tmp_path: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ValueError, match=rf"no `limner serve` answers at http://127.0.0.1:{port} "):
            Client(f"http://127.0.0.1:{port}/")


def test_a_token(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    with served(pipeline, Settings(token="s3cret")) as address:
        with pytest.raises(ValueError, match="the bearer token is missing or wrong"):
            limner.load(address)
        monkeypatch.setenv("LIMNER_TOKEN", "s3cret")
        assert limner.load(address).caption(png()).text == pipeline.caption(png()).text


def test_a_busy_service_is_asked_again(pipeline: Pipeline, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr("limner.client.client.time.sleep", waits.append)
    monkeypatch.setattr("limner.client.client.RETRIES", 10_000)
    with served(pipeline, waiting=1) as address:
        results = list(Client(address, connections=8).captions(images(tiny, 12)))
    for path, (_, result) in zip(images(tiny, 12), results, strict=True):
        same(result, pipeline.caption(path))
    assert set(waits) <= {float(seconds) for seconds in range(1, 61)}


def test_the_command_asks_a_service(address: str, pipeline: Pipeline, tiny: Path, tmp_path: Path, capsys):
    paths = images(tiny, 3)
    assert main(["caption", *map(str, paths), "--model", address, "--out", str(tmp_path / "captions.csv")]) == 0
    rows = (tmp_path / "captions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == [pipeline.caption(path).text for path in paths]
    assert main(["caption", str(paths[0]), "--model", address, "--with", "other"]) == 2
    assert "is a service" in capsys.readouterr().err


def test_other_commands_ask_a_service(
    address: str, pipeline: Pipeline, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder that is watched, and the pages of a site."""
    (path,) = images(tiny, 1)
    expected = pipeline.caption(path).text
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.png").write_bytes(path.read_bytes())
    (site / "page.html").write_text('<html><body><img src="a.png"></body></html>')
    arguments = ["--settle", "0.05", "--sidecar", "txt", "--state", str(tmp_path / "state")]
    assert main(["watch", str(site), "--once", "--model", address, *arguments]) == 0
    assert (site / "a.txt").read_text() == f"{expected}\n"
    assert main(["alt", str(site / "page.html"), "--model", address, "--write"]) == 0
    found = re.search('alt="([^"]*)"', (site / "page.html").read_text())
    assert found is not None and found[1].rstrip(".").lower() == expected.lower()
