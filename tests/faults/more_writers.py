"""Writers into folders of a user, other objectives of training, and caches.  `writers.py` has the others."""

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from limner.apps.cli import main
from limner.data.store_files import INDEX
from limner.metrics.meteor import tables
from limner.runs.run import load_run
from tests.comparison.world import BAD, GOOD, data_set, run
from tests.conftest import TINY
from tests.faults import checks
from tests.faults.checks import Writer, if_there
from tests.metrics.meteor.conftest import write_package

PAGE = "".join(f'<p><img src="in/{k}.jpg"></p>\n' for k in range(3)) + "</html>\n"
OVER = ("--overwrite",)
# name -> (changes of the recipe, the objective); each is trained for two epochs, and saved after every step
OBJECTIVES = {
    "train scst": ({}, "{name: scst}"),
    "train distil": ({}, "{name: distil, teacher: RUN}"),
    "train scheduled sampling": (
        {},
        "{name: xe, sampling: {initial_prob: 0.25, increase_prob: 0.25, increase_every: 1}}",
    ),
    "train recnet global": ({"show_attend_tell": "sa_lstm"}, "{name: recnet_global}"),
    "train recnet local": ({"show_attend_tell": "sa_lstm"}, "{name: recnet_local}"),
    "train sft": (
        {
            "name: show_attend_tell, hidden: 16, embed: 8, attention: 8, dropout: 0.1": "name: sft, hidden: 16, "
            "embed: 16, width: 8, layers: 1, heads: 2, max_objects: 2"
        },
        "{name: sft, teacher_weight: 0.5, objects: 0.1, actions: 0.1, sentence: 0.1, kl: 0.1}",
    ),
}


def command(*words: str, again: tuple[str, ...] = ()) -> Callable[[Path, bool], list[str]]:
    """A command whose words have OUT in them; `again` are added when an earlier call was killed."""

    def of(out: Path, resumed: bool) -> list[str]:
        return [word.replace("OUT", str(out)) for word in [*words, *(again if resumed else ())]]

    return of


def trainings(tiny: Path, folder: Path) -> list[Writer]:
    """Training with each objective."""
    made = []
    for name, (changes, objective) in OBJECTIVES.items():
        text = TINY.format(world=tiny / "world")
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        text = text.replace("stages: [{", f"stages: [{{objective: {objective.replace('RUN', str(tiny / 'run'))}, ")
        recipe = folder / f"{name.replace(' ', '_')}.yaml"
        recipe.write_text(text)
        start = ["--start", str(tiny / "run")] if name == "train scst" else []
        words = [
            "train",
            str(recipe),
            "--out",
            "OUT/run",
            "--seed",
            "1",
            "--frames=4",
            *start,
            "--checkpoint_steps",
            "1",
        ]
        whole = lambda out: if_there(out / "run" / "model.safetensors", lambda _: load_run(out / "run"))  # noqa: E731
        made.append(
            Writer(name, command(*words, again=("--resume",)), whole, environment={"LIMNER_CACHE": "OUT/cache"})
        )
    student = folder / "student.yaml"
    student.write_text(TINY.format(world=tiny / "world"))
    words = ["distill", str(student), "--teacher", str(tiny / "run"), "--out", "OUT/run", "--limit", "4"]
    words += ["--min-words", "1", "--language", "any", "--checkpoint_steps", "1", "--seed", "1", "--frames", "4"]
    words += ["--sample", "2", "--max-length", "30"]  # drawn captions of a model that has hardly learnt come to an end
    made.append(Writer("distill", command(*words, again=("--resume",)), lambda out: checks.run_is_whole(out / "run")))
    return made


def editors(tiny: Path) -> list[Writer]:
    """Commands that write beside and into the files of a user."""
    model = ["--model", str(tiny / "run"), "--batch-size", "1"]

    def photos(out: Path, ending: str = "jpg", count: int = 4) -> None:
        (out / "in").mkdir()
        for k, path in enumerate(sorted((tiny / "world" / "images").iterdir())[:count]):
            Image.open(path).convert("RGB").save(out / "in" / f"{k}.{ending}")

    def pngs(out: Path) -> None:
        photos(out, "png")

    def site(out: Path) -> None:
        photos(out)
        for name in ("a.html", "b.html"):
            (out / name).write_text(PAGE)

    def pages_are_whole(out: Path) -> None:
        for path in out.glob("*.html"):
            checks.page_is_whole(path)

    watch = ["watch", "OUT/in", "--once", "--settle", "0.1", "--interval", "0.1", "--out", "OUT/w.jsonl"]
    watch += ["--sidecar", "txt", *model]
    sidecar, whole = ["caption", "OUT/in", *model, "--sidecar"], checks.sidecars_are_whole
    return [
        Writer("sidecar txt", command(*sidecar, "txt"), whole, photos),
        Writer("sidecar json", command(*sidecar, "json"), whole, photos),
        Writer("sidecar xmp", command(*sidecar, "xmp"), whole, photos),
        Writer("exif", command("caption", "OUT/in", *model, "--exif"), checks.images_are_whole, photos),
        Writer("xmp", command("caption", "OUT/in", *model, "--xmp"), checks.images_are_whole, pngs),
        Writer("alt", command("alt", "OUT", *model, "--write"), pages_are_whole, site),
        Writer("watch", command(*watch), whole, photos),
    ]


