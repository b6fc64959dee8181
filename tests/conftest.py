"""Set before anything imports torch or transformers: one thread, no network, shapes checked at every border."""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from jaxtyping import install_import_hook

import tests.checker  # noqa: F401  (the hook looks it up by name)

if not os.environ.get("LIMNER_UNCHECKED"):  # `make faults` reads damaged files as users do, without these checks
    install_import_hook("limner", "tests.checker.check")

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
# a busy machine is no reason to fail: nothing here is timed
settings.register_profile("limner", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("limner")

TINY = """
data: {{name: shapes, media: {world}}}
encoder: {{name: small_cnn, size: 32, width: 8, dim: 8}}
vocabulary: {{min_count: 1}}
model: {{name: show_attend_tell, hidden: 16, embed: 8, attention: 8, dropout: 0.1}}
stages: [{{epochs: 2, batch_size: 16, captions_per_medium: 1, lr: 0.01, encoder_lr: 0.01}}]
decoding: {{size: 2, rules: {{max_length: 10}}}}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the micro-world in small (`world`), a recipe (`tiny.yaml`), and a run of it (`run`), made by the
    commands a user would give."""
    from limner.apps.cli import main

    root = tmp_path_factory.mktemp("tiny")
    assert main(["shapes", "--out", str(root / "world"), "--images", "40", "--size", "32"]) == 0
    (root / "tiny.yaml").write_text(TINY.format(world=root / "world"))
    assert main(["train", str(root / "tiny.yaml"), "--out", str(root / "run"), "--seed", "1", "--frames=4"]) == 0
    return root


@pytest.fixture(scope="session")
def exported(tiny: Path) -> Path:
    """`tiny/run` exported to `tiny/run.onnx`, float32."""
    from tests.export.worlds import limner

    done = limner("export", tiny / "run", "--check", tiny / "world" / "images", "--limit", "12")
    assert "float32: 12 of 12 captions are PyTorch's (100.0%)" in done.stdout
    assert f"wrote {tiny / 'run.onnx'}, for images and videos" in done.stdout
    return tiny / "run.onnx"
