"""The page in a real Chromium that reaches this machine only: files, words, comparison, batches, keyboard, phone."""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.shared.journal import finished_rows
from limner.explanations.video import write_mp4
from limner.inference.pipeline import Pipeline
from limner.service.app import Settings
from tests.browser import CHROMIUM, Page, chromium, faults
from tests.service.world import images, served

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]

HOSTILE = "<img src=x onerror=alert(1)>"
READY = "document.body.dataset.ready"
WORDS = "document.querySelector('.words')"
TEXTS = "[...document.querySelectorAll('{}')].map(e => e.textContent)"
FOCUSED = "document.activeElement.id || document.activeElement.textContent"


@pytest.fixture(scope="module")
def address(pipeline: Pipeline) -> Iterator[str]:
    """A service with two models, one of which has a hostile name."""
    with served({"tiny": pipeline, HOSTILE: pipeline}) as found:
        yield found


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(tab: Page, address: str) -> Iterator[Page]:
    """The page, just opened; afterwards nothing was complained of, and nothing asked of other hosts."""
    tab.requests.clear()
    tab.complaints.clear()
    tab.open(f"{address}/")
    tab.until(READY)
    yield tab
    assert tab.complaints == []
    assert [asked for asked in tab.requests if not asked.startswith((f"{address}/", f"blob:{address}/"))] == []


