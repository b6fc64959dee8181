"""A teacher for distillation: a run, which reads the media of a student's batches in its own way."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from limner.core.types import Batch, Features, Medium, Pixels
from limner.objectives.context import Teacher
from limner.runs.inputs import feature_paths, open_inputs, uses_feature_files
from limner.runs.recipe import Recipe
from limner.runs.run import load_run
from limner.text.vocabulary import Vocabulary


def load_teacher(
    folder: str | Path,
    student: Recipe,
    words: Vocabulary,
    media: Sequence[Medium],
    device: torch.device,
    side: str = "",
) -> Teacher:
    """The run in `folder` as the teacher of one that is trained by the recipe `student` with these `words`.

    It reads the student's batches when both read the same features or frames, else its own features or files of their
    media.  Raises ValueError when the folder holds another kind of model, has no such `side`, or its features lack some
    of the media.
    """
    path = check_teacher(folder)
    run = load_run(path, device=str(device))
    if side:
        if side not in run.model.sides:
            raise ValueError(f"teacher: {path} is a {run.recipe.model.name}, which has no side '{side}': leave it out")
        run.model.select_side(side)
    inputs = open_inputs(run.recipe, run.encoder)
    model = inputs.with_encoder(run.model).eval().to(device)
    if same_inputs(student, run.recipe):
        drawn = student.sampling.policy == "random" and inputs.store is None
        return Teacher(str(path), model, lambda batch: batch.inputs, teacher_token_ids(run.vocabulary, words), fixed=not drawn)
    augmentations = inputs.store.augmentations if inputs.store is not None else ["full"]
    if inputs.uses_stored_features:
        kept, problems = inputs.split_readable(media)
        if problems:
            raise ValueError(
                f"teacher: {path} reads features of {len(kept)} of {len(media)} training media; {problems[0]}: extract "
                "the others, or leave them out of the data"
            )
    known = {medium.id: medium for medium in media}

    def read(batch: Batch) -> Features | Pixels:
        asked = batch.augmentations or ("full",) * len(batch.ids)
        names = [
            augmentation if not inputs.uses_stored_features or augmentation in augmentations else "full" for augmentation in asked
        ]
        items = [(known[id], augmentation) for id, augmentation in zip(batch.ids, names, strict=True)]
        return inputs.reader(items).map(lambda x: x.to(device))

    return Teacher(
        str(path), model, read, teacher_token_ids(run.vocabulary, words), tuple(augmentations) if inputs.uses_stored_features else None
    )


def check_teacher(folder: str | Path) -> Path:
    """Raises ValueError, or FileNotFoundError, for what cannot be a teacher; before any stage is trained."""
    path = Path(folder)
    if (path / "config.json").is_file() and not (path / "run.json").is_file():
        lacks = "" if any(path.glob("*processor_config.json")) else " (and it has no processor)"
        raise ValueError(
            f"teacher: {path} is a transformers model{lacks}, which has other words than the student and shows no "
            f"cells: let it write a caption file (limner caption MEDIA --model hf:{path} --n-best 5 --out "
            "pseudo.jsonl), "
            "and mix that in with `pseudo_captions` (pseudo_captions: {file: pseudo.jsonl, share: 0.5})"
        )
    if not (path / "run.json").is_file() and (path.is_file() or str(folder).startswith("hf:")):
        raise ValueError(
            f"teacher: expected the folder of a run, got {folder}; captions that others wrote are mixed in with "
            "`pseudo_captions` "
            "(pseudo_captions: {file: captions.jsonl, share: 0.5}), whatever the objective"
        )
    if not (path / "run.json").is_file():
        raise FileNotFoundError(f"teacher: {path} is not a run folder: it has no run.json")
    return path


def same_inputs(one: Recipe, other: Recipe) -> bool:
    """Do both read the same features, or the same frames for an encoder of the same kind?"""
    paths = [[Path(path).resolve() for path in feature_paths(recipe)] for recipe in (one, other)]
    if paths[0] != paths[1]:
        return False
    if paths[0] and not uses_feature_files(one):
        return True  # a store
    reading = [(recipe.frames, recipe.sampling, recipe.feature_rows) for recipe in (one, other)]
    return reading[0] == reading[1] and (bool(paths[0]) or one.encoder == other.encoder)


def teacher_token_ids(teacher: Vocabulary, student: Vocabulary) -> Int[Tensor, " V"] | None:
    """The teacher's id for each of the student's words; None when it lacks one, or cuts captions into other words."""
    cut = [(type(words), words.tokenizer, getattr(words, "merges", ())) for words in (teacher, student)]
    if cut[0] != cut[1] or any(word not in teacher.ids for word in student.words):
        return None
    return torch.tensor([teacher.ids[word] for word in student.words])
