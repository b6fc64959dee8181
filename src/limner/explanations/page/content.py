"""What the learning page shows: maps, alternatives and the beam of one caption, as values of JSON.

content = collect(run, subject, "photo.jpg", decoding)
content.data["choices"]      # the first one is the caption: its words, their log-probabilities and alternatives
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from limner.core.types import BOS, EOS, Features
from limner.decode.beam_tree import ROOT, BeamNode, beam_tree, node_of, path_to
from limner.decode.clip_options import ClipMethod, hypotheses_per_frame
from limner.decode.continuations import Choice, choice_tree
from limner.decode.frames import frames_apart, select_frame
from limner.decode.options import Beam
from limner.decode.search import traced_beam
from limner.decode.start import with_predicted_start
from limner.explanations.cells import without_encoder
from limner.explanations.clip_sentence import captioned
from limner.explanations.explanation_input import DisplayFrames, ExplanationInput
from limner.explanations.maps import METHODS, Explanation, TargetSentence, explain
from limner.explanations.overlay import above_mean, heat_colours
from limner.metrics.breakdown import CaptionBreakdown
from limner.runs.run import Run
from limner.runs.trained_media import clip_method_of
from limner.text.vocabulary import Vocabulary

ALTERNATIVES = 5  # words that are offered at every place
SENTENCES = 300  # of the tree of choices
MAX_FRAMES, IMAGE_SIDE, FRAME_SIDE = 16, 640, 360  # frames of a clip, and the longer sides in pixels
MAP_BYTES = 1_000_000  # of the attention maps of other choices
BEAM_ROWS = 12  # hypotheses of a step that are shown


@dataclass(frozen=True)
class PageContent:
    """What a page shows.

    caption    the sentence that is explained
    facts      what made it, by name
    data       values of JSON for the page's script
    breakdown  how its scores come about; None without references
    notes      what is missing on the page, and why, one line each
    """

    caption: str
    facts: dict[str, str]
    data: dict[str, Any]
    breakdown: CaptionBreakdown | None = None
    notes: tuple[str, ...] = ()


def collect(
    run: Run,
    subject: ExplanationInput,
    source: str,
    decoding: Beam,
    clip: str | None = None,
    given: TargetSentence | None = None,
    method: str | None = None,
) -> PageContent:
    """Explain one medium in every way.

    decoding  with words as ids
    clip      how a captioner of images reads clips (None: by consensus)
    given     a sentence that is explained instead of the model's own
    method    the maps that are shown first
    """
    sentence, weights = captioned(run, subject.features, decoding, clip, given)
    notes: list[str] = []
    methods = dict.fromkeys([*([method] if method else []), *METHODS])
    if not without_encoder(run.model).attends:
        if method == "attention":
            raise ValueError("this captioner has no attention: choose another --method, for example saliency")
        del methods["attention"]
        notes.append("This captioner has no attention maps: at every word it sees all cells alike")
    maps = {name: explain(run.model, subject.features, sentence, name, weights) for name in methods}
    if shown := [name for name, one in maps.items() if one.words and one.is_uniform]:
        notes.append(f"The maps of {', '.join(shown)} are the same everywhere for every word")
    clips = clip_method_of([run], clip) if subject.features.layout.t > 1 else "mosaic"
    choices = _choices(run, subject.features, decoding, clips, sentence, given is not None)
    nodes, best, beam_note = _beam(run, subject.features, decoding, clips, weights)
    notes += [beam_note] if beam_note else []
    words = _Words(run.vocabulary)
    data = {
        **_pictures(subject.display),
        **_cells(maps, sentence),
        "choices": _choice_rows(choices, words, next(iter(maps.values())), "attention" in maps),
        "beam": None if nodes is None else _beam_rows(nodes, best, words, decoding),
        "words": words.texts,
    }
    facts = {
        "file": source,
        "model": run.folder.name.removesuffix(".limner"),
        "search": f"beam of {decoding.size}" if decoding.size > 1 else "greedy search",
        **({"clip": clips} if clip or clips != "mosaic" else {}),
        **({"sentence": "given, not the model's own"} if given is not None else {}),
    }
    return PageContent(sentence.text, facts, data, notes=(*notes, *subject.notes))


class _Words:
    """The words that the page names, numbered in the order of their use."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary, self.texts = vocabulary, list[str]()
        self._number: dict[int, int] = {}

    def number(self, token: int) -> int:
        """The number of a token; new ones are added."""
        if token not in self._number:
            self._number[token] = len(self.texts)
            special = {EOS: "(end)", BOS: "(start)"}
            self.texts.append(special.get(token) or self.vocabulary.decode([token]) or self.vocabulary.words[token])
        return self._number[token]