@pytest.fixture(scope="module")
def picture(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of the micro-world with a name that would be markup."""
    path = tmp_path_factory.mktemp("pictures") / f"{HOSTILE}.png"
    path.write_bytes(images(tiny, 1)[0].read_bytes())
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 seconds that turn from red to green, 4 frames a second."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    frames = (np.full((32, 32, 3), (220 - k, 20 + k, 20), np.uint8) for k in range(160))
    return write_mp4(path, frames, fps=4)


def test_step_through_the_words_of_a_picture(page: Page, picture: Path, pipeline: Pipeline):
    page.choose_files("#file-one", picture)
    page.until(WORDS)
    expected = pipeline.caption(picture, n_best=2)
    assert page.ask(TEXTS.format(".caption")) == [expected.text]
    assert page.ask(TEXTS.format(".scores td:first-child")) == [expected.text, expected.others[0].text]
    assert page.ask(TEXTS.format(".scores td:nth-child(2)"))[0] == f"{expected.logprob:.2f}".replace("-", "\u2212")
    assert page.ask(TEXTS.format(".words button")) == list(expected.words)
    seen = []
    for number, word in enumerate(expected.words):
        page.ask(f"document.querySelectorAll('.words button')[{number}].click()")
        note = page.ask("document.querySelector('.note').textContent")
        assert note.startswith(f"Word {number + 1} of {len(expected.words)}: \u201c{word}\u201d, probability ")
        assert page.ask("document.querySelector('.picture').getAttribute('aria-label')").startswith("Map of the word")
        seen.append(page.ask("document.querySelector('.picture').toDataURL()"))
    assert len(set(seen)) > 1
    page.ask("document.querySelector('.maps [type=checkbox]').click()")  # without the map: the picture itself
    bare = page.ask("document.querySelector('.picture').toDataURL()")
    assert bare not in seen
    page.ask(
        "const s = document.querySelector('#side-a-method'); s.value = 'gradcam'; s.dispatchEvent(new Event('change'))"
    )
    page.until(
        "document.querySelector('.picture') && document.querySelector('.picture').toDataURL() != " + json.dumps(bare)
    )
    assert HOSTILE in page.ask("document.querySelector('.history').textContent")
    page.ask("document.querySelectorAll('.scores button')[1].click()")
    page.until(
        f"document.querySelector('.maps').textContent.startsWith({json.dumps('Maps of: ' + expected.others[0].text)})"
    )
    assert faults(page) == []


def test_two_models_and_a_clip_side_by_side(page: Page, film: Path, picture: Path):
    page.ask("document.querySelector('#compare').click()")
    page.ask("const s = document.querySelector('#side-b-beam'); s.value = '1'")
    page.choose_files("#file-one", film)
    page.until("document.querySelectorAll('.frames').length == 2")
    assert page.ask(TEXTS.format(".side > h2")) == ["tiny", HOSTILE]
    assert page.ask("[...document.querySelectorAll('.frames')].map(e => e.children.length)") == [4, 4]
    assert page.ask("document.querySelectorAll('.scores')[1].rows.length") == 2  # greedy: the head and one caption
    chosen = "[...document.querySelector('.frames').children].map(e => e.getAttribute('aria-pressed'))"
    page.ask("document.querySelector('.frames').lastChild.click()")
    assert page.ask(chosen) == ["false", "false", "false", "true"]
    bars = page.ask("[...document.querySelectorAll('.side:first-child .bar')].map(e => parseFloat(e.style.height))")
    assert max(bars) == 100 and len(bars) == 4
    assert faults(page) == []
    page.ask("document.querySelector('#compare').click()")
    page.choose_files("#file-one", picture)
    page.until("document.querySelectorAll('.side').length == 1")
    page.ask("document.querySelectorAll('.history button')[1].click()")
    assert page.ask("document.querySelectorAll('.side').length") == 2


def test_a_long_clip_in_parts_with_a_progress_bar(page: Page, film: Path):
    page.ask("""const seen = window.seen = []; const bar = document.querySelector('#progress-one');
        new MutationObserver(() => seen.push(bar.value)).observe(bar, {attributes: true});
        document.querySelector('#cut').value = 'every'""")
    page.choose_files("#file-one", film)
    page.until(WORDS)
    assert page.ask("document.querySelector('#busy-one').hidden")
    assert {0.125, 0.25, 0.375, 0.5} & set(page.ask("window.seen"))  # lines that come together are shown as one
    assert page.ask("document.querySelectorAll('.pieces button').length") == 8
    page.ask("document.querySelectorAll('.pieces button')[7].click()")
    assert "Part 8 of 8, 0:35.0 \u2013 0:40.0" in page.ask("document.querySelector('.side').textContent")
    assert page.ask(FOCUSED).startswith("0:35.0 to 0:40.0: ")


def test_bad_files_are_named_in_plain_words(page: Page, tmp_path: Path):
    large = "It has 33.0 MB; this service takes at most 32 MB at a time."
    for content, reason in ((b"<!doctype html>", "it is a web page, not what it shows"), (b"", "empty"),
                            (bytes(33 << 20), large)):  # fmt: skip
        bad = tmp_path / f"photo{len(content)}.jpg"
        bad.write_bytes(content)
        page.ask("document.querySelector('#error-one').textContent = ''")
        page.choose_files("#file-one", bad)
        page.until("document.querySelector('#error-one').textContent")
        told = page.ask("document.querySelector('#error-one').textContent")
        assert told.startswith(f"{bad.name} cannot be captioned.") and reason in told
        page.until("document.querySelector('#busy-one').hidden")


def test_captions_of_a_batch_are_corrected_and_downloaded(page: Page, picture: Path, film: Path, tmp_path: Path):
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    bad, formula, twin = tmp_path / "bad.jpg", tmp_path / "=1+1.png", tmp_path / "film.png"
    bad.write_bytes(b"no image")
    formula.write_bytes(picture.read_bytes())
    twin.write_bytes(picture.read_bytes())
    page.ask("document.querySelector('#tab-batch').click()")
    page.choose_files("#file-batch", picture, formula, bad, film, twin)
    page.until("document.querySelectorAll('textarea').length == 4 && document.querySelector('#busy-batch').hidden")
    assert "1 of 5 files have no caption." in page.ask("document.querySelector('#error-batch').textContent")
    assert "bad.jpg: " in page.ask("document.querySelector('#batch .failed').textContent")
    corrected = '=cmd, "quoted"'
    page.ask(f"""const area = document.querySelectorAll('textarea')[1]; area.value = {json.dumps(corrected)};
        area.dispatchEvent(new Event('input'))""")
    assert "corrected by hand" in page.ask("document.querySelector('#batch').textContent")
    assert faults(page) == []
    for name in ("csv", "jsonl", "zip"):
        page.ask(f"document.querySelector('#save-{name}').click()")
    files = [tmp_path / name for name in ("captions.csv", "captions.jsonl", "sidecars.zip")]
    while not all(file.exists() for file in files):
        page.ask("1")
    assert '\n\'=1+1.png,"\'=cmd, ""quoted""",,True,' in files[0].read_text()
    rows = finished_rows(files[0])
    assert rows == finished_rows(files[1])
    assert [row["file"] for row in rows] == [picture.name, formula.name, film.name, twin.name]
    assert rows[1]["caption"] == corrected and rows[1]["logprob"] is None and rows[2]["end"] == 40.0
    with zipfile.ZipFile(files[2]) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{HOSTILE}.txt", "=1+1.txt", "film.mp4.txt", "film.png.txt"]
        assert archive.read("=1+1.txt").decode() == corrected + "\n"
    page.ask("document.querySelector('#batch tbody button').click()")
    assert page.ask(FOCUSED) and page.ask("document.querySelectorAll('textarea').length") == 3
    page.ask("document.querySelector('#clear-batch').click()")
    assert page.ask("document.querySelector('#batch').hidden")


def test_names_in_a_zip_stay_inside_its_folder(page: Page):
    """A name that climbs out, one with a drive, control characters, and two that would be the same file."""
    script = """import('/page/exports.js').then(async ({toZip}) => {
        const names = ['../../up.jpg', 'C:\\\\x\\\\y.png', '/etc/z.png', 'a\\u0007\\n.png', 'é.png', '..',
            'a_.png', 'a__.png'];
        const bytes = new Uint8Array(await toZip(names.map(file => ({file, caption: file}))).arrayBuffer());
        return btoa(String.fromCharCode(...bytes)); })"""
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(page.ask(script)))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "up.txt", "C/x/y.txt", "etc/z.txt", "a__.png.txt", "\u00e9.txt", "unnamed.txt", "a_.txt", "a__.png (2).txt"
        ]  # fmt: skip


