"""The viewer, limner caption ... --out report.html: pictures, captions, n-best, and scores where references are given.

The same page shows a split that limner evaluate has scored (--report FILE.html), whether the run reads pictures or
stored features.  One file that needs no other: small pictures lie inside, and a short script of ours sorts and filters
the cards.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limner.apps.shared.journal import Row, data_block, image_ids, printable, row_ids
from limner.apps.shared.subtitles import clock
from limner.comparison.compare import unique
from limner.comparison.gallery import Gallery, card_image, card_references
from limner.comparison.html import cell, document, shown, soft, table
from limner.comparison.numbers import MINUS, x100
from limner.comparison.protocol import flat
from limner.core.types import Medium
from limner.data.captions_file import CaptionsFile
from limner.data.media import is_clip
from limner.data.pairing import normalise_id, pair_captions
from limner.metrics.references import References
from limner.metrics.report import METRICS, SEGMENT_METRICS, Report, compute_scores, evaluate
from limner.runs.evaluation import Evaluation

PICTURES = 24_000_000  # bytes of pictures in a page; cards after that are without
MANY, SMALL = 400, 200  # so many cards have pictures of `SMALL` pixels, so that all of them have one
FACTS = {"order": "as given", "caption": "caption", "logprob": "log-probability", "words": "words"}

SCRIPT = """
"use strict";
const [bar, words, key, down, told] = ["bar", "words", "key", "down", "told"].map((id) => document.getElementById(id));
const list = document.getElementById("cards"), cards = [...list.children];
const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
function compare(a, b) {
  const [x, y] = [a, b].map((card) => card.getAttribute("data-" + key.value));
  if (x === null || y === null) return (x === null) - (y === null);
  return (key.value === "caption" ? x.localeCompare(y) : x - y) * (down.checked ? -1 : 1);
}
function arrange() {
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const card of cards) {
    card.hidden = !wanted.every((word) => texts.get(card).includes(word));
    count += !card.hidden;
  }
  list.append(...[...cards].sort(compare));
  told.textContent = count === cards.length ? `${count} shown` : `${count} of ${cards.length} shown`;
}
for (const part of [words, key, down]) part.addEventListener("input", arrange);
bar.addEventListener("submit", (event) => event.preventDefault());
bar.hidden = false;
arrange();
"""


@dataclass(frozen=True)
class Scored:
    """`report` is of the captions; `ranks` hold, for the caption and each further one, metric -> score by place of the
    row; `texts` are the references of a row.  `note` says why there is nothing, or what was left out."""

    report: Report | None = None
    ranks: tuple[Mapping[str, Mapping[int, float]], ...] = ()
    texts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def page(
    rows: Sequence[Row],
    about: Mapping[str, Any],
    paths: Mapping[str, str] | None = None,
    references: CaptionsFile | None = None,
    problems: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """The whole file as text, and a line for what it could not show.

    about  what made the captions, by name; "captions of" is the model, and the title
    paths  where the file of a row lies, if its name as text is not its path
    """
    paths, where = paths or {}, _folder(rows)
    media = [_medium(row, paths.get(row["file"], row["file"]), where) for row in rows]
    advice = "are they where they were?", "caption fewer files per report"
    return _whole(rows, media, scores(rows, references), {"files": where or ".", **about}, problems, advice)


def evaluated(evaluation: Evaluation, about: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The same of a split: its media by their ids, with the scores of the evaluation.  `about` as in `page`."""
    rows = []
    for medium in evaluation.media:
        best, *others = evaluation.generated[medium.id]
        row: Row = {"id": medium.id, "file": printable(medium.path or medium.id), "caption": best.text}
        row |= {"logprob": round(best.logprob, 4), "finished": best.finished}
        rows.append(row | ({"others": [[it.text, round(it.logprob, 4)] for it in others]} if others else {}))
    at = {row["id"]: place for place, row in enumerate(rows)}
    texts = {medium.id: medium.references for medium in evaluation.media}
    scored = _scored(rows, at, texts, References(texts), evaluation.report, evaluation.report.notes)
    advice = "--data.media FOLDER says where they lie", "--limit N evaluates fewer media"
    return _whole(rows, evaluation.media, scored, about, evaluation.problems, advice)


