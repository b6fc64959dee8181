"""Subtitle files of commands: which videos get one, where it goes, and its writing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from limner.apps.shared.arguments import WrongArguments
from limner.core.files import write_text
from limner.data.archives import find_archive
from limner.data.media import MEDIA_SUFFIXES
from limner.text.subtitles import WRITERS, Cue


def subtitle_paths(option: str, suffix: str, clips: Sequence[str]) -> dict[str, Path]:
    """The subtitle file of every video.

    `option` is empty (beside the videos), a file that ends in `suffix` (for a single video), or a folder.  Raises
    WrongArguments when there is no video, when two videos would share a file, or when `option` is an image or a video.
    """
    name = suffix[1:]
    if not clips:
        raise WrongArguments(f"--{name}: there is no video among the files")
    if Path(option).suffix.lower() in MEDIA_SUFFIXES and not Path(option).is_dir():
        raise WrongArguments(f"--{name} {option} is an image or a video; put --{name} after the files")
    if option.lower().endswith(suffix):
        if len(clips) > 1:
            raise WrongArguments(f"--{name} {option} is one file, for {len(clips)} videos: name a folder instead")
        return {clips[0]: Path(option)}
    if not option and (inside := [clip for clip in clips if find_archive(clip)]):
        raise WrongArguments(f"--{name}: {inside[0]} lies inside another file; name a folder for the subtitles")
    paths = {clip: (Path(option) / Path(clip).name if option else Path(clip)).with_suffix(suffix) for clip in clips}
    owners: dict[Path, str] = {}
    for clip, path in paths.items():
        if owners.setdefault(path, clip) != clip:
            raise WrongArguments(
                f"--{name}: {owners[path]} and {clip} would both write {path}; caption them in separate calls"
            )
    return paths


def write_subtitles(cues: Mapping[str, Sequence[Cue]], paths: Mapping[str, Path], suffix: str) -> list[Path]:
    """Write a subtitle file for every video that has cues, and return the files."""
    written = [clip for clip in paths if cues.get(clip)]
    for clip in written:
        write_text(paths[clip], WRITERS[suffix](cues[clip]))
    return [paths[clip] for clip in written]
