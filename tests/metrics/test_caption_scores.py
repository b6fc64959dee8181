"""limner's scores as a module of Hugging Face's `evaluate`, loaded from its file without a network."""

from pathlib import Path

import pytest

pytest.importorskip("evaluate", reason="pip install 'limner[evaluate]'")

import evaluate

from limner.metrics import caption_scores
from limner.metrics.references import References
from limner.metrics.report import evaluate as report_of
from limner.metrics.report import select_metrics
from tests.metrics.test_torch_metrics import CAPTIONS, REFERENCES

TEXTS = {id: text.replace("\ud800", "?") for id, text in CAPTIONS.items()}  # Arrow holds UTF-8 only
KNOWN = {id: [text.replace("\ud800", "?") for text in texts] for id, texts in REFERENCES.items()}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> evaluate.EvaluationModule:
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    return evaluate.load(str(caption_scores.__file__), cache_dir=str(tmp_path), experiment_id=tmp_path.name)


def test_scores_are_those_of_limner(module: evaluate.EvaluationModule) -> None:
    expected = report_of(TEXTS, References(KNOWN), select_metrics(["bleu", "rouge-l", "cider"])).scores
    given = {"predictions": [*TEXTS.values()], "references": [*KNOWN.values()]}
    assert module.compute(**given, scores=["bleu", "rouge-l", "cider"]) == expected
    for id, text in TEXTS.items():  # in batches
        module.add_batch(predictions=[text], references=[KNOWN[id]])
    assert module.compute(scores=["CIDEr"]) == {"CIDEr": expected["CIDEr"]}
    assert {"BLEU-4", "ROUGE-L", "CIDEr"} <= module.compute(**given, tokenizer="simple").keys()


def test_wrong_input_is_named(module: evaluate.EvaluationModule) -> None:
    with pytest.raises(ValueError, match="unknown metric 'x'; known are BLEU-1"):
        module.compute(predictions=["a"], references=[["a"]], scores=["x"])
    with pytest.raises(ValueError, match=r"no reference caption for 1 medium \('1'\)"):
        module.compute(predictions=["a", "b"], references=[["a"], []], scores=["CIDEr"])
