"""Settings of a published model that its checkpoint may not hold, as the user gives them to a conversion."""

from dataclasses import dataclass, fields
from typing import Literal, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """Settings that a checkpoint may not hold; None: not given."""

    heads: int | None = None  # attention heads of a transformer
    activation: Literal["relu", "gelu"] | None = None  # of a transformer's feed-forward blocks
    max_words: int | None = None  # words of a caption, without its end
    align: tuple[int, int, int] | None = None  # (T, H, W) to which maps are resampled


NONE_GIVEN = Settings()
# system -> its settings; a system that is not listed has none, because its checkpoints and its code say everything
SETTINGS: dict[str, tuple[str, ...]] = {
    "spatial": ("heads", "activation", "max_words"),
    "self-critical": ("heads", "max_words"),
    "ort": ("max_words",),
    "xlan": ("max_words",),
    "sa-lstm": ("max_words",),
    "recnet": ("max_words",),
    "video-captioning-3d": ("align",),
}


def flag(name: str) -> str:
    """The option of `limner convert` for a setting."""
    return f"--{name.replace('_', '-')}"


def check_settings(settings: Settings, system: str) -> None:
    """Raise ValueError for a setting that a system does not have."""
    given = [field.name for field in fields(settings) if getattr(settings, field.name) is not None]
    known = SETTINGS.get(system, ())
    wrong = [flag(name) for name in given if name not in known]
    if wrong:
        has = f"it takes {', '.join(map(flag, known))}" if known else "its checkpoints say everything"
        raise ValueError(f"{', '.join(wrong)}: a checkpoint of {system} needs no such setting; {has}")


def choose(name: str, given: Value | None, stored: Value | None, assumed: Value, source: str) -> Value:
    """The value of a setting: what the checkpoint tells, else what the user gives, else what is assumed.

    Raises ValueError when the checkpoint tells another value than the user.
    """
    if None not in (given, stored) and given != stored:
        raise ValueError(f"{flag(name)} {given}: {source} says {stored}; leave out {flag(name)}")
    return next(value for value in (stored, given, assumed) if value is not None)
