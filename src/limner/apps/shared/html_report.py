"""The HTML report of `limner caption --out report.html` and `limner evaluate --report report.html`.

It shows images or video frames with their captions, further captions, and scores where there are references.  The file
needs no other: small images are inside, and a short script sorts and filters the cards.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from limner.apps.shared.journal import Row, data_block, image_ids, printable, row_ids
from limner.comparison.compare import unique_metrics
from limner.comparison.formatting import MINUS, format_x100
from limner.comparison.gallery import Gallery, card_image, card_references
from limner.comparison.html import escape_html, explanation, html_cell, html_document, html_table, row_head
from limner.comparison.protocol import flatten
from limner.core.types import Medium
from limner.data.captions_file import CaptionsFile
from limner.data.media import is_clip
from limner.data.pairing import normalise_id, pair_captions
from limner.inference.pieces import Problems
from limner.metrics.references import References
from limner.metrics.report import METRICS, SEGMENT_METRICS, Report, compute_scores, evaluate
from limner.runs.evaluation import Evaluation
from limner.text.subtitles import timestamp

IMAGE_BYTES = 24_000_000  # of images in a page; later cards have none
MANY, SMALL = 400, 200  # with more cards than MANY, images have SMALL pixels a side: then all cards can have one
SORT_KEYS = {"order": "as given", "caption": "caption", "logprob": "log-probability", "words": "words"}
SORT_KEYS |= {"confidence": "confidence"}  # of a calibrated model

SCRIPT = """
"use strict";
const [bar, words, key, down, count] =
  ["bar", "words", "key", "down", "count"].map((id) => document.getElementById(id));
const list = document.getElementById("cards"), cards = [...list.children];
const texts = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
function compare(a, b) {
  const [x, y] = [a, b].map((card) => card.getAttribute("data-" + key.value));
  if (x === null || y === null) return (x === null) - (y === null);
  return (key.value === "caption" ? x.localeCompare(y) : x - y) * (down.checked ? -1 : 1);
}
function arrange() {
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    card.hidden = !wanted.every((word) => texts.get(card).includes(word));
    shown += !card.hidden;
  }
  list.append(...[...cards].sort(compare));
  count.textContent = shown === cards.length ? `${shown} shown` : `${shown} of ${cards.length} shown`;
}
for (const part of [words, key, down]) part.addEventListener("input", arrange);
bar.addEventListener("submit", (event) => event.preventDefault());
bar.hidden = false;
arrange();
"""


@dataclass(frozen=True)
class Scored:
    """The scores of a report.

    report  scores of all captions together; None without references
    ranks   for the caption of each row, then for its second one, and so on: metric -> score, by the row's place
    texts   references, by the row's place
    notes   why there are no scores, or what was left out
    by_data_set  scores of each of several data sets, by its label
    """

    report: Report | None = None
    ranks: tuple[Mapping[str, Mapping[int, float]], ...] = ()
    texts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    by_data_set: Mapping[str, Report] = field(default_factory=dict)


def report_of_files(
    rows: Sequence[Row],
    about: Mapping[str, Any],
    paths: Mapping[str, str] | None = None,
    references: CaptionsFile | None = None,
    problems: Problems | None = None,
    tokenizer: str = "ptb",
) -> tuple[str, list[str]]:
    """The report of captioned files -> (its text, a line for everything that it could not show).

    about     what made the captions; "captions of" is the model, and the title
    paths     printable file name -> path; a name without an entry is its path
    problems  files that were skipped, and notes about damaged ones
    tokenizer  of the scores
    """
    paths, where, problems = paths or {}, _common_folder(rows), problems or Problems()
    media = [_medium(row, paths.get(row["file"], row["file"]), where) for row in rows]
    lists = {
        "Files that could not be read": problems.unreadable,
        "Files without a caption": problems.failed,
        "Notes about files": problems.notes,
    }
    advice = "are they where they were?", "caption fewer files per report"
    return _report(rows, media, scores(rows, references, tokenizer), {"files": where or ".", **about}, lists, advice)


def report_of_split(evaluation: Evaluation, about: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The report of an evaluated split, with the scores of the evaluation; `about` as in `report_of_files`."""
    rows = []
    for medium in evaluation.media:
        best, *others = evaluation.generated[medium.id]
        row: Row = {"id": medium.id, "file": printable(medium.path or medium.id), "caption": best.text}
        row |= {"logprob": round(best.logprob, 4), "finished": best.finished}
        rows.append(row | ({"others": [[it.text, round(it.logprob, 4)] for it in others]} if others else {}))
    places = {row["id"]: place for place, row in enumerate(rows)}
    texts = {medium.id: medium.references for medium in evaluation.media}
    references = References(texts, str(evaluation.report.protocol["tokenizer"]).split()[0])  # without a remark
    scored = _scored(rows, places, texts, references, evaluation.report, evaluation.report.notes)
    scored = replace(scored, by_data_set=evaluation.by_data_set)
    advice = "--data.media FOLDER says where they are", "--limit N evaluates fewer media"
    return _report(rows, evaluation.media, scored, about, {"Problems in the data": evaluation.problems}, advice)