def test_pasted_and_dropped_files(page: Page, picture: Path, pipeline: Pipeline):
    content = base64.b64encode(picture.read_bytes()).decode()
    script = """const bytes = Uint8Array.from(atob('{content}'), c => c.charCodeAt(0)), data = new DataTransfer();
        for (const name of {names}) data.items.add(new File([bytes], name, {{type: 'image/png'}}));
        document.body.dispatchEvent(new {event}('{kind}', {{{field}: data, bubbles: true, cancelable: true}}))"""
    paste = {"event": "ClipboardEvent", "kind": "paste", "field": "clipboardData"}
    drop = {"event": "DragEvent", "kind": "drop", "field": "dataTransfer"}
    page.ask("{" + script.format(content=content, names='["image.png"]', **paste) + "}")
    page.until(WORDS)
    assert page.ask(TEXTS.format(".caption")) == [pipeline.caption(picture).text]
    page.ask("{" + script.format(content=content, names='["a.png", "b.png"]', **drop) + "}")
    page.until("document.querySelectorAll('textarea').length == 2")
    assert page.ask("document.querySelector('#panel-one').hidden")


def test_everything_works_with_the_keyboard_alone(page: Page):
    assert page.ask("document.querySelectorAll('.examples button').length") >= 2
    page.press("Tab")
    assert page.ask(FOCUSED) == "Skip to the content"
    page.press("Tab")
    assert page.ask(FOCUSED) == "tab-one"
    page.press("ArrowRight")
    assert page.ask(FOCUSED) == "tab-batch" and page.ask("document.querySelector('#panel-one').hidden")
    page.press("Home")
    assert page.ask(FOCUSED) == "tab-one"
    page.press("Tab")
    assert page.ask(FOCUSED) == "file-one"
    page.press("Tab", "Enter")  # the first example
    page.until(WORDS)
    for _ in range(60):
        page.press("Tab")
        if page.ask("document.activeElement.closest('.words') != null"):
            break
    first = page.ask(FOCUSED)
    assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert first == page.ask("document.querySelector('.words [aria-pressed=true]').textContent")
    page.press("End")
    assert page.ask("document.activeElement == document.querySelector('.words').lastChild")
    assert page.ask("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.press("ArrowLeft", "Home")
    assert page.ask("document.activeElement == document.querySelector('.words').firstChild")
    page.press("Tab", "Tab", " ")  # next word
    assert page.ask("document.querySelectorAll('.words button')[1].getAttribute('aria-pressed')") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_in_one_column(tab: Page, address: str, picture: Path, film: Path, scheme: str):
    tab.open(f"{address}/", width=360, height=740, scheme=scheme)
    tab.until(READY)
    tab.ask("document.querySelector('#compare').click()")
    tab.choose_files("#file-one", film)
    tab.until("document.querySelectorAll('.frames').length == 2")
    width = "document.documentElement.scrollWidth"
    assert tab.ask(width) == 360 and faults(tab) == []
    tab.ask("document.querySelector('#tab-batch').click()")
    tab.choose_files("#file-batch", picture, film)
    tab.until("document.querySelectorAll('textarea').length == 2 && document.querySelector('#busy-batch').hidden")
    assert tab.ask(width) == 360 and faults(tab) == []
    assert (tab.ask("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 26)") == (scheme == "dark")


def test_a_service_with_a_token_asks_for_it(tab: Page, pipeline: Pipeline, picture: Path):
    with served(pipeline, Settings(token="s3cret")) as address:
        tab.open(f"{address}/")
        tab.until("document.querySelector('dialog').open")
        assert tab.ask(FOCUSED) == "token" and faults(tab) == []
        for token in ("wrong", "s3cret"):
            tab.until("document.querySelector('dialog').open")
            tab.call("Input.insertText", text=token)
            tab.press("Enter")
        tab.until(READY)
        tab.choose_files("#file-one", picture)
        tab.until(WORDS)
    assert all("401" in told for told in tab.complaints)  # the browser's own word about the two refusals
    tab.complaints.clear()


def test_a_service_that_has_gone_is_told(tab: Page, pipeline: Pipeline, picture: Path):
    with served(pipeline) as address:
        tab.open(f"{address}/")
        tab.until(READY)
    tab.choose_files("#file-one", picture)
    tab.until("document.querySelector('#error-one').textContent")
    assert "The service does not answer. Is it still running?" in tab.ask(
        "document.querySelector('#error-one').textContent"
    )


def test_the_attention_of_a_corner_is_painted_there(page: Page):
    """A map with all weight in the lower right cell colours that corner and leaves the opposite one as it was."""
    grey = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(grey, "PNG")
    frame = f"data:image/png;base64,{base64.b64encode(grey.getvalue()).decode()}"
    data = {
        "caption": "x", "method": "attention", "kept_region": [0, 0, 1, 1], "regions": None,
        "frames": [{"seconds": None, "image": frame}],
        "words": [{"word": "x", "probability": 1, "map": [[[0, 0], [0, 1]]], "shown": [[[0, 0], [0, 1]]]}],
    }  # fmt: skip
    script = f"""import('/page/viewer.js').then(async ({{Viewer}}) => {{
        const viewer = new Viewer({json.dumps(data)});
        await viewer.ready;
        return [viewer.canvas.toDataURL(), viewer.note.textContent]; }})"""
    url, note = page.ask(script)
    painted = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    assert painted.getpixel((2, 2)) == (128, 128, 128)
    hottest = [0.25 * 128 + 0.75 * part for part in (160, 17, 1)]  # which covers 75 %
    assert painted.getpixel((61, 61)) == pytest.approx(hottest, abs=10)  # browsers enlarge by a cubic, which overshoots
    assert note.endswith("It depends most on the lower right; half of the weight lies in 25 % of the picture.")
