"""What a student is taught with: the media that a teacher captions, and the recipe that trains on its captions.

plan = plan_teaching("photos.csv", splits=Path("runs/student/splits"))
recipe = student_recipe("small", plan, pseudo_captions, Path("runs/student"), command, changes=())
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limner import shipped
from limner.core.torch_free import Medium
from limner.core.untrusted import load_yaml
from limner.data.archives import medium_exists
from limner.data.datasets import DataConfig, read_dataset
from limner.data.inspection import same_files
from limner.data.new_splits import SplitPlan, plan_splits, write_split_lists
from limner.data.own_data import find_data
from limner.runs.own_recipe import OwnRecipe, count_words, write_own_recipe
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import build_recipe, load_recipe

SMALL = ("small", shipped.DEFAULT)  # names of the student that goes on from the model inside limner
RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class TeachingData:
    """The data of a distillation.

    config    the field `data` of the student's recipe; None: the recipe of the student is at `recipe`, with data
    media     the media whose files are there, with their splits
    missing   lines about media whose file is not there
    notes     the reader's lines about repairs and choices
    """

    config: DataConfig | None
    media: tuple[Medium, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    plan: SplitPlan
    splits: str = ""  # folder of the split lists; "" when the data have splits of their own
    recipe: str = ""

    def split(self, name: str) -> list[Medium]:
        """The media of a split; [] when there are none."""
        return [medium for medium in self.media if medium.split == name]


def is_recipe(path: str) -> bool:
    """Whether DATA is a recipe: a YAML file, or the recipe.json of a run.

    >>> is_recipe("recipes/mine.yaml"), is_recipe("runs/mine/recipe.json"), is_recipe("dataset_coco.json")
    (True, True, False)
    """
    return Path(path).suffix in RECIPES or Path(path).name == "recipe.json"


def plan_teaching(
    path: str,
    splits: Path,
    media: str = "",
    file_column: str = "",
    caption_column: str = "",
    changes: Sequence[tuple[str, object]] = (),
) -> TeachingData:
    """Read the data at `path` and decide the split of each medium; human captions may be missing.

    `path` is a recipe or what `limner init` takes; `splits` is the folder for lists of new splits, which
    `write_plan` writes.  `changes` are fields of the student's recipe; those of `data` count for a recipe at `path`.
    The other arguments are those of `find_data`.
    Raises FileNotFoundError when there is nothing, ValueError when no image or clip is there or fewer than three are.
    """
    config = None if is_recipe(path) else find_data(path, media, file_column, caption_column)
    if config is None and (media or file_column or caption_column):
        raise ValueError(f"{path} is a recipe, which says itself where the data are: leave out --media and columns")
    of_data = [(name, value) for name, value in changes if _is_data(name)]
    dataset = read_dataset(config or load_recipe(path, of_data).data)
    there = [medium for medium in dataset.media if medium.path and medium_exists(medium.path)]
    if not there:
        first = f", for example {dataset.media[0].path or dataset.media[0].id}" if dataset.media else ""
        raise ValueError(
            f"{path}: none of its {len(dataset.media)} images and clips is there{first}; a teacher captions files: "
            "give their folder with --media DIR"
        )
    if config is None:
        plan = SplitPlan({medium.id: medium.split for medium in dataset.media}, False, "as the recipe says")
    else:
        plan = plan_splits(dataset.media, {medium.id for medium in there}, same_files(there))
    ids = {medium.id for medium in there}
    if not any(plan.splits[id] == "train" for id in ids):
        raise ValueError(f"{path}: none of {len(ids)} images and clips that are there is in the split train")
    return TeachingData(
        config=config,
        media=tuple(replace(medium, split=plan.splits[medium.id]) for medium in there),
        missing=tuple(
            f"{medium.id}: there is no file {medium.path}" for medium in dataset.media if medium.id not in ids
        ),
        notes=dataset.notes,
        plan=plan,
        splits=str(splits) if plan.is_new else "",
        recipe=path if config is None else "",
    )


def _is_data(field: str) -> bool:
    return field.partition(".")[0] == "data"


def write_plan(data: TeachingData) -> None:
    """Write the lists of new splits."""
    if data.splits:
        write_split_lists(data.plan.splits, data.splits)


def student_recipe(
    student: str,
    data: TeachingData,
    pseudo_captions: Path,
    captions: Mapping[str, Sequence[str]],
    run: Path,
    command: str,
    changes: Sequence[tuple[str, object]] = (),
) -> tuple[Recipe, str]:
    """The recipe of a student -> (the recipe, its text if it was written here, else "").

    student          "small", which goes on from the model inside limner, or a recipe
    pseudo_captions  the file of the teacher's captions
    captions         the teacher's captions by id; {} while there are none yet, to check the recipe before the work
    run              the run folder
    command          the command line, for the recipe's first line
    changes          fields of the recipe to change, by dotted names

    Raises ValueError for fields and values that cannot be.
    """
    taught: list[tuple[str, object]] = [
        ("pseudo_captions.file", str(pseudo_captions)),
        ("pseudo_captions.fill", True),
    ]
    if student not in SMALL:
        return load_recipe(student, [*_data_of(student, data), *taught, *changes]), ""
    config = data.config or load_recipe(data.recipe).data
    if not isinstance(config, DataConfig):
        raise ValueError(
            f"{data.recipe} has several data sets, and the student {student} takes one: give a recipe as --student"
        )
    text = _small(config, data, pseudo_captions, captions, run, command)
    own = [] if data.config else [("data", asdict(config))]  # with fields that the text has not
    return build_recipe(load_yaml(text), [*own, *changes], "the student's recipe"), text if data.config else ""


def _data_of(student: str, data: TeachingData) -> list[tuple[str, object]]:
    """The field `data` for the recipe of a student; nothing when it is the recipe that names the data."""
    if data.config is not None:
        return [("data", {**asdict(data.config), "splits": data.splits})]
    if Path(student) == Path(data.recipe):
        return []
    config = load_recipe(data.recipe).data
    return [("data", asdict(config) if isinstance(config, DataConfig) else [asdict(part) for part in config])]


def _small(
    config: DataConfig,
    data: TeachingData,
    pseudo_captions: Path,
    captions: Mapping[str, Sequence[str]],
    run: Path,
    command: str,
) -> str:
    """The text of the recipe that `limner init` would write, with the teacher's captions."""
    media = [
        medium if medium.references else replace(medium, references=tuple(captions.get(medium.id, ())))
        for medium in data.media
    ]
    media = [medium for medium in media if medium.references] or [
        replace(medium, references=("a picture",)) for medium in data.media
    ]
    training = [text for medium in media if medium.split == "train" for text in medium.references]
    words = count_words(training or ["a picture"], shipped.model())
    splits = data.splits or config.splits
    path = pseudo_captions.with_name("student.yaml")
    own = OwnRecipe(command, path, replace(config, splits=""), splits, data.plan, media, words, folder=str(run))
    return f"{write_own_recipe(own)}{_pseudo_captions(pseudo_captions)}"


def _pseudo_captions(file: Path) -> str:
    import yaml

    values: dict[str, Any] = {"file": str(file), "probability": 0.5, "fill": True}
    lines = yaml.safe_dump(values, default_flow_style=True, width=10**9, allow_unicode=True).strip()
    return (
        f"# the teacher's captions: they take the place of half of the human ones, and of all where there are none\n"
        f"pseudo_captions: {lines}\n"
    )