def _choices(
    run: Run, features: Features, decoding: Beam, clips: ClipMethod, sentence: TargetSentence, is_given: bool
) -> list[Choice]:
    """The tree of choices; a clip that is read frame by frame is several media."""
    media = features
    if clips != "mosaic":
        apart = select_frame(features, features.layout.t // 2) if clips == "middle" else frames_apart(features)
        assert isinstance(apart, Features)
        seen = apart.mask.any(1)
        media = apart.map(lambda x: x[seen])
    model = run.model
    if decoding.predict_start:
        model, _, decoding = with_predicted_start(model, media, decoding)
    ends = is_given or len(sentence.ids) < decoding.rules.max_length
    tokens = [*sentence.ids, EOS] if ends else list(sentence.ids)
    return choice_tree(model, media, tokens, decoding.rules, ALTERNATIVES, SENTENCES)


def _beam(
    run: Run, features: Features, decoding: Beam, clips: ClipMethod, weights: Float[Tensor, " T"] | None
) -> tuple[list[BeamNode] | None, int | None, str]:
    """The nodes of the search, the place of its caption, and what a reader must know about them."""
    if decoding.must or decoding.groups > 1:
        kind = "Constrained" if decoding.must else "Diverse"
        return None, None, f"{kind} beams are several beams at once, and are not drawn"
    options, note = decoding, ""
    media: Any = features
    if clips == "middle":
        media = select_frame(features, features.layout.t // 2)
    elif clips == "consensus":
        assert weights is not None
        frame = int(weights.argmax())
        media, wide = select_frame(features, frame), hypotheses_per_frame(decoding)
        assert isinstance(wide, Beam)
        options = wide
        note = (
            "Every frame of the clip is searched by itself, and the sentence that agrees most with those of all frames "
            f"is the caption. The tree is that of frame {frame + 1} of {features.layout.t}, which the caption fits best"
        )
    captions, steps = traced_beam(run.model, media, replace(options, n_best=1))
    nodes = beam_tree(steps)
    return nodes, node_of(nodes, captions.tokens[0].tolist()), note


def _pictures(display: DisplayFrames) -> dict[str, Any]:
    """The frames as JPEGs in `data:` addresses, with their moments and seconds."""
    count = len(display.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(int))
    side = IMAGE_SIDE if count == 1 else FRAME_SIDE
    frames = [_jpeg(display.frames[i], side) for i in chosen]
    return {
        "frames": frames,
        "size": [int(display.frames.shape[2]), int(display.frames.shape[1])],
        "moments": [round(float(display.moments[i]), 4) for i in chosen],
        "seconds": None if display.seconds is None else [round(float(display.seconds[i]), 2) for i in chosen],
        "kept": [round(float(edge), 4) for edge in display.kept_region],
    }


def _jpeg(frame: UInt8[np.ndarray, "H W 3"], side: int) -> str:
    image = Image.fromarray(frame)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _cells(maps: dict[str, Explanation], sentence: TargetSentence) -> dict[str, Any]:
    """The maps of every method: per token of the caption bytes in base64, one for each cell."""
    example = next(iter(maps.values()))
    regions = None if example.regions is None else example.regions.round(4).tolist()
    places = sentence.word_indices
    by_method: dict[str, list[str | None]] = {}
    for name, one in maps.items():
        row: list[str | None] = [None] * len(sentence.ids)
        for place, values in zip(places, one.maps, strict=True):
            row[place] = _bytes(values[None], one.real)
        by_method[name] = row
    heat = heat_colours()[:: 255 // 15].tolist()
    return {"layout": list(example.layout), "regions": regions, "maps": by_method, "heat": heat}


def _bytes(maps: Float[np.ndarray, "L N"], real: Bool[np.ndarray, " N"]) -> str:
    """How far each cell exceeds the mean of its map, 0 to 255, as base64."""
    rows = [np.round(255 * above_mean(values, real)).astype(np.uint8) for values in maps]
    return base64.b64encode(b"".join(row.tobytes() for row in rows)).decode("ascii")


def _choice_rows(
    choices: Sequence[Choice], words: _Words, example: Explanation, has_attention: bool
) -> list[dict[str, Any]]:
    """The tree of choices for JSON: `p` parent, `at` place, and from there on `t` tokens and `l` log-probabilities.

    `a` are the alternatives at the places after it, as [word, log-probability, ...]; `m` the attention from `at` on.
    """
    rows, left = [], MAP_BYTES
    for choice in choices:
        said, first = choice.said, max(0, choice.place)
        row: dict[str, Any] = {
            "p": choice.parent,
            "at": choice.place,
            "t": [words.number(token) for token in said.tokens[first:]],
            "l": [_rounded(value) for value in said.logprobs[first:]],
            "a": [
                [part for token, value in place for part in (words.number(token), _rounded(value))]
                for place in said.alternatives[choice.place + 1 :]
            ],
        }
        attention = said.attention[first:]
        fits = choice.parent >= 0 and has_attention and attention.shape[1] == example.layout.cells
        if fits and (left := left - attention.size) > 0:
            row["m"] = _bytes(attention, example.real)
        rows.append(row)
    return rows


def _rounded(logprob: float) -> float:
    return round(max(logprob, -99.0), 3)


def _beam_rows(nodes: Sequence[BeamNode], best: int | None, words: _Words, options: Beam) -> dict[str, Any]:
    """The tree of the search for JSON: [parent, step, rank, word, log-probability, fate] per node that is shown."""
    path = set() if best is None else set(path_to(nodes, best))
    rank, seen = [], dict[int, int]()
    for node in nodes:
        rank.append(seen.setdefault(node.length, 0))
        seen[node.length] += 1
    shown = {i for i in range(len(nodes)) if rank[i] < BEAM_ROWS} | path
    shown |= {ancestor for place in shown for ancestor in path_to(nodes, place)}
    number = {place: i for i, place in enumerate(sorted(shown))}
    rows = [
        [
            number.get(nodes[i].parent, ROOT),
            nodes[i].length,
            rank[i] + 1,
            words.number(nodes[i].token),
            _rounded(nodes[i].logprob),
            nodes[i].fate,
        ]
        for i in sorted(shown)
    ]
    return {
        "nodes": rows,
        "path": sorted(number[i] for i in path),
        "size": options.size,
        "normalised": options.divisor(7) != 1.0,
        "left_out": len(nodes) - len(shown),
    }
