"""The folders of SFTCap: `splits/NAME_{train,valid,test}_list.pkl`, `language/NAME_caption.json`, and frame vectors in
`visual/CLIP/frame_feature/ID.npy`, which a recipe's `features` names.

The lists are pickles.  They are read without letting them name a class or a function, so nothing in them is executed.
"""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from limner.core.files import atomic, read_json
from limner.core.torch_free import Medium
from limner.data.clip_folder import clip_files
from limner.data.dataset import DataSet, drop_empty, without_captions
from limner.data.split_lists import use_lists
from limner.data.store import FeatureStore

LISTS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
EXPECTED = "{sentences: [{video_id, caption}]} or {metadata: [{video_id, sentence}]}"


class _Plain(pickle.Unpickler):
    """Makes numbers, strings, lists, tuples, sets and dicts; anything else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside, {pid!r:.40}")


def read(folder: str | Path, media: str | Path = "") -> DataSet:
    """The data set below `folder` (`splits` and `language`), with the clips below `media` if there are any.

    Ids of the lists that have no caption, and captions of videos in no list, are reported.  Raises FileNotFoundError or
    ValueError that say what was expected.
    """
    folder = Path(folder)
    splits = read_splits(folder / "splits")
    captions = _captions(folder / "language")
    files = clip_files(media)
    ids = dict.fromkeys((*splits, *captions))
    found = [Medium(id, files.get(id, str(Path(media) / f"{id}.mp4")), "", tuple(captions.get(id, ()))) for id in ids]
    listed = use_lists(drop_empty(found), splits, folder / "splits")
    strangers = [f"{id}: in no list of {folder / 'splits'}" for id in captions if id not in splits]
    return DataSet(listed.media, (*listed.problems, *strangers, *without_captions(listed.media)))


def read_splits(folder: Path) -> dict[str, str]:
    """-> the split of every id.  Raises ValueError when there is no list, two for a split, or an id in two splits."""
    splits: dict[str, str] = {}
    seen: dict[str, Path] = {}
    for path in sorted(folder.glob("*_list.pkl")) if folder.is_dir() else []:
        name = LISTS.get(path.name.removesuffix("_list.pkl").rpartition("_")[2])
        if name is None:
            continue
        if name in seen:
            raise ValueError(f"two lists for the split {name}: {seen[name]} and {path}; remove one of them")
        seen[name] = path
        for id in read_ids(path):
            if splits.setdefault(id, name) != name:
                raise ValueError(f"'{id}' is in two split lists of {folder}: {splits[id]} and {name}")
    if not splits:
        raise FileNotFoundError(
            f"'{folder}' holds no split list; expected NAME_train_list.pkl, _valid_list, _test_list"
        )
    return splits


def read_ids(path: Path) -> list[str]:
    """The ids in a pickled list.  Raises ValueError when it is damaged, or asks for anything but plain values."""
    try:
        with open(path, "rb") as file:
            saved = _Plain(file, encoding="utf-8").load()
    except Exception as error:  # a hostile or damaged pickle may fail anywhere
        raise ValueError(
            f"{path} is no pickled list of ids that can be read without executing code ({error}); where it was made, "
            "save the list as plain strings"
        ) from error
    if not isinstance(saved, (list, tuple, set)) or not all(type(id) in (str, int) for id in saved):
        raise ValueError(f"{path}: expected a pickled list of ids, got {type(saved).__name__} {saved!r:.60}")
    return [str(id) for id in saved]


def _captions(folder: Path) -> dict[str, list[str]]:
    found = sorted(folder.glob("*_caption.json")) if folder.is_dir() else []
    if len(found) != 1:
        raise FileNotFoundError(f"'{folder}' holds {len(found)} files NAME_caption.json, expected one: {EXPECTED}")
    saved = read_json(found[0])
    captions: dict[str, list[str]] = {}
    try:
        rows, field = (saved["sentences"], "caption") if "sentences" in saved else (saved["metadata"], "sentence")
        for row in rows:
            captions.setdefault(str(row["video_id"]), []).append(str(row[field] or ""))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{found[0]} is not in SFTCap's format ({error}); expected {EXPECTED}") from error
    return captions


def write_frame_features(store: FeatureStore, folder: str | Path, ids: Iterable[str]) -> list[str]:
    """Write `folder`/frame_feature/ID.npy, float32 (n, D) without pickles, for each id -> the ids that were written.

    Those that the store lacks are left out.  Raises ValueError for features that are not a vector per frame, and for an
    id that cannot be a file name.
    """
    written = []
    for id in ids:
        if id not in store:
            continue
        grid, layout, _ = store.get(id)
        if layout[1] * layout[2] != 1:
            raise ValueError(
                f"{id} has the layout {tuple(layout)}; frame_feature holds a vector per frame: encode with clip_frames"
            )
        if not id or id != Path(id).name or id in (".", ".."):
            raise ValueError(f"the id '{id}' cannot be a file name")
        with atomic(Path(folder) / "frame_feature" / f"{id}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, grid.float().numpy(), allow_pickle=False)
        written.append(id)
    return written
