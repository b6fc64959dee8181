"""Data sets in the layouts of others, end to end: train, evaluate, extract, with the shortest recipe for each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.data.datasets import DataConfig, read_dataset
from limner.runs.run import load_run
from tests.data import prepared

WRITERS: dict[str, Callable[[Path], Path]] = {
    "webdataset": prepared.write_webdataset,
    "frames": prepared.write_frames,
    "cocotalk": prepared.write_cocotalk,
    "show_attend_tell": prepared.write_show_attend_tell,
    "parquet": prepared.write_parquet,
    "huggingface": prepared.write_saved_to_disk,
}
RECIPE = """
data: {{name: {name}, media: {media}, annotations: {annotations}}}
encoder: {{name: small_cnn, size: 16, width: 8, dim: 8}}
frames: 2
vocabulary: {{min_count: 1}}
model: {{name: show_attend_tell, hidden: 16, embed: 8, attention: 8, dropout: 0.0}}
stages: [{{epochs: 1, batch_size: 3}}]
decoding: {{rules: {{max_length: 6}}}}
"""


@pytest.fixture(params=WRITERS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param in ("parquet", "huggingface"):
        pytest.importorskip("pyarrow")
    return request.param


def test_a_run_is_trained_and_evaluated_and_features_are_extracted(name: str, tmp_path: Path):
    data = WRITERS[name](tmp_path / "data")
    annotations = str(data) if name in ("cocotalk", "show_attend_tell") else ""
    dataset = read_dataset(DataConfig(name, str(data), annotations))
    counts = {split: len(dataset.split(split)) for split in prepared.SPLITS}
    assert counts == prepared.SPLITS and dataset.problems == ()
    assert [medium.references[0] for medium in dataset.split("train")] == [
        caption for split, _, caption in prepared.samples() if split == "train"
    ]
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(name=name, media=data, annotations=annotations or "''"))
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--split", "test", "--metrics", "BLEU"]) == 0
    captions = json.loads((run / "captions.json").read_text())
    assert len(captions) == prepared.SPLITS["test"]
    assert set(load_run(run).vocabulary.words[4:]) == {"a", "blue", "green", "red", "wall"}
    assert main(["extract", str(run), "--out", str(tmp_path / "store")]) == 0
    index = json.loads((tmp_path / "store" / "index.json").read_text())
    assert sum(len(shard["keys"]) for shard in index["shards"]) == 12 and index["failures"] == []