def _whole(
    rows: Sequence[Row],
    media: Sequence[Medium],
    scored: Scored,
    about: Mapping[str, Any],
    problems: Sequence[str],
    advice: tuple[str, str],
) -> tuple[str, list[str]]:
    """`media` are the rows as they are called and lie; `advice` is for missing pictures, and for too many."""
    side = {"side": SMALL} if len(rows) > MANY else {}
    gallery = Gallery(most=PICTURES, **side)
    cards = [_card(place, row, media[place], scored, gallery) for place, row in enumerate(rows)]
    missing = [*scored.notes, *gallery.problems(*advice)]
    told = {name: str(value) for name, value in flat(about).items()}
    title = f"Captions of {shown(os.path.basename(os.path.normpath(str(about.get('captions of', 'a model')))))}"
    title += f", {shown(str(about['split']))}" if "split" in about else ""
    body = [
        f"<h1>{title}</h1>",
        _summary(rows, scored),
        _listed("Not captioned, or mended", problems),
        *(soft(shown(line) + ".") for line in missing),
        _bar(scored),
        f'<ul class="items" id="cards">{"".join(cards)}</ul>' if cards else soft("No captions."),
        "<h2>How they were made</h2>",
        table("about", [], [(shown(name), [cell(shown(value))]) for name, value in told.items()], "text"),
        data_block(rows),
    ]
    return document(title, body, SCRIPT if cards else ""), missing


def _medium(row: Row, path: str, where: str) -> Medium:
    """Called as a reader would: without the folder that all files share, and a piece of a clip with its time."""
    name = os.path.relpath(row["file"], where) if where else row["file"]
    if "start" in row:
        name += f" {clock(row['start'])[:-2]} \u2013 {clock(row['end'])[:-2]}"
    return Medium(name, path, start=row.get("start"), end=row.get("end"))


def _folder(rows: Sequence[Row]) -> str:
    """The one that all files share."""
    alike = len({os.path.isabs(row["file"]) for row in rows}) == 1
    return os.path.commonpath([os.path.dirname(row["file"]) for row in rows]) if alike else ""


def scores(rows: Sequence[Row], references: CaptionsFile | None) -> Scored:
    """Captions, and the further ones of each row, held against the references that are there."""
    if references is None or not rows:
        return Scored()
    ids = {str(id): place for place, id in enumerate(row_ids(rows))}
    mine = _known(ids, references) or list(ids)
    places: dict[str, tuple[str, ...]] = {
        id: (str(ids[id]),) for id in mine
    }  # in the captions' stead, which pairing does not look at
    try:
        pairs = pair_captions(CaptionsFile("the captions", "rows", places), references, allow_missing=True)
    except ValueError as error:
        return Scored(notes=(f"there are no scores: {error}",))
    at = {id: int(texts[0]) for id, texts in pairs.candidates.items()}
    counted = References(pairs.references)
    report = evaluate({id: str(rows[place]["caption"]) for id, place in at.items()}, counted)
    left = len(rows) - len(at)
    notes = (f"{left} of {len(rows)} captions have no references and no scores",) if left else ()
    return _scored(rows, at, pairs.references, counted, report, (*notes, *report.notes))


def _scored(
    rows: Sequence[Row],
    at: Mapping[str, int],
    texts: Mapping[str, Sequence[str]],
    references: References,
    report: Report,
    notes: tuple[str, ...],
) -> Scored:
    """The further captions of each row scored as if they were the caption; `at` is id -> place of the row, `references`
    are `texts` counted."""
    names = [name for name in SEGMENT_METRICS if name in report.scores]
    first = {name: {at[str(line["id"])]: float(line[name]) for line in report.segments} for name in names}
    most = max(len(row.get("others", ())) for row in rows)
    others = (_rank(rows, rank, at, references, names) for rank in range(1, 1 + most))
    return Scored(report, (first, *others), {at[id]: tuple(lines) for id, lines in texts.items()}, notes)


def check(files: Sequence[str], references: CaptionsFile) -> None:
    """Raises ValueError when not one of the files has a reference; asked before anything is captioned."""
    ids = [str(id) for id in image_ids(files).values()]
    if ids and not any(is_clip(file) for file in files) and not _known(ids, references):  # pieces have ids of their own
        pair_captions(CaptionsFile("the files", "rows", dict.fromkeys(ids, ("",))), references, allow_missing=True)


def _known(ids: Iterable[str], references: CaptionsFile) -> list[str]:
    plain = {normalise_id(id) for id, texts in references.captions.items() if texts}
    return [id for id in ids if id in references.captions or normalise_id(id) in plain]


def _rank(
    rows: Sequence[Row], rank: int, at: Mapping[str, int], references: References, names: Sequence[str]
) -> Mapping[str, Mapping[int, float]]:
    """Metric -> score by place, of those captions that stand at `rank` of their row.  Costly ones, such as SPICE, are
    of the first captions only."""
    metrics = {name: METRICS[name] for name in names if name in METRICS}
    said = {id: _texts(rows[place])[rank:][:1] for id, place in at.items()}
    candidates = references.candidates({id: "".join(text) for id, text in said.items()})
    found, _ = compute_scores(candidates, references, metrics)
    return {
        name: {at[id]: float(value) for id, value in zip(references.ids, it.segments, strict=True) if said[id]}
        for name, it in found.items()
    }


