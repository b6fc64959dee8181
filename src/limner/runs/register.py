"""`register`: decorator that adds a captioner, encoder, data set, metric, objective or search to limner."""

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from limner.core.registry import Buildable, Registry
from limner.data.datasets import DATASETS
from limner.decode.search import SEARCHES, Search
from limner.encoders import ENCODERS
from limner.metrics.report import METRICS
from limner.models import CAPTIONERS
from limner.objectives import OBJECTIVES

Registered = TypeVar("Registered", bound=Callable[..., Any])
REGISTRIES: dict[str, Registry[Any]] = {
    "captioner": CAPTIONERS,
    "encoder": ENCODERS,
    "dataset": DATASETS,
    "metric": METRICS,
    "objective": OBJECTIVES,
    "search": SEARCHES,
}


def register(kind: str, key: str | type | None = None) -> Callable[[Registered], Registered]:
    """Decorator that adds a class or function to limner: recipes, commands, error messages and docs then know it.

    | kind | decorates | `key` |
    |---|---|---|
    | captioner | a `limner.models.captioner.Captioner` class | its config, a frozen dataclass with a literal `name` |
    | encoder | a `limner.encoders.Encoder` class | its config, likewise |
    | search | a function (model, inputs, options) -> `Captions` | its options, likewise |
    | objective | a config class with `build(context)` | none |
    | metric | a function (candidates, references) -> `Score` | its name, for example "WER" |
    | dataset | a function (`DataConfig`) -> `Dataset` | its name |

    Raises ValueError for an unknown kind, a key of another kind, or a name that is taken.

    >>> from limner.metrics.references import Score
    >>> @register("metric", "Words")
    ... def words(candidates, references):
    ...     return Score(float(candidates.lengths.mean()), candidates.lengths.astype(float))
    >>> import limner
    >>> limner.score({"1": "a dog runs"}, {"1": ["a dog"]}, metrics=["Words"]).scores
    {'Words': 3.0}
    """
    if kind not in REGISTRIES:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(REGISTRIES)}")

    def add(target: Registered) -> Registered:
        if kind in ("metric", "dataset"):
            if not isinstance(key, str):
                raise ValueError(f'a {kind} is registered by its name: register("{kind}", "NAME"), got {key!r}')
            REGISTRIES[kind].add(key, target)
        elif kind == "objective":
            if not isinstance(target, type):
                raise ValueError(f"an objective is registered as its config class, got {target!r}")
            OBJECTIVES.add(_literal_name(target), target)
        else:
            if not isinstance(key, type):
                raise ValueError(
                    f'a {kind} is registered with its config class: register("{kind}", MyConfig), got {key!r}'
                )
            entry = Search(key, target) if kind == "search" else Buildable(key, target)  # type: ignore[arg-type]
            REGISTRIES[kind].add(_literal_name(key), entry)
        return target

    return add


def _literal_name(config: type) -> str:
    """Return the value of a config's field `name: Literal["..."]`.  Raises ValueError when it has no such field."""
    names = get_args(get_type_hints(config).get("name"))
    if len(names) != 1 or not isinstance(names[0], str):
        raise ValueError(f'{config.__name__} needs a field like: name: Literal["my_name"] = "my_name"')
    return names[0]
