"""One export of the tiny run, for all."""

from pathlib import Path

import pytest

from tests.export.worlds import limner


@pytest.fixture(scope="session")
def exported(tiny: Path) -> Path:
    """`tiny/run.onnx`, float32."""
    done = limner("export", tiny / "run", "--check", tiny / "world" / "images", "--limit", "12")
    assert "float32: 12 of 12 captions are PyTorch's (100.0%)" in done.stdout
    assert f"wrote {tiny / 'run.onnx'}, for images and videos" in done.stdout
    return tiny / "run.onnx"
