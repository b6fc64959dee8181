"""The files of a run folder that hold what its teacher said: `teacher/` with captions, kept and rejected ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.apps.shared.journal import to_jsonl
from limner.core.files import parse_json, read_json, write_json, write_text
from limner.training.caption_filters import FilteredCaptions, RejectedCaption, TeacherCaption


@dataclass(frozen=True)
class TeacherFiles:
    """Where the run folder `run` keeps what the teacher said."""

    run: Path

    @property
    def folder(self) -> Path:
        """The folder of these files."""
        return self.run / "teacher"

    @property
    def captions(self) -> Path:
        """All captions, and the reasons where there is none."""
        return self.folder / "captions.jsonl"

    @property
    def kept(self) -> Path:
        """The captions that the student learns from, as `pseudo_captions.file` of its recipe."""
        return self.folder / "pseudo_captions.jsonl"

    @property
    def rejected(self) -> Path:
        """The captions that were filtered out, with reasons."""
        return self.folder / "rejected.jsonl"

    @property
    def settings(self) -> Path:
        """What decides about the captions: those of calls with other settings are never mixed."""
        return self.folder / "settings.json"

    @property
    def recipe(self) -> Path:
        """The student's recipe, where it was written for these data."""
        return self.folder / "student.yaml"

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError when the captions that are there were made with other settings."""
        before = self._settings()
        now = json.loads(json.dumps(settings))  # tuples become lists
        if changed := [name for name, value in now.items() if before.get(name, value) != value]:
            raise ValueError(
                f"{self.folder} was begun with other {' and '.join(changed)}, as {self.settings.name} says: give the "
                "same options and data as before, or choose another --out"
            )

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write settings, in place of those that are there under the same names."""
        write_json(self.settings, {**self._settings(), **settings})

    def _settings(self) -> dict[str, Any]:
        return dict(read_json(self.settings)) if self.settings.is_file() else {}

    def write_filtered(self, filtered: FilteredCaptions, equal_weights: bool) -> None:
        """Write what the filters kept and what they rejected.

        `equal_weights` leaves out log-probabilities: captions that were drawn already come as often as is likely.
        """
        rows: list[dict[str, Any]] = []
        for id, own in filtered.kept.items():
            scored = not equal_weights and all(caption.logprob is not None for caption in own)
            rows += [
                {"id": id, "caption": caption.text, **({"logprob": caption.logprob} if scored else {})}
                for caption in own
            ]
        write_text(
            self.rejected,
            to_jsonl(
                [
                    {"id": it.id, "caption": it.caption.text, "logprob": it.caption.logprob, "reason": it.reason,
                     "detail": it.detail}
                    for it in filtered.rejected
                ]
            ),
        )  # fmt: skip
        write_text(self.kept, to_jsonl(rows))

    def read_filtered(self) -> FilteredCaptions:
        """What `write_filtered` wrote."""
        filtered = FilteredCaptions()
        for row in _rows(self.kept):
            filtered.kept.setdefault(row["id"], []).append(TeacherCaption(row["caption"], row.get("logprob")))
        filtered.rejected += [
            RejectedCaption(row["id"], TeacherCaption(row["caption"], row["logprob"]), row["reason"], row["detail"])
            for row in _rows(self.rejected)
        ]
        return filtered


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # a caption may hold U+2028
    return [parse_json(line, path) for line in lines if line]
