"""Look up the video files of a folder by id; file type and depth in the folder do not matter.

A folder of frames counts as the video of its name, when there is no video file of this name.
"""

from pathlib import Path

from limner.data.frame_folders import frame_files
from limner.data.media import is_clip
from limner.data.media_folder import media_below, visible_below


def clip_files(media: str | Path) -> dict[str, str]:
    """File name without suffix -> path, for every clip below the folder `media`.

    The result is empty when `media` is "", because a run on stored features needs no clips.  Raises ValueError when
    `media` is not a folder, or two files have the same name.
    """
    if not str(media):
        return {}
    root = Path(media)
    if not root.is_dir():
        raise ValueError(f"data.media: '{media}' is not a folder; expected the folder of the clips, or an empty value")
    paths: dict[str, str] = {}
    for path in (path for path in media_below(root).media if is_clip(path)):
        if path.stem in paths:
            raise ValueError(f"two clips are called {path.stem}: {paths[path.stem]} and {path}; remove one of them")
        paths[path.stem] = str(path)
    for path in [path for path in visible_below(root) if path.is_dir()]:
        if path.name not in paths and frame_files(path):
            paths[path.name] = str(path)
    return paths
