"""What is compared: captions of run folders or caption files, how they were made, and their references."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limner import shipped
from limner.core.addresses import refuse_address
from limner.core.files import read_json
from limner.core.messages import short_repr
from limner.core.types import Medium
from limner.data.captions_file import read_captions
from limner.data.datasets import read_dataset
from limner.data.media_folder import media_below
from limner.data.pairing import match_ids, normalise_id, summarise_ids
from limner.runs.recipe_file import load_recipe
from limner.runs.resolve import MANIFEST


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison: its captions by id, and what its folder says about them.

    The last three fields are empty for a caption file.  `notes` has one line for each kind of repair while reading.
    """

    name: str
    path: Path
    captions: dict[str, str]
    notes: tuple[str, ...]
    # scores.json without its scores: split, decoding, protocol
    evaluation: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)  # the scores in scores.json, as fractions
    recipe: dict[str, Any] = field(default_factory=dict)  # recipe.json


def read_compared_runs(paths: Sequence[str | Path]) -> tuple[ComparedRun, ...]:
    """Read run folders (captions.json, and scores.json and recipe.json if they exist) or caption files.

    A caption file has one caption per id, in any layout of `limner.data.captions_file`.  The name of a run is the end
    of its path, as long as is needed to tell the runs apart.  Raises FileNotFoundError when there are no captions,
    ValueError when a path is given twice or a file has another layout.
    """
    resolved = [Path(path).resolve() for path in paths]
    repeated = [str(path) for path, count in Counter(resolved).items() if count > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} is given twice; a comparison takes different runs")
    parts_of = [path.with_suffix("").parts if path.is_file() else path.parts for path in resolved]
    longest = max(map(len, parts_of))
    lengths = (n for n in range(1, longest) if len({parts[-n:] for parts in parts_of}) == len(parts_of))
    length = next(lengths, longest)
    return tuple(_read_run(Path(path), "/".join(parts[-length:])) for path, parts in zip(paths, parts_of, strict=True))


def _read_run(path: Path, name: str) -> ComparedRun:
    refuse_address(path)
    if path.is_file():
        return ComparedRun(name, path, *_read_single_captions(path))
    if not path.is_dir():
        if str(path) in shipped.names():
            raise FileNotFoundError(
                f"{path} is a model inside limner, and no folder here has captions of it: caption the split with "
                f"`limner evaluate {path} --data.name NAME --data.media DIR --out DIR`, and compare that DIR"
            )
        raise FileNotFoundError(f"there is no run folder or caption file at {path}")
    if not (path / "captions.json").is_file():
        out = " --out DIR" if (path / MANIFEST).is_file() else ""  # a packed model stays unchanged
        raise FileNotFoundError(f"{path} has no captions.json; `limner evaluate {path}{out}` writes it")
    captions, notes = _read_single_captions(path / "captions.json")
    saved, recipe = (_read_object(path / file) for file in ("scores.json", "recipe.json"))
    evaluation = {key: value for key, value in saved.items() if key not in ("scores", "segments")}
    scores = saved.get("scores", {})
    if not isinstance(scores, dict):
        raise ValueError(f"{path / 'scores.json'}: expected an object under 'scores', got {short_repr(scores, 60)}")
    return ComparedRun(name, path, captions, notes, evaluation, scores, recipe)


def _read_single_captions(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """(the caption of each id, notes).  Raises ValueError when an id has not exactly one caption."""
    file = read_captions(path)
    others = [id for id, texts in file.captions.items() if len(texts) != 1]
    if others:
        count = len(file.captions[others[0]])
        raise ValueError(f"{path} has {count} captions for {others[0]!r}; a comparison takes one caption per id")
    return {id: texts[0] for id, texts in file.captions.items()}, file.notes


def _read_object(path: Path) -> dict[str, Any]:
    saved = read_json(path) if path.is_file() else {}
    if not isinstance(saved, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return saved


def references_from_runs(runs: Sequence[ComparedRun]) -> dict[str, Medium]:
    """The media with references, by id, of the dataset in the recipe of the first run that has one.

    Raises ValueError when no run has a recipe, or the files of its dataset do not exist.
    """
    run = next((run for run in runs if run.recipe), None)
    if run is None:
        raise ValueError("none of the runs has a recipe.json that names a dataset; give --references FILE")
    recipe = run.path / "recipe.json"
    try:
        dataset = read_dataset(load_recipe(recipe).data)
    except FileNotFoundError as error:
        raise ValueError(
            f"{recipe}: {error}; run the command in the folder from which its paths start, or give --references FILE"
        ) from error
    return {medium.id: medium for medium in dataset.media}


def references_from_file(path: str | Path, caption_column: str = "") -> dict[str, Medium]:
    """References by id, with the paths of their media, from a caption file in any layout that `read_captions` reads.

    `caption_column` names the column of the captions, when it is unusual.
    """
    file = read_captions(path, caption_column)
    return {id: Medium(id, file.files.get(id, ""), "", texts) for id, texts in file.captions.items()}


def match_to_references(run: ComparedRun, media: Mapping[str, Medium]) -> ComparedRun:
    """The run with its captions under the ids of `media`; ids may be written differently (7, COCO_val2014_00007.jpg).

    Raises ValueError for captions without references, because then the references are not the right ones.
    """
    names = {id: "" if medium.start is not None else medium.path for id, medium in media.items()}
    matched = {id: reference for reference, id in match_ids(dict.fromkeys(run.captions, ""), names)[0].items()}
    unmatched = [id for id in run.captions if id not in matched or not media[matched[id]].references]
    if unmatched:
        raise ValueError(
            f"{run.path}: of {len(run.captions)} captions, {summarise_ids(unmatched)} have no references; are these "
            "the references of its dataset?"
        )
    return replace(run, captions={matched[id]: text for id, text in run.captions.items()})


def locate_media(folder: str | Path, media: Mapping[str, Medium]) -> dict[str, Medium]:
    """The media with their paths looked up in `folder`: by relative path, file name, or a file that is named by the id.

    The path of a medium that is not found becomes "".  Raises ValueError when `folder` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"--media {root} is not a folder; expected the folder of the images or clips")
    files = media_below(root).media
    by_name = {path.name: path for path in files}
    by_id = {normalise_id(path.name): path for path in files}

    def locate(medium: Medium) -> Path | str:
        if medium.path and (root / medium.path).is_file():
            return root / medium.path
        return by_name.get(Path(medium.path).name) or by_id.get(normalise_id(medium.id)) or ""

    return {id: replace(medium, path=str(locate(medium))) for id, medium in media.items()}
