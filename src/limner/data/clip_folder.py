"""Find the video file of an id in a folder, whatever its ending and however deep it lies."""

from pathlib import Path

from limner.data.media import VIDEO_SUFFIXES


def clip_files(media: str | Path) -> dict[str, str]:
    """Stem -> path of every clip below a folder.  None when `media` is empty: features need no clips.

    Raises ValueError when it is no folder, or two files could be the same id.
    """
    if not str(media):
        return {}
    root = Path(media)
    if not root.is_dir():
        raise ValueError(f"data.media: '{media}' is not a folder; expected the folder of the clips, or nothing")
    found: dict[str, str] = {}
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES):
        if path.stem in found:
            raise ValueError(f"two clips are called {path.stem}: {found[path.stem]} and {path}; remove one of them")
        found[path.stem] = str(path)
    return found
