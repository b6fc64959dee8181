"""The tiny model, loaded once for all tests of the service."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from limner.explanations.video import write_mp4
from limner.inference.pipeline import Pipeline
from tests.service.world import service


@pytest.fixture(scope="session")
def pipeline(tiny: Path) -> Pipeline:
    return Pipeline.load(tiny / "run")


@pytest.fixture(scope="module")
def client(pipeline: Pipeline) -> Iterator[TestClient]:
    with service(pipeline) as running:
        yield running


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of red, then two of green; 10 frames a second."""
    colours = [(220, 20, 20)] * 20 + [(20, 200, 20)] * 20
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_mp4(path, (np.full((32, 32, 3), colour, np.uint8) for colour in colours), fps=10)
    return path.read_bytes()