def _texts(row: Row) -> list[str]:
    return [row["caption"], *(text for text, _ in row.get("others", ()))]


def _summary(rows: Sequence[Row], scored: Scored) -> str:
    texts = [row["caption"] for row in rows]
    count = len({row.get("id", row["file"]) for row in rows})
    things = "media" if any("id" in row for row in rows) else "files"  # those of a data set need not be there as files
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    cut = sum(not row["finished"] for row in rows)
    said = f"{len(texts)} captions of {count} {things}, {len(set(texts))} different, {words:.1f} words each"
    lines = [soft(said + (f"; {cut} were cut off at the length limit." if cut else "."))]
    if any("others" in row for row in rows):
        lines.append(soft("Captions of a medium stand as the search orders them, which may weigh length, or as drawn."))
    if scored.report:
        found, protocol = scored.report.scores, scored.report.protocol
        names = unique(found)
        heads, values = [name.replace("-", "\u2011") for name in names], [cell(x100(found[name])) for name in names]
        lines.append(table("scores", heads, [("", values)]))
        lines.append(
            soft(
                f"Of {protocol['images']} captions with {protocol['references mean']:.3g} references each, x100, as "
                f"papers print them; tokens: {shown(str(protocol['tokenizer']))}."
            )
        )
        exact = ", ".join(f"{name} {share:.1%}" for name, share in scored.report.exact.items())
        lines += [soft(f"Shares of captions, by what is exactly true: {shown(exact)}.")] if exact else []
    return "\n".join(lines)


def _listed(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{shown(line)}</li>" for line in lines)
    folded = f"<details><summary>{len(lines)} lines</summary><ul>{items}</ul></details>"
    return f'<div class="warn" role="note"><b>{title}</b>{folded if len(lines) > 5 else f"<ul>{items}</ul>"}</div>'


def _bar(scored: Scored) -> str:
    """What the script needs; hidden where none runs."""
    keys = FACTS | {f"score{k}": name for k, name in enumerate(scored.ranks[0] if scored.ranks else ())}
    choices = "".join(f'<option value="{value}">{name}</option>' for value, name in keys.items())
    return (
        '<form id="bar" class="bar" hidden><label>find <input id="words" type="search" placeholder="words, file name">'
        f'</label><label>order by <select id="key">{choices}</select></label>'
        '<label><input id="down" type="checkbox"> largest first</label><output id="told"></output></form>'
    )


def _card(place: int, row: Row, medium: Medium, scored: Scored, gallery: Gallery) -> str:
    look, image = card_image(medium, gallery.find(medium))
    texts, ways = _texts(row), [row["logprob"], *(value for _, value in row.get("others", ()))]
    several = len(texts) > 1
    lines = []
    for rank, (text, logprob) in enumerate(zip(texts, ways, strict=True)):
        number = f"<b>{rank + 1}</b> " if several else ""
        end = "" if rank or row["finished"] else " \u2013 cut off at the length limit"
        chance = f"<small class=unit>log p {logprob:.2f}{end}</small>".replace("-", MINUS)
        lines.append(f'<p dir="auto">{number}{shown(text) or "<i>(empty)</i>"} {chance}</p>')
    facts = {"order": place, "caption": shown(texts[0]), "logprob": row["logprob"], "words": len(texts[0].split())}
    first = scored.ranks[0] if scored.ranks else {}
    facts |= {f"score{k}": values[place] for k, values in enumerate(first.values()) if place in values}
    data = " ".join(f'data-{name}="{value}"' for name, value in facts.items())
    references = card_references(scored.texts[place]) if place in scored.texts else ""
    name = f'<h4 title="{shown(row["file"])}">{shown(medium.id, 160)}</h4>'
    return (
        f'<li class="{look}" {data}><div>{image}{name}</div>'
        f"<div>{''.join(lines)}{_scores(place, len(texts), scored)}{references}</div></li>"
    )


def _scores(place: int, count: int, scored: Scored) -> str:
    """The scores of a card: a row per caption."""
    names = list(scored.ranks[0]) if place in scored.texts else []
    if not names:  # the metrics that were asked for have none for single media
        return ""
    heads = "".join(f"<th>{name}</th>" for name in names)
    lines = ""
    for rank in range(count):
        found = scored.ranks[rank]
        values = "".join(cell(x100(found[name][place]) if name in found else "") for name in names)
        lines += f'<tr><th scope="row">{rank + 1 if count > 1 else ""}</th>{values}</tr>'
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{lines}</tbody></table>"
