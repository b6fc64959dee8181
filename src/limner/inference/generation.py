"""Captions by the `generate` of `transformers`: its arguments, log-probabilities of tokens, ids to captions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.torch_free import Caption
from limner.decode.options import Beam, Decoding, Sample
from limner.encoders.pretrained import quiet_transformers

NO_ATTENTION = np.zeros((0, 1, 1, 1), np.float32)


@torch.no_grad()
def generate_captions(
    model: Any, inputs: dict[str, Tensor], decoding: Decoding, tokenizer: Any, eos: int | Sequence[int] | None
) -> list[Caption]:
    """Caption a batch: `inputs` are the arguments of `generate` that hold the media (and the prompt).

    The tokens of a prompt are no part of the captions.  Returns one caption per medium, with the others of `n_best`.
    """
    greedy = isinstance(decoding, Beam) and decoding.size == 1  # scores of greedy search are changed by the rules
    outputs = {"output_logits": greedy, "output_scores": not greedy, "return_dict_in_generate": True}
    with quiet_transformers():
        output = model.generate(**inputs, **generate_arguments(decoding), **outputs)
    ids, logprobs = generated_tokens(output)
    captions = [to_caption(*row, tokenizer, eos) for row in zip(ids, logprobs, strict=True)]
    groups = [captions[i : i + decoding.n_best] for i in range(0, len(captions), decoding.n_best)]
    return [replace(best, others=tuple(more)) for best, *more in groups]


def generated_tokens(output: Any) -> tuple[Int[Tensor, "R L"], Float[Tensor, "R L"]]:
    """The output of `generate` -> the ids of the generated tokens, and their natural log-probabilities.

    Tokens that were given (a prompt, the decoder's start) are left out: some models return them, some do not, and there
    are as many generated tokens as steps.  Samples have the log-probability under the distribution that is sampled.
    """
    beams = getattr(output, "beam_indices", None)
    if beams is None:
        steps = output.logits or output.scores
        ids = output.sequences[:, -len(steps) :]
        # log_softmax(x)[i] = x[i] - logsumexp(x)
        chosen = [scores.gather(1, ids[:, t, None])[:, 0] - scores.logsumexp(1) for t, scores in enumerate(steps)]
        return ids, torch.stack(chosen, 1)
    length = int((beams >= 0).sum(1).max())  # the longest caption; shorter ones have beam -1 after their end
    ids, beams = output.sequences[:, -length:], beams[:, :length]
    chosen = [output.scores[t][beams[:, t].clamp(min=0), ids[:, t]] for t in range(length)]
    return ids, torch.stack(chosen, 1).masked_fill(beams < 0, 0.0)


def to_caption(
    ids: Int[Tensor, " L"], logprobs: Float[Tensor, " L"], tokenizer: Any, eos: int | Sequence[int] | None
) -> Caption:
    """Convert generated token ids and their log-probabilities into a caption; it ends with the first of `eos`."""
    is_eos = torch.isin(ids, torch.tensor([] if eos is None else eos, dtype=ids.dtype, device=ids.device))
    finished = bool(is_eos.any())
    length = int(is_eos.int().argmax()) + 1 if finished else len(ids)  # the end token included
    text = " ".join(tokenizer.decode(ids[:length], skip_special_tokens=True).split())
    return Caption(text, float(logprobs[:length].sum()), (), NO_ATTENTION, finished)


def generate_arguments(decoding: Decoding) -> dict[str, Any]:
    """Return the arguments of `generate` for a decoding.  Raises ValueError for options that it does not have."""
    rules = decoding.rules
    refused: dict[str, Any] = {
        "words that must not appear (--never)": rules.never,
        "rules about the last word (--decoding.rules.bad_endings)": rules.bad_endings,
        "a word that may not follow itself (--decoding.rules.no_repeat_word)": rules.no_repeat_word,
    }
    options: dict[str, Any] = {"max_new_tokens": rules.max_length, "num_return_sequences": decoding.n_best}
    options |= {"min_new_tokens": rules.min_length} if rules.min_length else {}
    options |= {"no_repeat_ngram_size": 3} if rules.no_repeat_trigram else {}
    if isinstance(decoding, Beam):
        refused |= {
            "words that must appear (--must)": decoding.must,
            "diverse beams (--decoding.groups)": decoding.groups > 1,
            "ended captions that compete with unfinished ones (--decoding.finished_compete)": decoding.finished_compete,
            "hypotheses that stay until they end (--decoding.drop_hopeless)": not decoding.drop_hopeless,
            "a predicted first token (--decoding.predict_start)": decoding.predict_start,
            "--decoding.normalise wu": decoding.normalise == "wu",
        }
        penalty = 1.0 if decoding.normalise == "avg" else decoding.length_penalty
        options |= {"do_sample": False, "num_beams": decoding.size, "length_penalty": penalty}
    elif isinstance(decoding, Sample):
        options |= {"do_sample": True, "num_beams": 1, "temperature": decoding.temperature}
        options |= {"top_k": decoding.top_k or 0, "top_p": 1.0 if decoding.top_p is None else decoding.top_p}
    else:
        raise ValueError(f"a model of transformers has no search {decoding.name!r}: use beam search or sampling")
    if requested := [name for name, value in refused.items() if value]:
        raise ValueError(
            f"{requested[0]}: a model of transformers generates subword tokens, by a search of its own that has no "
            "such option; leave it out"
        )
    return options
