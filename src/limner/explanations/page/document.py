"""The learning page as one HTML file: what is fixed is HTML here, what changes is drawn by `page.js` from the data.

No text of a caption, a file name or a reference is ever HTML: here it is escaped, and the script only sets text.
"""

import json
from importlib.resources import files
from pathlib import Path

from limner.comparison.html import escape_html, explanation, html_document
from limner.core.files import write_text
from limner.explanations.page.content import PageContent
from limner.metrics.breakdown import CaptionBreakdown, breakdown_tables
from limner.metrics.breakdown.tables import BreakdownTable, by_metric

MAX_BYTES = 5_000_000
PAGE = ".html"  # the ending of a page's name

METRICS = {  # what each metric asks, before its numbers
    "BLEU": "How many n-grams of the caption are in a reference? An n-gram counts at most as often as the reference "
    "has it that has it most often (clipping), so that repeating a word does not help. Short captions pay a penalty.",
    "METEOR": "Which words of the caption can be aligned with words of a reference: equal ones, those with the same "
    "stem, synonyms, paraphrases? Few long chunks in the same order are better than many short ones.",
    "ROUGE-L": "How long is the longest sequence of words that caption and reference have in common, in this order, "
    "with gaps allowed?",
    "CIDEr": "Does the caption have the n-grams that the references of this medium have, and those of others lack? "
    "Each n-gram is weighted by its idf; caption and reference are compared by the cosine of their weights.",
}


def write_page(content: PageContent, out: Path) -> None:
    """Write the page, atomically.  Raises ValueError when it would have more than `MAX_BYTES` bytes."""
    text = page_text(content)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise ValueError(
            f"{out} would have {size / 1e6:.1f} MB, and a page has at most {MAX_BYTES / 1e6:.0f}: sample fewer frames "
            "with --frames N"
        )
    write_text(out, text)


def page_text(content: PageContent) -> str:
    """The page as text."""
    data = json.dumps(content.data, separators=(",", ":")).replace("<", "\\u003c")
    title = escape_html(content.caption) or "<i>(empty caption)</i>"
    facts = ", ".join(f"{name}: {escape_html(value, 120)}" for name, value in content.facts.items())
    body = [
        f'<header><h1 dir="auto">{title}</h1>{explanation(facts)}</header>',
        *(f'<p class="warn">{escape_html(note)}.</p>' for note in content.notes),
        '<noscript><p class="warn">This page needs JavaScript for all but the scores; it asks for nothing from the '
        "network.</p></noscript>",
        _words(content),
        _beam() if content.data["beam"] else "",
        _scores(content.breakdown),
        f'<script type="application/json" id="data">{data}</script>',
    ]
    here = files(__package__)
    script, style = ((here / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    return html_document(f"{escape_html(content.caption, 80)} - explained", body, script, style)


def _words(content: PageContent) -> str:
    """The picture with its maps, the words, and what else could have been said."""
    methods = "".join(
        f'<label><input type="radio" name="method" value="{escape_html(name)}"> {escape_html(name)}</label>'
        for name in content.data["maps"]
    )
    return f"""<section aria-labelledby="words-title"><h2 id="words-title">Word by word</h2>
<p class="soft" id="keys">Arrow keys left and right step through the words, 1 to 5 choose another word, Escape goes
back to the first sentence.</p>
<div class="viewer"><div>
<canvas id="picture" role="img" aria-label="the picture"></canvas>
<div id="time-line" hidden><canvas id="strip" aria-hidden="true"></canvas>
<label>Time <input type="range" id="time" min="0" step="1"> <span id="seconds"></span></label></div>
<fieldset id="methods"><legend>Where it looked, by</legend>{methods}</fieldset>
<p class="soft" id="method-note"></p></div>
<div><div id="words" role="group" aria-label="words of the sentence"></div>
<p id="status" aria-live="polite"></p>
<h3 id="alternatives-title">What it could have said here</h3>
<ol id="alternatives" aria-labelledby="alternatives-title"></ol>
<p class="soft">The bars are the probabilities of the next word. A word in a frame can be chosen: the sentence then goes
on from there with the likeliest word at every step.</p>
<p><button type="button" id="back" hidden>Back to the first sentence</button></p></div></div></section>"""


def _beam() -> str:
    return """<section aria-labelledby="beam-title"><h2 id="beam-title">The search</h2>
<p class="soft">At each step the search extends its sentences by every word and keeps the likeliest, as many as the
beam is wide. From left to right: the steps; from top to bottom: the rank within the step. The number is the probability
of the whole sentence up to there. Framed: kept. Filled: on the way to the result. Dashed: dropped.</p>
<div class="wide" id="tree" tabindex="0" role="region" aria-label="the tree of the search; the table below has the same
by step"></div>
<p><label>Step <input type="range" id="step" min="1" step="1"></label> <span id="step-number"></span></p>
<div class="wide" tabindex="0" role="region" aria-label="hypotheses of the step"><table id="step-table" class="text">
<thead><tr><th scope="col">rank</th><th scope="col">sentence so far</th><th scope="col">log-probability</th>
<th scope="col">probability</th><th scope="col">what became of it</th></tr></thead><tbody></tbody></table></div>
<p class="soft" id="beam-note"></p></section>"""


def _scores(found: CaptionBreakdown | None) -> str:
    """The scores and how they come about; what to do where there are no references."""
    title = '<section aria-labelledby="scores-title"><h2 id="scores-title">Scores, match by match</h2>'
    if found is None:
        how = 'give them with --reference "..." or --references FILE'
        return f"{title}{explanation(f'There are no references to score the caption against: {how}.')}</section>"
    references = "".join(f'<li dir="auto">{escape_html(text)}</li>' for text in found.references)
    heads = "".join(f'<th scope="col">{name}</th>' for name in found.scores)
    cells = "".join(f"<td>{100 * score:.1f}</td>" for score in found.scores.values())
    parts = [
        title,
        f"<p>References:</p><ol>{references}</ol>",
        '<div class="wide" tabindex="0" role="region" aria-label="scores"><table id="scores"><caption>Scores of this '
        f"caption, x100</caption><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table></div>",
        *(explanation(escape_html(note) + ".") for note in found.notes),
    ]
    for metric, tables in by_metric(breakdown_tables(found)).items():
        inside = "".join(_table(table) for table in tables)
        parts.append(f"<details><summary>{metric}</summary>{explanation(METRICS[metric])}{inside}</details>")
    return "".join(parts) + "</section>"


def _table(table: BreakdownTable) -> str:
    title = escape_html(table.title)
    lines = "".join(f"<p>{escape_html(line)}</p>" for line in table.lines)
    if not table.rows:
        return f"<h3>{title}</h3>{lines}"
    css = [' class="word"' if table.is_text(place) else "" for place in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col"{kind}>{name}</th>' if name else "<td></td>"
        for name, kind in zip(table.columns, css, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{escape_html(row[0])}</th>'
        + "".join(f"<td{kind}>{escape_html(cell)}</td>" for cell, kind in zip(row[1:], css[1:], strict=True))
        + "</tr>"
        for row in table.rows
    )
    label = f'tabindex="0" role="region" aria-label="{title}"'
    return (
        f'<h3>{title}</h3><div class="wide" {label}><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{lines}"
    )
