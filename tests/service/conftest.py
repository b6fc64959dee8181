"""The tiny model, loaded once for all tests of the service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from limner.inference.pipeline import Pipeline
from tests.service.world import service


@pytest.fixture(scope="session")
def pipeline(tiny: Path) -> Pipeline:
    return Pipeline.load(tiny / "run")


@pytest.fixture(scope="module")
def client(pipeline: Pipeline) -> Iterator[TestClient]:
    with service(pipeline) as running:
        yield running
