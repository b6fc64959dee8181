"""What is compared: the captions of run folders or of captions files, how they came about, and the references."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limner.core.files import read_json
from limner.core.types import Medium
from limner.data.captions_file import read_captions
from limner.data.datasets import read_dataset
from limner.data.media import MEDIA_SUFFIXES
from limner.data.pairing import normalise_id, summarise_ids
from limner.runs.recipe import load_recipe


@dataclass(frozen=True)
class Side:
    """One of those that are compared; of a captions file there is nothing but the captions.

    `notes` tell what was mended while reading.
    """

    name: str
    path: Path
    captions: dict[str, str]
    notes: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)  # scores.json without what is measured anew here
    scores: dict[str, float] = field(default_factory=dict)  # as scores.json has them
    recipe: dict[str, Any] = field(default_factory=dict)  # recipe.json


def read_sides(paths: Sequence[str | Path]) -> tuple[Side, ...]:
    """Run folders (captions.json, and scores.json and recipe.json where they are) or files that hold one caption per id
    (`limner.data.captions_file`).

    A name is the end of its path, as long as it takes to tell the sides apart.  Raises ValueError or FileNotFoundError.
    """
    resolved = [Path(path).resolve() for path in paths]
    twice = [str(path) for path, count in Counter(resolved).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice; a comparison takes different runs")
    whole = [path.with_suffix("").parts if path.is_file() else path.parts for path in resolved]
    most = max(map(len, whole))
    length = next((n for n in range(1, most) if len({parts[-n:] for parts in whole}) == len(whole)), most)
    return tuple(_read_side(Path(path), "/".join(parts[-length:])) for path, parts in zip(paths, whole, strict=True))


def _read_side(path: Path, name: str) -> Side:
    if path.is_file():
        return Side(name, path, *_captions(path))
    if not path.is_dir():
        raise FileNotFoundError(f"there is no run folder or captions file at {path}")
    if not (path / "captions.json").is_file():
        raise FileNotFoundError(f"{path} has no captions.json; `limner evaluate {path}` writes it")
    captions, notes = _captions(path / "captions.json")
    saved, recipe = (_object(path / file) for file in ("scores.json", "recipe.json"))
    about = {key: value for key, value in saved.items() if key not in ("scores", "segments")}
    scores = saved.get("scores", {})
    if not isinstance(scores, dict):
        raise ValueError(f"{path / 'scores.json'}: expected an object under 'scores', got {scores!r:.60}")
    return Side(name, path, captions, notes, about, scores, recipe)


def _captions(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    found = read_captions(path)
    others = [id for id, texts in found.captions.items() if len(texts) != 1]
    if others:
        count = len(found.captions[others[0]])
        raise ValueError(f"{path} has {count} captions for {others[0]!r}; a comparison takes one for each id")
    return {id: texts[0] for id, texts in found.captions.items()}, found.notes


def _object(path: Path) -> dict[str, Any]:
    saved = read_json(path) if path.is_file() else {}
    if not isinstance(saved, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return saved


def references_of_runs(sides: Sequence[Side]) -> dict[str, Medium]:
    """The media, with references, of the data set that the first run with a recipe names, by id."""
    run = next((side for side in sides if side.recipe), None)
    if run is None:
        raise ValueError("none of the runs has a recipe.json that names a data set; give --references FILE")
    where = run.path / "recipe.json"
    try:
        dataset = read_dataset(load_recipe(where).data)
    except FileNotFoundError as error:
        raise ValueError(f"{where}: {error}; run where its paths lead to, or give --references FILE") from error
    return {medium.id: medium for medium in dataset.media}


def references_of_file(path: str | Path) -> dict[str, Medium]:
    """References of any layout that `limner.data.captions_file` reads, with the paths of the media as it has them."""
    found = read_captions(path)
    return {id: Medium(id, found.files.get(id, ""), "", texts) for id, texts in found.captions.items()}


def matched(side: Side, media: Mapping[str, Medium]) -> Side:
    """The side's captions by the ids of the media, which may be written otherwise ("7", "COCO_val2014_00007.jpg").

    Raises ValueError for captions that have no references: then the references are not the right ones.
    """
    own = {id: id for id in side.captions if id in media}
    if len(own) < len(side.captions):
        plain = {normalise_id(id): id for id in media}
        keys = [normalise_id(id) for id in side.captions]
        if len(plain) == len(media) and len(set(keys)) == len(keys):  # else two would become one
            own = {id: plain[key] for id, key in zip(side.captions, keys, strict=True) if key in plain}
    lost = [id for id in side.captions if id not in own or not media[own[id]].references]
    if lost:
        raise ValueError(
            f"{side.path}: of {len(side.captions)} captions, {summarise_ids(lost)} without references; are these the "
            "references that belong to it?"
        )
    return replace(side, captions={own[id]: text for id, text in side.captions.items()})


def found_in(folder: str | Path, media: Mapping[str, Medium]) -> dict[str, Medium]:
    """The media with their paths looked up in `folder`: by file name, or else by the id that a file is named after."""
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"--media {root} is not a folder; expected one with the pictures or clips")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES)
    by_name = {path.name: path for path in files}
    by_id = {normalise_id(path.name): path for path in files}

    def place(medium: Medium) -> Path | str:
        if medium.path and (root / medium.path).is_file():
            return root / medium.path
        return by_name.get(Path(medium.path).name) or by_id.get(normalise_id(medium.id)) or ""

    return {id: replace(medium, path=str(place(medium))) for id, medium in media.items()}
