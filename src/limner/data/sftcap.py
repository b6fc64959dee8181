"""Reader of SFTCap's folders: `splits/NAME_{train,valid,test}_list.pkl` and `language/NAME_caption.json`.

Frame features lie in `visual/CLIP/frame_feature/ID.npy`; the recipe's field `features` names that folder.
The lists are pickles.  They are read by an unpickler that refuses classes and functions, so no code in them can run.
"""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from limner.core.files import atomic_write, read_json
from limner.core.messages import short_repr
from limner.core.torch_free import Medium
from limner.core.untrusted import check_pickle
from limner.data.clip_folder import clip_files
from limner.data.dataset import Dataset, drop_empty_captions, missing_caption_problems
from limner.data.split_lists import apply_split_lists
from limner.data.store import FeatureStore

LISTS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
EXPECTED = "{sentences: [{video_id, caption}]} or {metadata: [{video_id, sentence}]}"


class _SafeUnpickler(pickle.Unpickler):
    """Unpickler of numbers, strings, lists, tuples, sets and dicts; it refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside, {short_repr(pid, 40)}")


def read(folder: str | Path, media: str | Path = "") -> Dataset:
    """Read the dataset in `folder` (with the subfolders `splits` and `language`); `media` is the folder of the clips.

    A listed id without a caption, and captions of an id that is in no list, add a problem line.  Raises
    FileNotFoundError or ValueError, with the expected layout, when a file is missing or of another layout.
    """
    folder = Path(folder)
    splits = read_splits(folder / "splits")
    captions = _read_captions(folder / "language")
    files = clip_files(media)
    ids = dict.fromkeys((*splits, *captions))
    entries = [Medium(id, files.get(id, str(Path(media) / f"{id}.mp4")), "", tuple(captions.get(id, ()))) for id in ids]
    listed = apply_split_lists(drop_empty_captions(entries), splits, folder / "splits")
    unlisted = [f"{id}: in no list of {folder / 'splits'}" for id in captions if id not in splits]
    return Dataset(listed.media, (*listed.problems, *unlisted, *missing_caption_problems(listed.media)))


def read_splits(folder: Path) -> dict[str, str]:
    """The split of every id, from the files NAME_train_list.pkl, NAME_valid_list.pkl and NAME_test_list.pkl.

    Raises FileNotFoundError when there is no list, ValueError when two lists are for one split or an id is in two.
    """
    splits: dict[str, str] = {}
    lists: dict[str, Path] = {}
    for path in sorted(folder.glob("*_list.pkl")) if folder.is_dir() else []:
        name = LISTS.get(path.name.removesuffix("_list.pkl").rpartition("_")[2])
        if name is None:
            continue
        if name in lists:
            raise ValueError(f"two lists for the split {name}: {lists[name]} and {path}; remove one of them")
        lists[name] = path
        for id in read_ids(path):
            if splits.setdefault(id, name) != name:
                raise ValueError(f"'{id}' is in two split lists of {folder}: {splits[id]} and {name}")
    if not splits:
        raise FileNotFoundError(
            f"'{folder}' holds no split list; expected NAME_train_list.pkl, _valid_list, _test_list"
        )
    return splits


def read_ids(path: Path) -> list[str]:
    """The ids in a pickled list.  Raises ValueError when it is damaged, or holds anything but strings and numbers."""
    try:
        with open(path, "rb") as file:
            check_pickle(file)
            saved = _SafeUnpickler(file, encoding="utf-8").load()
    except Exception as error:  # a hostile or damaged pickle may fail anywhere
        raise ValueError(
            f"{path} is not a pickled list of ids that can be read without executing code ({error}); save it again as "
            "a list of str"
        ) from error
    if not isinstance(saved, (list, tuple, set)) or not all(type(id) in (str, int) for id in saved):
        raise ValueError(f"{path}: expected a pickled list of ids, got {type(saved).__name__} {short_repr(saved, 60)}")
    return [str(id) for id in saved]


def _read_captions(folder: Path) -> dict[str, list[str]]:
    files = sorted(folder.glob("*_caption.json")) if folder.is_dir() else []
    if len(files) != 1:
        raise FileNotFoundError(f"'{folder}' holds {len(files)} files NAME_caption.json, expected one: {EXPECTED}")
    saved = read_json(files[0])
    captions: dict[str, list[str]] = {}
    try:
        rows, field = (saved["sentences"], "caption") if "sentences" in saved else (saved["metadata"], "sentence")
        for row in rows:
            captions.setdefault(str(row["video_id"]), []).append(str(row[field] or ""))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{files[0]} is not in SFTCap's format ({error}); expected {EXPECTED}") from error
    return captions


def write_frame_features(store: FeatureStore, folder: str | Path, ids: Iterable[str]) -> list[str]:
    """Write `folder`/frame_feature/ID.npy, a float32 array (n, D), for each id; returns the ids that were written.

    Ids that the store lacks are left out.  Raises ValueError when the features are not one vector per frame, or an id
    cannot be a file name.
    """
    written = []
    for id in ids:
        if id not in store:
            continue
        grid, layout, _ = store.get(id)
        if layout[1] * layout[2] != 1:
            raise ValueError(
                f"{id} has the layout {tuple(layout)}; frame_feature holds one vector per frame: extract with the "
                "encoder clip_frames"
            )
        if not id or id != Path(id).name or id in (".", ".."):
            raise ValueError(f"the id '{id}' cannot be a file name")
        with atomic_write(Path(folder) / "frame_feature" / f"{id}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, grid.float().numpy(), allow_pickle=False)
        written.append(id)
    return written
