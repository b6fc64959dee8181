"""limner's scores inside torchmetrics: the numbers of limner.metrics, over batches, collections and real processes."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchmetrics", reason="pip install 'limner[torchmetrics]'")

import torchmetrics

from limner.metrics.references import References
from limner.metrics.report import evaluate, select_metrics
from limner.metrics.torch_metrics import CaptionScore, CaptionScores

REFERENCES = {
    "a": ["A dog runs on the grass.", "the dog's running\noutside", "ein Hund läuft 🐕"],
    "b": ["a man rides a red bike", "a cyclist on a red bicycle"],
    "c": ["two children play with a ball", "kids playing football"],
    "d": ["a bowl of soup", "soup in a bowl"],
    "e": ["a bird", "the bird sits \ud800"],  # half a character survives, too
}
CAPTIONS = {"a": "a dog runs", "b": "a man on a bike", "c": "", "d": "a bowl of soup", "e": "two birds 🐕"}
NAMES = ["bleu", "rouge-l", "cider"]
IDS = list(CAPTIONS)


def expected(ids: list[str] = IDS) -> dict[str, float]:
    references = References({id: REFERENCES[id] for id in ids})
    return evaluate({id: CAPTIONS[id] for id in ids}, references, select_metrics(NAMES)).scores


def batch(*ids: str) -> tuple[list[str], list[list[str]], list[str]]:
    return [CAPTIONS[id] for id in ids], [REFERENCES[id] for id in ids], list(ids)


def test_scores_are_those_of_limner_to_the_last_bit() -> None:
    scores, cider = CaptionScores(NAMES), CaptionScore("CIDEr")
    for metric in (scores, cider):
        metric.update(*batch("a", "b"))
        metric.update(*batch("c", "d", "e"))
    assert {name: value.item() for name, value in scores.compute().items()} == expected()
    assert cider.compute().item() == expected()["CIDEr"] and cider.compute().dtype == torch.float64


def test_without_ids_equal_captions_of_two_media_count_twice() -> None:
    metric = CaptionScore("BLEU-1", tokenizer="split")
    for _ in range(2):
        metric.update(["a cat", "x"], [["a cat"], ["a dog"]])
    assert metric.compute().item() == pytest.approx(4 / 6 * torch.exp(torch.tensor(1 - 8 / 6)).item())


def test_a_medium_that_a_sampler_repeats_counts_once_and_a_contradiction_is_an_error() -> None:
    metric = CaptionScores(NAMES)
    metric.update(*batch(*IDS))
    metric.update(*batch("b"))
    assert {name: value.item() for name, value in metric.compute().items()} == expected()
    metric.update(["something else"], [REFERENCES["b"]], ["b"])
    with pytest.raises(ValueError, match="'b' has two captions, 'a man on a bike' and 'something else'"):
        metric.compute()


def test_reset_forward_pickle_and_collections_work_as_for_any_metric() -> None:
    metric = CaptionScores(NAMES)
    value = metric(*batch("a", "b"))  # of the batch, and kept for the whole
    assert {name: score.item() for name, score in value.items()} == expected(["a", "b"])
    metric.update(*batch("c", "d", "e"))
    again = pickle.loads(pickle.dumps(metric))
    assert again.compute()["CIDEr"].item() == expected()["CIDEr"]
    metric.reset()
    with (
        pytest.raises(ValueError, match="no captions to score: call update first"),
        pytest.warns(UserWarning, match="before the ``update``"),
    ):
        metric.compute()
    both = torchmetrics.MetricCollection({"cider": CaptionScore("CIDEr"), "rouge": CaptionScore("ROUGE-L")})
    both.update(*batch(*IDS))
    both.update([], [], [])
    found = both.compute()
    assert (found["cider"].item(), found["rouge"].item()) == (expected()["CIDEr"], expected()["ROUGE-L"])


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        ("a cat", [["a cat"]], "expected a list of captions"),
        (["a cat"], [], "got 1 captions, 0 references and 1 ids"),
        (["a cat"], ["a cat"], "expected a caption and a list of references, got 'a cat', 'a cat'"),
    ],
)
def test_what_is_no_batch_of_captions_is_refused(preds: list[str], target: list[list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionScore().update(preds, target)


def test_an_unknown_score_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown metric 'cidre'; known are BLEU-1"):
        CaptionScore("cidre")
    with pytest.raises(ValueError, match="unknown metric 'cidre'"):
        CaptionScores(["cidre"])


PROCESS = """
import json, sys
import torch.distributed as dist
from limner.metrics.torch_metrics import CaptionScores
rank, file, shares = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
found = []
for share in shares:
    metric = CaptionScores(["bleu", "rouge-l", "cider"])
    for rows in share[rank]:
        metric.update(*rows)
    found.append({name: value.item() for name, value in metric.compute().items()})
    metric.compute(); metric.reset()
print(json.dumps(found))
dist.destroy_process_group()
"""


def test_two_processes_get_the_score_of_all_captions(tmp_path: Path) -> None:
    """Uneven shares; one process without any medium; a repeated medium, as a DistributedSampler pads with."""
    shares = [
        [[batch("a"), batch("b", "c")], [batch("d", "e")]],
        [[], [batch(*IDS)]],
        [[batch("a", "b", "c")], [batch("d", "e", "a")]],
    ]
    environment = {**os.environ, "LIMNER_UNCHECKED": "1"}
    arguments = [sys.executable, "-W", "ignore", "-c", PROCESS]
    processes = [
        subprocess.Popen([*arguments, str(rank), str(tmp_path / "meeting"), json.dumps(shares)],
                         env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for output in outputs:
        assert json.loads(output) == [expected()] * 3