def _report(
    rows: Sequence[Row],
    media: Sequence[Medium],
    scored: Scored,
    about: Mapping[str, Any],
    lists: Mapping[str, Sequence[str]],
    advice: tuple[str, str],
) -> tuple[str, list[str]]:
    """The text of a report, and a line for everything that it could not show.

    media   the rows' names and paths
    lists   title -> lines of what went wrong
    advice  what to do about missing images, and about too many
    """
    side = {"side": SMALL} if len(rows) > MANY else {}
    gallery = Gallery(max_bytes=IMAGE_BYTES, **side)
    cards = [_card(place, row, media[place], scored, gallery) for place, row in enumerate(rows)]
    missing = [*scored.notes, *gallery.missing_thumbnails(*advice)]
    facts = {name: _without_folders(value) for name, value in flatten(about).items()}
    title = f"Captions of {escape_html(os.path.basename(os.path.normpath(str(about.get('captions of', 'a model')))))}"
    title += f", {escape_html(str(about['split']))}" if "split" in about else ""
    body = [
        f"<h1>{title}</h1>",
        _summary(rows, scored),
        *(_list(name, lines) for name, lines in lists.items()),
        *(explanation(escape_html(line) + ".") for line in missing),
        "<h2>Captions</h2>",
        _bar(scored),
        f'<ul class="items" id="cards">{"".join(cards)}</ul>' if cards else explanation("No captions."),
        "<h2>How they were made</h2>",
        html_table(
            "about", [], [(escape_html(name), [html_cell(escape_html(value))]) for name, value in facts.items()], "text"
        ),
        data_block(rows),
    ]
    return html_document(title, body, SCRIPT if cards else ""), missing


def _without_folders(value: Any) -> str:
    """A value as text; of an absolute path only its last part, since a report may be passed on.

    >>> _without_folders("/home/someone/photos")
    'photos'
    """
    items = value if isinstance(value, list | tuple) else [value]
    texts = [os.path.basename(os.path.normpath(text)) if os.path.isabs(text) else text for text in map(str, items)]
    return str(texts) if isinstance(value, list | tuple) else texts[0]


def _medium(row: Row, path: str, where: str) -> Medium:
    """A row's file for a reader: its name below the folder `where`, for a part of a video with the time."""
    name = os.path.relpath(row["file"], where) if where else row["file"]
    if "start" in row:
        name += f" {timestamp(row['start'])[:-2]} \u2013 {timestamp(row['end'])[:-2]}"
    return Medium(name, path, start=row.get("start"), end=row.get("end"))


def _common_folder(rows: Sequence[Row]) -> str:
    """The folder that all files are below; "" when there is none."""
    alike = len({os.path.isabs(row["file"]) for row in rows}) == 1
    return os.path.commonpath([os.path.dirname(row["file"]) for row in rows]) if alike else ""


def scores(rows: Sequence[Row], references: CaptionsFile | None, tokenizer: str = "ptb") -> Scored:
    """Score the captions, and the further captions of each row, of those files that have references."""
    if references is None or not rows:
        return Scored()
    ids = {str(id): place for place, id in enumerate(row_ids(rows))}
    wanted = _with_references(ids, references) or list(ids)
    # `pair` looks at ids alone: in place of a caption stands the place of its row
    places: dict[str, tuple[str, ...]] = {id: (str(ids[id]),) for id in wanted}
    try:
        pairs = pair_captions(CaptionsFile("the captions", "rows", places), references, allow_missing=True)
    except ValueError as error:
        return Scored(notes=(f"there are no scores: {error}",))
    at = {id: int(texts[0]) for id, texts in pairs.candidates.items()}
    counted = References(pairs.references, tokenizer)
    report = evaluate({id: str(rows[place]["caption"]) for id, place in at.items()}, counted)
    left = len(rows) - len(at)
    notes = (f"{left} of {len(rows)} captions have no references and no scores",) if left else ()
    return _scored(rows, at, pairs.references, counted, report, (*notes, *report.notes))


