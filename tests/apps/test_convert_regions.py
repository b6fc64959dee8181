"""From a detector's TSV to a trained captioner, by the commands a user would give."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from limner.apps.cli import main
from limner.apps.shared.journal import finished_rows
from limner.core.types import Features, Layout, Pixels
from limner.data.datasets import read_dataset
from limner.data.media import read_medium
from limner.runs.inputs import open_inputs
from limner.runs.recipe_file import load_recipe
from limner.runs.run import load_run
from tests.data.test_regions import draw, folders, row
from tests.encoders.test_detector import folder

__all__ = ["folder"]

RECIPE = """
data: {{name: csv, annotations: {root}/captions.csv, media: {root}}}
features: {root}/store
vocabulary: {{min_count: 1, tokenizer: simple}}
model: {{name: spatial_transformer, dim: 8, hidden: 8, heads: 2, num_grids: 9, encoder_layers: 1, decoder_layers: 1}}
stages: [{{epochs: 1, batch_size: 4}}]
decoding: {{size: 2, rules: {{max_length: 6}}}}
"""


def test_regions_train_a_captioner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = draw(4, 0)[0] * np.nan
    lines = [row(f"p{k}", *draw(3 + k, k)) for k in range(8)]
    (tmp_path / "regions.tsv").write_bytes(b"".join(lines) + row("p8", nan, draw(4, 0)[1]))
    with open(tmp_path / "captions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption", "split", "id"])
        for k in range(9):
            writer.writerow([f"p{k}.jpg", "a dog runs", "train" if k < 5 else "val" if k < 7 else "test", f"p{k}"])
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(root=tmp_path))
    store = str(tmp_path / "store")
    convert = ["convert", "--from", "bottom-up", str(tmp_path / "regions.tsv"), "--out", store]
    assert main(convert) == 3
    told = capsys.readouterr()
    assert "8 images stored with 52 regions" in told.out and "p8: " in told.err and "NaN" in told.err
    assert main([*convert, "--boxes", "x"]) == 2
    assert open_inputs(load_recipe(tmp_path / "recipe.yaml")).dim == 8
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert load_run(tmp_path / "run").info.feature_dim == 8
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--split", "val", "--report", str(tmp_path / "r.html")]) == 0
    captions = json.loads((tmp_path / "run/captions.json").read_text())
    assert "2 of 2 items are shown without their image" in capsys.readouterr().err
    assert [row["caption"] for row in finished_rows(tmp_path / "r.html")] == [row["caption"] for row in captions]
    assert len(captions) == 2


def test_a_detector_fills_a_store(folder: Path, tiny: Path, tmp_path: Path) -> None:
    """`limner extract` with a small random DETR: boxes are stored with the regions, as the encoder gives them."""
    recipe = tmp_path / "recipe.yaml"
    encoder = f"{{name: detector, source: {folder}, regions: 4, size: 64}}"
    places = f"data: {{name: shapes, media: {tiny / 'world'}}}\nencoder: {encoder}\nfeatures: {tmp_path / 'store'}\n"
    recipe.write_text(places)
    assert main(["extract", str(recipe), "--batch-size", "4"]) == 0
    inputs, media = open_inputs(load_recipe(recipe)), read_dataset(load_recipe(recipe).data).media[:3]
    features = inputs.reader([(medium, "full") for medium in media])
    assert isinstance(features, Features) and inputs.encoder is not None and features.layout == Layout(1, 1, 4)
    pixels = torch.stack([inputs.encoder.preprocess(read_medium(medium)) for medium in media])
    expected = inputs.encoder(Pixels(pixels))
    assert expected.regions is not None and features.regions is not None
    torch.testing.assert_close(features.regions, expected.regions, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.grid, expected.grid, rtol=1e-2, atol=1e-2)


def test_folders_of_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    att, box = folders(tmp_path)
    (tmp_path / "sizes.json").write_text('{"1": [640, 480], "2": [640, 480]}')
    command = ["convert", "--from", "regions", str(att), "--boxes", str(box), "--out", str(tmp_path / "store")]
    assert main(command) == 1 and "the size of" in capsys.readouterr().err
    assert main([*command, "--sizes", str(tmp_path / "sizes.json")]) == 0
    assert "2 images stored with 11 regions" in capsys.readouterr().out
    assert main(["convert", "--from", "spatial", "x.pt", "--out", "run"]) == 2
    assert "--word-map" in capsys.readouterr().err