def tools(tiny: Path, folder: Path) -> list[Writer]:
    """Commands that make something of what others have made."""
    images, model, world = str(tiny / "world" / "images"), str(tiny / "run"), str(tiny / "world")
    data = data_set(folder / "data")
    captions = str(data / "captions.jsonl")
    runs = [str(run(folder / name, data, texts)) for name, texts in (("good", GOOD), ("bad", BAD))]
    parts, stores = [str(folder / f"p{k}.csv") for k in (1, 2)], [str(folder / f"s{k}") for k in (1, 2)]
    for k, (part, store) in enumerate(zip(parts, stores, strict=True), 1):
        assert main(["caption", images, "--model", model, "--part", f"{k}/2", "--out", part]) == 0
        assert main(["extract", model, "--part", f"{k}/2", "--out", store]) == 0
    assert main(["shapes", "--out", str(folder / "w"), "--images", "80", "--size", "32"]) == 0
    other = str(shutil.copytree(tiny / "run", folder / "other"))
    report = ["--json", "OUT/c.json", "--html", "OUT/c.html", "--fix", "OUT/fixed.jsonl"]

    def calibrated(out: Path) -> None:
        shutil.copytree(tiny / "run", out / "run")

    def recipe_is_whole(out: Path) -> None:
        if (out / "r.yaml").exists():
            assert "stages" in (out / "r.yaml").read_text()

    compared = ["compare", *runs, "--out", "OUT/c.html", "--json", "OUT/c.json", "--latex", "OUT/c.tex"]
    compared += ["--tokenizer", "simple", "--bootstrap", "50"]
    fitted = ["calibrate", "OUT/run", "--split", "train", "--bar", "0.01", "--data.media", str(folder / "w")]
    half = ["caption", images, "--model", model, "--part", "1/2", "--batch-size", "2", "--out", "OUT/c.csv"]
    return [
        Writer("caption part", command(*half, again=("--resume",)), lambda out: checks.csv_is_whole(out / "c.csv", 20)),
        Writer("merge captions", command("merge", *parts, "--out", "OUT/c.csv", again=OVER),
               lambda out: checks.csv_is_whole(out / "c.csv", 40)),
        Writer("merge features", command("merge", *stores, "--out", "OUT/s", again=OVER),
               lambda out: if_there(out / "s" / INDEX, lambda _: checks.store_is_whole(out / "s"))),
        Writer("average", command("average", model, other, "--out", "OUT/m"),
               lambda out: checks.run_is_whole(out / "m")),
        Writer("check", command("check", world, *report, again=OVER), checks.report_is_whole),
        Writer("compare", command(*compared, again=OVER), checks.report_is_whole),
        Writer("init", command("init", captions, "--out", "OUT/r.yaml", again=OVER), recipe_is_whole),
        Writer("calibrate", command(*fitted, again=OVER),
               lambda out: load_run(out / "run"), calibrated),
    ]  # fmt: skip


def meteor_cache(folder: Path) -> Writer:
    """METEOR's tables, of a pycocoevalcap of a few words, into an empty cache."""
    package = write_package(folder)
    candidates = folder / "m.json"
    candidates.write_text('{"1": "a dog runs", "2": "the cat"}')
    words = ["score", "--candidates", str(candidates), "--references", str(candidates), "--metrics", "METEOR"]

    def whole(out: Path) -> None:
        made = next((out / "cache").glob("meteor-*"), None)
        if made is not None and (made / tables.INDEX).exists():
            tables.open_tables(made)

    return Writer(
        "METEOR's cache",
        command(*words, "--out", "OUT/s.json", again=OVER),
        whole,
        environment={"LIMNER_CACHE": "OUT/cache"},
        patches=((tables, "find_pycocoevalcap", lambda: package),),
    )