def _scored(
    rows: Sequence[Row],
    places: Mapping[str, int],
    texts: Mapping[str, Sequence[str]],
    references: References,
    report: Report,
    notes: tuple[str, ...],
) -> Scored:
    """Score the further captions of each row as if each were the row's caption.

    places  id -> place of its row; `references` are `texts`, counted
    """
    names = [name for name in SEGMENT_METRICS if name in report.scores]
    first = {name: {places[str(line["id"])]: float(line[name]) for line in report.segments} for name in names}
    most = max(len(row.get("others", ())) for row in rows)
    others = (_scores_of_rank(rows, rank, places, references, names) for rank in range(1, 1 + most))
    return Scored(report, (first, *others), {places[id]: tuple(lines) for id, lines in texts.items()}, notes)


def check_references(files: Sequence[str], references: CaptionsFile) -> None:
    """Raise ValueError, before anything is captioned, when no file has a reference."""
    ids = [str(id) for id in image_ids(files).values()]
    # parts of videos have ids of their own, which are known only after cutting
    if ids and not any(is_clip(file) for file in files) and not _with_references(ids, references):
        pair_captions(CaptionsFile("the files", "rows", dict.fromkeys(ids, ("",))), references, allow_missing=True)


def _with_references(ids: Iterable[str], references: CaptionsFile) -> list[str]:
    names = {id: references.files.get(id, "") for id, texts in references.captions.items() if texts}
    plain = {normalise_id(name) for id, file in names.items() for name in (id, file) if name}
    return [id for id in ids if id in references.captions or normalise_id(id) in plain]


def _scores_of_rank(
    rows: Sequence[Row], rank: int, places: Mapping[str, int], references: References, names: Sequence[str]
) -> Mapping[str, Mapping[int, float]]:
    """Metric -> score by place, of the captions at `rank` of their rows.

    Metrics that are not in METRICS, for example SPICE, are too slow for this and are of first captions only.
    """
    metrics = {name: METRICS[name] for name in names if name in METRICS}
    captions = {id: _texts(rows[place])[rank:][:1] for id, place in places.items()}
    candidates = references.candidates({id: "".join(text) for id, text in captions.items()})
    by_metric, _ = compute_scores(candidates, references, metrics)
    return {
        name: {places[id]: float(value) for id, value in zip(references.ids, it.segments, strict=True) if captions[id]}
        for name, it in by_metric.items()
    }


def _texts(row: Row) -> list[str]:
    """All captions of a row, the best one first."""
    return [row["caption"], *(text for text, _ in row.get("others", ()))]


def _summary(rows: Sequence[Row], scored: Scored) -> str:
    """Counts of captions, and the table of scores."""
    texts = [row["caption"] for row in rows]
    count = len({row.get("id", row["file"]) for row in rows})
    things = "media" if any("id" in row for row in rows) else "files"  # a data set may have features without files
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    cut = sum(not row["finished"] for row in rows)
    counts = f"{len(texts)} captions of {count} {things}, {len(set(texts))} different, {words:.1f} words each"
    lines = [explanation(counts + (f"; {cut} were cut off at the length limit." if cut else "."))]
    if any("others" in row for row in rows):
        lines.append(explanation("Several captions of a file are in the order of the search, or as they were drawn."))
    if scored.report:
        results, protocol = scored.report.scores, scored.report.protocol
        names = unique_metrics(results)
        heads = [name.replace("-", "\u2011") for name in names]
        by_row = {"all" if scored.by_data_set else "": results}
        by_row |= {escape_html(label): report.scores for label, report in scored.by_data_set.items()}
        rows_of_scores = [
            (name, [html_cell(format_x100(of[metric])) for metric in names]) for name, of in by_row.items()
        ]
        lines.append(html_table("scores", heads, rows_of_scores))
        lines.append(
            explanation(
                f"Of {protocol['images']} captions with {protocol['references mean']:.3g} references each, x100, as "
                f"papers print them; tokens: {escape_html(str(protocol['tokenizer']))}."
            )
        )
        exact = ", ".join(f"{name} {share:.1%}" for name, share in scored.report.exact.items())
        lines += [explanation(f"Shares of captions that are right about: {escape_html(exact)}.")] if exact else []
    return "\n".join(lines)


