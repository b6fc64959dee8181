"""One suite for every model and every method, and what a sentence to explain is."""

import numpy as np
import pytest
import torch

from limner.core.types import BOS, EOS, PAD, UNK, Features, Layout, Pixels
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam, greedy
from limner.encoders import SmallCNN, SmallCNNConfig
from limner.explanations.maps import (
    METHODS,
    TargetSentence,
    default_method,
    explain,
    sentence_from_text,
    sentence_from_tokens,
)
from limner.models.captioner import FromPixels
from limner.models.spatiotemporal import resample
from limner.text.vocabulary import SPECIALS, Vocabulary
from tests.explanations.toys import Linear, one
from tests.models.captioners import SMALL, pick, random_features, small

VOCABULARY = Vocabulary((*SPECIALS, "a", "red", "dog", "runs", "fast"))
SENTENCE = sentence_from_text(VOCABULARY, "a red dog runs")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", SMALL)
def test_every_method_explains_every_model(case: str, method: str):
    """Whole, padded and with a hole: a map per word, none on padding, in its range, of this medium alone."""
    model, features = small(case), random_features()
    for row in range(3):
        medium, real = pick(features, [row]), features.mask[row].numpy()
        found = explain(model, medium, SENTENCE, method)
        assert found.words == ("a", "red", "dog", "runs") and found.method == method
        assert found.maps.shape == (4, 6) and found.layout == Layout(1, 2, 3)
        assert found.grid.shape == (4, 1, 2, 3) and (found.grid[:, 0, 1] == found.maps[:, 3:]).all()
        assert np.isfinite(found.maps).all() and (found.real == real).all() and not found.maps[:, ~real].any()
        if method == "attention":
            assert found.maps.sum(1) == pytest.approx(np.ones(4), abs=1e-6)
        else:
            assert found.maps.min() >= 0
            assert all((map_.max() == 1 and map_[real].min() == 0) or not map_.any() for map_ in found.maps)
        assert found.is_uniform == (method == "attention" and case.startswith("first_token"))
        logp = model(medium, torch.tensor([[BOS, *SENTENCE.ids]])).log_softmax(-1)[0]
        expected = logp[torch.arange(4), torch.tensor(SENTENCE.ids)].exp()
        assert found.probabilities == pytest.approx(expected.detach().numpy(), abs=1e-6)
        shorter = explain(
            model, medium, sentence_from_text(VOCABULARY, "a red"), method
        )  # words do not depend on later ones
        np.testing.assert_allclose(found.maps[:2], shorter.maps, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", SMALL)
def test_an_explanation_does_not_depend_on_padding(case: str, method: str):
    model, features = small(case), random_features()
    cut = Features(features.grid[1:2, :3], features.mask[1:2, :3], Layout(1, 1, 3))
    padded = Features(features.grid[1:2], torch.arange(6)[None] < 3, Layout(1, 2, 3))
    if "spatio" in case or "all options" in case:  # they are told where a cell lies
        boxes = padded.boxes
        cut, padded = (Features(f.grid, f.mask, f.layout, boxes[:, : f.layout.cells]) for f in (cut, padded))
    one, other = (explain(model, f, SENTENCE, method) for f in (cut, padded))
    np.testing.assert_allclose(other.maps[:, :3], one.maps, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_a_model_that_resamples_are_of_its_own_cells(method: str):
    """Those of the same model without resampling, for features that were resampled before."""
    layout = Layout(2, 3, 3)
    medium = Features(torch.randn(1, 20, 10), torch.ones(1, 20, dtype=torch.bool), Layout(5, 2, 2))
    before = Features(resample(medium, layout), torch.ones(1, 18, dtype=torch.bool), layout)
    found = explain(small("first_token", align=(2, 3, 3)), medium, SENTENCE, method)
    expected = explain(small("first_token"), before, SENTENCE, method)
    assert found.layout == layout and found.real.all()
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)


@pytest.mark.parametrize("case", ["show_attend_tell", "sa_lstm", "spatio_temporal"])
def test_attention_is_that_of_the_search(case: str):
    model, medium = small(case), pick(random_features(), [0])
    for found in (greedy(model, medium, Rules(max_length=6)), beam(model, medium, Beam(3, 0.0, Rules(max_length=6)))):
        sentence = sentence_from_tokens(VOCABULARY, found.tokens[0].tolist())
        explained = explain(model, medium, sentence)
        np.testing.assert_allclose(explained.maps, found.attention[0, : len(sentence.ids)].numpy(), atol=1e-5)
        assert explained.text == VOCABULARY.decode(found.tokens[0].tolist())


@pytest.mark.parametrize("method", METHODS)
def test_explanations_from_pixels_are_those_from_features(method: str):
    """An encoder in front changes nothing: its cells are what is explained."""
    torch.manual_seed(0)
    encoder, model = SmallCNN(SmallCNNConfig(size=16, width=8, dim=10)).eval(), small("show_attend_tell")
    with torch.no_grad():
        features = encoder(Pixels(torch.rand(1, 2, 3, 16, 16)))
    found = explain(FromPixels(encoder, model), features, SENTENCE, method)
    np.testing.assert_array_equal(found.maps, explain(model, features, SENTENCE, method).maps)
    assert found.layout == Layout(2, 2, 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_captioner_that_ignores_its_cells_has_a_uniform_map(method: str):
    """The same score whatever the cells are: nothing stands out, and nothing is divided by 0."""
    found = explain(Linear(torch.zeros(4, 9, 3)), one(torch.randn(4, 3), Layout(1, 2, 2)), SENTENCE, method)
    assert found.is_uniform and found.maps == pytest.approx(0.25 if method == "attention" else 0)


def test_boxes_lie_in_the_kept_region():
    found = explain(small("sa_lstm"), pick(random_features(), [0]), SENTENCE)
    assert found.boxes((0, 0, 1, 1))[0] == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert found.boxes((0.25, 0, 0.75, 1))[5] == pytest.approx([0.25 + 0.5 * 2 / 3, 0.5, 0.75, 1])
    regions = torch.rand(1, 6, 4)
    medium = pick(random_features(), [0])
    boxed = Features(medium.grid, medium.mask, Layout(1, 1, 6), regions)
    assert explain(small("sa_lstm"), boxed, SENTENCE).boxes((0.25, 0, 0.75, 1)) == pytest.approx(regions[0].numpy())


def test_a_sentence_is_made_from_text():
    found = sentence_from_text(VOCABULARY, "A red, zebra runs; a zebra!")
    assert found.words == ("a", "red", "zebra", "runs", "a", "zebra") and found.text == "a red zebra runs a zebra"
    assert found.ids == (4, 5, UNK, 7, 4, UNK) and found.unknown == ("zebra",)
    for nothing in ("", "  ", "?!"):
        with pytest.raises(ValueError, match="has no word in it"):
            sentence_from_text(VOCABULARY, nothing)


def test_a_sentence_is_made_from_the_tokens_of_a_search():
    assert sentence_from_tokens(VOCABULARY, [4, 5, EOS, PAD]) == TargetSentence("a red", (4, 5), ("a", "red"))
    assert sentence_from_tokens(VOCABULARY, [4, 5, PAD]).ids == (4, 5)
    imported = sentence_from_tokens(VOCABULARY, [BOS, 4, EOS])  # converted models may generate it
    assert imported.ids == (BOS, 4) and imported.word_indices == [1]
    found = explain(small("sa_lstm", mask_special_tokens=False), pick(random_features(), [0]), imported)
    assert found.words == ("a",) and found.maps.shape == (1, 6)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_sentence_has_no_maps(method: str):
    found = explain(small("sa_lstm"), pick(random_features(), [0]), sentence_from_tokens(VOCABULARY, [EOS]), method)
    assert found.words == () and found.maps.shape == (0, 6) and found.probabilities.shape == (0,)


def test_unknown_methods_and_several_media_are_refused():
    with pytest.raises(ValueError, match=r"unknown method 'gradcam2'; known are attention, gradcam, gradcam\+\+, sal"):
        explain(small("sa_lstm"), pick(random_features(), [0]), SENTENCE, "gradcam2")
    with pytest.raises(ValueError, match="one medium is explained at a time, got features of 4"):
        explain(small("sa_lstm"), random_features(), SENTENCE)


def test_the_default_method_depends_on_the_captioner():
    assert {case: default_method(small(case)) for case in ("sa_lstm", "first_token")} == {
        "sa_lstm": "attention",
        "first_token": "gradcam",
    }
