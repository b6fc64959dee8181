"""Teachers for distillation: a trained run that gives predictions for the batches of a student.

The teacher may read other features, or frames, than its student; then it reads the same media itself.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from limner import shipped
from limner.core.addresses import refuse_address
from limner.core.types import Batch, Features, Medium, Pixels
from limner.objectives.context import Teacher
from limner.runs.inputs import feature_paths, open_inputs, uses_feature_files
from limner.runs.recipe import Recipe
from limner.runs.resolve import is_name, resolve_model
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
    """Load the run in `folder` as a teacher.

    `student` and `words` are the recipe and the vocabulary of the run that is trained on `media`; `side` selects one
    side of a model that has several.  The teacher reads the student's batches when both use the same features or
    frames, else its own features or the files of the same media.
    Raises FileNotFoundError or ValueError when the folder is no run folder, the model has no such side, or the
    teacher's features lack some of the media.
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
        random_frames = student.sampling.policy == "random" and inputs.store is None
        ids = teacher_token_ids(run.vocabulary, words)
        return Teacher(str(path), model, lambda batch: batch.inputs, ids, fixed=not random_frames)
    augmentations = inputs.store.augmentations if inputs.store is not None else ["full"]
    if inputs.uses_stored_features:
        readable, problems = inputs.split_readable(media)
        if problems:
            raise ValueError(
                f"teacher: {path} has features for {len(readable)} of {len(media)} training media; {problems[0]}: "
                "extract the others, or leave them out of the data"
            )
    by_id = {medium.id: medium for medium in media}

    def read(batch: Batch) -> Features | Pixels:
        student_augmentations = batch.augmentations or ("full",) * len(batch.ids)
        names = [
            augmentation if not inputs.uses_stored_features or augmentation in augmentations else "full"
            for augmentation in student_augmentations
        ]
        items = [(by_id[id], augmentation) for id, augmentation in zip(batch.ids, names, strict=True)]
        return inputs.reader(items).map(lambda x: x.to(device))

    ids = teacher_token_ids(run.vocabulary, words)
    return Teacher(str(path), model, read, ids, tuple(augmentations) if inputs.uses_stored_features else None)


def check_teacher(folder: str | Path) -> Path:
    """Check that `folder` is a run folder or a model -> its path.  Called for all stages before the first is trained.

    Raises ValueError for another kind of model, FileNotFoundError when there is no run.
    """
    refuse_address(folder)
    path = resolve_model(folder) if shipped.folder_of(folder).exists() else Path(folder)
    if (path / "config.json").is_file() and not (path / "run.json").is_file():
        lacks = "" if any(path.glob("*processor_config.json")) else " (and it has no processor)"
        raise ValueError(
            f"teacher: {path} is a transformers model{lacks}, which has other tokens than the student and no cells: "
            f"let it write a caption file (limner caption MEDIA --model hf:{path} --n-best 5 --out pseudo.jsonl), and "
            "train on these captions too (pseudo_captions: {file: pseudo.jsonl, share: 0.5})"
        )
    if not (path / "run.json").is_file() and (path.is_file() or str(folder).startswith("hf:")):
        raise ValueError(
            f"teacher: expected a run folder, got {folder}; to train on captions in a file, use `pseudo_captions` "
            "(pseudo_captions: {file: captions.jsonl, share: 0.5}), with any objective"
        )
    if not (path / "run.json").is_file():
        models = f"; {shipped.known_names()}" if is_name(str(folder)) else ""
        raise FileNotFoundError(f"teacher: {path} is not a run folder: it has no run.json{models}")
    return path


def same_inputs(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes read the same features, or the same frames through equal encoder configs."""
    paths = [[Path(path).resolve() for path in feature_paths(recipe)] for recipe in (one, other)]
    if paths[0] != paths[1]:
        return False
    if paths[0] and not uses_feature_files(one):
        return True  # a feature store: its frames were sampled when it was written
    reading = [(recipe.frames, recipe.sampling, recipe.feature_rows) for recipe in (one, other)]
    return reading[0] == reading[1] and (bool(paths[0]) or one.encoder == other.encoder)


def teacher_token_ids(teacher: Vocabulary, student: Vocabulary) -> Int[Tensor, " V"] | None:
    """Return the teacher's token id for each of the student's V words.

    None when the teacher lacks one of the words, or tokenizes captions differently.
    """
    tokenizers = [(type(words), words.tokenizer, getattr(words, "merges", ())) for words in (teacher, student)]
    if tokenizers[0] != tokenizers[1] or any(word not in teacher.ids for word in student.words):
        return None
    return torch.tensor([teacher.ids[word] for word in student.words])