def _list(title: str, lines: Sequence[str]) -> str:
    """A box with lines, folded when there are many; "" without lines."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape_html(line)}</li>" for line in lines)
    folded = f"<details><summary>{len(lines)} lines</summary><ul>{items}</ul></details>"
    return f'<div class="warn" role="note"><b>{title}</b>{folded if len(lines) > 5 else f"<ul>{items}</ul>"}</div>'


def _bar(scored: Scored) -> str:
    """The form that searches and sorts; hidden where no script runs."""
    keys = SORT_KEYS | {f"score{k}": name for k, name in enumerate(scored.ranks[0] if scored.ranks else ())}
    choices = "".join(f'<option value="{value}">{name}</option>' for value, name in keys.items())
    return (
        '<form id="bar" class="bar" hidden><label>find <input id="words" type="search" placeholder="words, file name">'
        f'</label><label>order by <select id="key">{choices}</select></label>'
        '<label><input id="down" type="checkbox"> largest first</label><output id="count"></output></form>'
    )


def _card(place: int, row: Row, medium: Medium, scored: Scored, gallery: Gallery) -> str:
    """A row as HTML: image, captions, scores, references."""
    texts, logprobs = _texts(row), [row["logprob"], *(value for _, value in row.get("others", ()))]
    look, image = card_image(medium, gallery.thumbnail(medium), alt=texts[0])
    several = len(texts) > 1
    lines = []
    for rank, (text, logprob) in enumerate(zip(texts, logprobs, strict=True)):
        number = f"<b>{rank + 1}</b> " if several else ""
        end = "" if rank or row["finished"] else " \u2013 cut off at the length limit"
        sure = "" if rank else _confidence(row)
        shown = "" if logprob is None else f"log p {logprob:.2f}"
        probability = f"<small class=unit>{shown}{sure}{end}</small>".replace("-", MINUS)
        lines.append(f'<p dir="auto">{number}{escape_html(text) or "<i>(empty)</i>"} {probability}</p>')
    facts = {
        "order": place,
        "caption": escape_html(texts[0]),
        **({} if row["logprob"] is None else {"logprob": row["logprob"]}),
        "words": len(texts[0].split()),
    }
    facts |= {"confidence": row["confidence"]} if "confidence" in row else {}
    first = scored.ranks[0] if scored.ranks else {}
    facts |= {f"score{k}": values[place] for k, values in enumerate(first.values()) if place in values}
    data = " ".join(f'data-{name}="{value}"' for name, value in facts.items())
    references = card_references(scored.texts[place]) if place in scored.texts else ""
    name = f'<h3 title="{escape_html(row["file"])}">{escape_html(medium.id, 160)}</h3>'
    return (
        f'<li class="{look}" {data}><div>{image}{name}</div>'
        f"<div>{''.join(lines)}{_card_scores(place, len(texts), scored)}{references}</div></li>"
    )


def _confidence(row: Row) -> str:
    """The confidence of a row's caption, and what else a reader should know; "" without a calibration."""
    sure = f", confidence {row['confidence']:.2f}" if "confidence" in row else ""
    unfamiliar = ", unfamiliar picture" if row.get("unfamiliar") else ""
    withheld = f", withheld: {escape_html(row['withheld'])}" if "withheld" in row else ""
    return f"{sure}{unfamiliar}{withheld}"


def _card_scores(place: int, count: int, scored: Scored) -> str:
    """The scores of a card as a table, a line per caption; "" where there are none."""
    names = list(scored.ranks[0]) if place in scored.texts else []
    if not names:  # the chosen metrics have no scores of single captions
        return ""
    heads = "".join(f"<th>{name}</th>" for name in names)
    lines = ""
    for rank in range(count):
        by_metric = scored.ranks[rank]
        values = "".join(html_cell(format_x100(by_metric[name][place]) if name in by_metric else "") for name in names)
        lines += f"<tr>{row_head(str(rank + 1) if count > 1 else '')}{values}</tr>"
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{lines}</tbody></table>"
