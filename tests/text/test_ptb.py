"""PTB tokens: the rules' examples, unusual cases, the cache compared with plain splitting, and the jar's answers.

Tests marked `java` ask the jar; the others use its answers in ptb_answers.json.
"""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limner.text import ptb
from limner.text.tokens import get_tokenizer
from tests.text.hard_strings import NOISE, hard_strings
from tests.text.jar import ANSWERS, jar_isolated, jar_tokenize, pycocoevalcap

SEED = int(os.environ.get("LIMNER_SEED", "1"))
SHARED = Path(os.environ.get("LIMNER_SHARED", Path(__file__).parents[3] / "shared"))
EXAMPLES = [tuple(rule.example.split(" -> ")) for rule in ptb.RULES]

# One line each of what docs/guides/ptb.md promises
QUIRKS = {
    "A man isn't riding a T-shirt, (very) fast.": "a man is n't riding a t-shirt -lrb- very -rrb- fast",
    'You cannot go: I\'m gonna say "no way"!': "you can not go i 'm gon na say no way",
    "[x] {y} (z) !! ?!": "-lsb- x -rsb- -lcb- y -rcb- -lrb- z -rrb- !! ?!",
    "a smiley ;) and :-(": "a smiley ;-rrb- and :--lrb-",
    "sheep penn. can.; bat.,": "sheep penn. can. bat.",
    "Hawai'i ho'ohu 'em 'til '80s ol' Dunkin' x'y": "hawai'i ho'ohu 'em 'til '80s ol' dunkin' x y",
    "gotta gimme lemme 'twas y'all n`t": "got ta gim me lem me 't was y' all n`t",
    "don’t he’s": "do n't he 's",
    "and/or walk/don't w/ ham": "and/or walk/don t w / ham",
    "AT&T M&M a&b": "at&t m&m a & b",
    "word.Word john@x.com #hashtag <tag>": "word.word john@x.com #hashtag <tag>",
    "10:30am 10am 6-8:30 5.30pm 3.5x": "10:30 am 10am 6-8 :30 5.30 pm 3.5 x",
    "£5 €5 5¢ ½ … ...": "# 5 $ 5 5 cents 1/2",
    "4 1/2 cups": "4\xa01/2 cups",
    "U.S.-based 6,000-point c'est « x » café/bar": "u.s.-based 6,000-point c'est x café / bar",
    "ΣΚΥΛΟΣ ΟΔΟΣ-Α ΣΑΣ5": "σκυλος οδοσ-α σας5",
    "एक बिल्ली 一只狗。 собака 😀": "एक बिल्ली 一只狗 。 собака",
    ". . . .1st ^ . .1st": "1st ^ .1 st",
    "a man -lrb- left -RRB- rides (-lcb-)": "a man -lrb- left -rrb- rides -lrb- -lcb- -rrb-",
    "x-lrb- -lrb-left-rrb- -Lsb-y": "x-lrb -lrb- left-rrb -lsb- y",
    "state-of-the-art/new a-b-c/d": "state-of-the-art / new a-b-c/d",
    "toy/jack-in-the-box a/b/c-d-e-f": "toy/jack-in-the box a/b/c-d-e f",
    "AT&AMP;T A&B&Amp;C AT&AMP": "at&t a&b&c at&amp",
    "x₂² H₂O ²²₃₃": "x ₂ ² h ₂ o ²² ₃₃",
    "\\*\\* \\*\\*\\* \\**": "\\*\\* \\*\\*\\* \\* *",
    "'tİl gımme thurſ. he'ſ &nbſp; Kelvin'tKl": "'ti̇l gım me thurſ. he ſ kelvi n'tkl",
    "": "",
    " \t. , !": "",
    "…": "",
}


def plainly(lines: list[str], isolated: bool) -> Iterator[str]:
    """A plain version to compare with: every line is split with all following lines behind it, without a cache."""
    lines = ptb._clean_lines(lines)
    for i, line in enumerate(lines):
        after = "\n" if isolated else "".join(f"\n{later}" for later in lines[i + 1 :])
        yield ptb.SURROGATES.sub(
            ptb._from_surrogates, ptb._remove_punctuation(ptb.split_tokens(line + after, len(line)))
        )


@pytest.mark.parametrize(("text", "tokens"), EXAMPLES)
def test_a_rule_does_what_its_example_says(text: str, tokens: str):
    assert ptb.tokenize([text], isolated=True) == [tokens]


@pytest.mark.parametrize("place", range(len(ptb.RULES)), ids=lambda place: EXAMPLES[place][0])
def test_no_rule_can_be_spared(place: int, monkeypatch: pytest.MonkeyPatch):
    """Without the rule, its example gives other tokens."""
    rest = tuple(rule for i, rule in enumerate(ptb._compiled()) if i != place)
    monkeypatch.setattr(ptb, "_compiled", lambda: rest)
    text, tokens = EXAMPLES[place]
    assert [*plainly([text], isolated=True)] != [tokens]


@pytest.mark.parametrize(("caption", "tokens"), QUIRKS.items())
def test_quirks(caption: str, tokens: str):
    assert ptb.tokenize([caption], isolated=True) == [tokens]


def test_the_next_caption_decides_about_a_stop():
    captions = ["reads K.", "The", "reads K.", "", " \u00a0", "He ran", "No.", "5 dogs", "no.", "dogs", "K.", "The"]
    together = ["reads k", "the", "reads k", "", "", "he ran", "no.", "5 dogs", "no", "dogs", "k.", "the"]
    assert ptb.tokenize(captions) == together  # the last "The" ends the file, so no white space follows it
    alone = ["reads k.", "the", "reads k.", "", "", "he ran", "no", "5 dogs", "no", "dogs", "k.", "the"]
    assert ptb.tokenize(captions, isolated=True) == alone


def test_the_end_of_the_file():
    """The rules for emoticons and file names need a character behind them; the last caption has none."""
    assert ptb.tokenize([":)", "5.jpg", ":)"]) == [":-rrb-", "5.jpg", "-rrb-"]
    assert ptb.tokenize([":)"]) == ["-rrb-"] and ptb.tokenize([":)"], isolated=True) == [":-rrb-"]
    assert ptb.tokenize([]) == []


@pytest.mark.parametrize("mark", ptb.LINE_BREAKS)
def test_a_line_break_inside_a_caption_is_a_blank(mark: str):
    for isolated in (False, True):
        assert ptb.tokenize([f"a dog{mark}runs", f"{mark}", "a cat"], isolated) == ["a dog runs", "", "a cat"]


def test_what_cannot_be_encoded_or_read():
    found = ptb.tokenize(["a\x00b", "a \ud800 dog\udfff", "http://x.y/\ud83d", "x😀y http://x.y/😀𐐀", "dog"])
    assert found == ["a b", "a dog", "http://x.y/\ufffd", "x y http://x.y/😀𐐨", "dog"]
    assert "\n".join(found).encode()


def test_long_captions():
    many = " ".join(["a dog's", "K.", "The", "4 1/2"] * 2_500)
    assert ptb.tokenize([many, "x"])[0] == " ".join(["a dog 's", "k", "the", "4\xa01/2"] * 2_500)
    assert ptb.tokenize(["a-" * 10_000, "x"])[0].split() == ["-".join("a" * 10_000)]


def test_blanks_at_the_end_of_a_line_go_even_inside_a_token():
    """coco-caption strips the line, and an address may end in a no-break space."""
    assert ptb.tokenize(["http://xy\xa0 x", "http://xy\xa0"], isolated=True) == ["http://xy\xa0 x", "http://xy"]


CAPTION = st.one_of(st.text(max_size=30), *(st.text(alphabet=noise, max_size=20) for noise in NOISE))


@given(st.lists(CAPTION, max_size=5))
@example(["x K.\xa0", "", "The dog"])
@example(["w/ a 10", "1/2", "(555)", "123-4567 . . .5"])
def test_the_fast_way_is_the_plain_way(captions: list[str]):
    for isolated in (False, True):
        assert ptb.tokenize(captions, isolated) == [*plainly(captions, isolated)]


def test_the_fast_way_is_the_plain_way_on_hard_strings():
    captions = hard_strings(300, SEED)
    for isolated in (False, True):
        assert ptb.tokenize(captions, isolated) == [*plainly(captions, isolated)]


@given(st.lists(CAPTION, max_size=5))
def test_isolated_captions_do_not_see_each_other(captions: list[str]):
    assert ptb.tokenize(captions, isolated=True) == [ptb.tokenize([c], isolated=True)[0] for c in captions]


def test_a_full_cache_is_emptied(monkeypatch: pytest.MonkeyPatch):
    captions = hard_strings(100, SEED)
    expected = ptb.tokenize(captions)
    small = ptb._ChunkCache()
    monkeypatch.setattr(ptb, "MAX_CACHED_CHUNKS", 10)
    monkeypatch.setattr(ptb, "_chunk_cache", lambda: small)
    assert ptb.tokenize(captions) == expected and len(small) <= 10


def test_names():
    captions = ["vitamin K.", "The dog"]
    assert (
        get_tokenizer("ptb")(captions)[0] == "vitamin k" and get_tokenizer("ptb-isolated")(captions)[0] == "vitamin k."
    )


def test_the_jars_answers():
    answers = json.loads(ANSWERS.read_text(encoding="utf-8"))
    assert ptb.tokenize(answers["captions"]) == answers["together"]
    assert ptb.tokenize(answers["captions"], isolated=True) == answers["isolated"]


# --- The jar ---------------------------------------------------------------------------------------------------------


@pytest.mark.java
def test_the_answers_are_the_jars():
    answers = json.loads(ANSWERS.read_text(encoding="utf-8"))
    assert jar_tokenize(answers["captions"]) == answers["together"]
    assert jar_isolated(answers["captions"]) == answers["isolated"]
    assert jar_isolated([*QUIRKS]) == [*QUIRKS.values()]
    assert jar_isolated([text for text, _ in EXAMPLES]) == [tokens for _, tokens in EXAMPLES]


@pytest.mark.java
def test_the_jar_at_the_end_of_a_file():
    for captions in [[":)"], [":)", ":)"], ["5.jpg"], ["K. The"], ["co.5"], ["x", "co.x"], ["etc."], ["no.", ""]]:
        assert ptb.tokenize(captions) == jar_tokenize(captions)


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.parametrize("seed", [SEED, SEED + 1000])
def test_hard_strings(seed: int):
    captions = hard_strings(20_000, seed)
    together = ptb.tokenize(captions), jar_tokenize(captions)
    alone = ptb.tokenize(captions, isolated=True), jar_isolated(captions)
    for ours, jars in (together, alone):
        assert [row for row in zip(captions, ours, jars, strict=True) if row[1] != row[2]] == []


@pytest.mark.java
@pytest.mark.slow
def test_every_character():
    """All of the first Unicode plane alone and inside words; what lies beyond is skipped."""
    codes = [code for code in range(0x20, 0x10000) if not 0xD800 <= code < 0xE000 and chr(code) not in ptb.LINE_BREAKS]
    for around in ["{}", "x{}x", "5{}5 x-{}x {}.", "K.{}The x :){}"]:
        captions = [around.replace("{}", chr(code)) for code in codes]
        assert ptb.tokenize(captions, isolated=True) == jar_isolated(captions)


def captions_of(name: str) -> list[str]:
    if name in ("train2014", "val2014"):
        with zipfile.ZipFile(pycocoevalcap() / "spice" / "spice-1.0.jar") as spice:
            file = json.loads(spice.read(f"coco/annotations/captions_{name}.json"))
        return [annotation["caption"] for annotation in file["annotations"]]
    if not SHARED.is_dir():
        pytest.skip("no real data beside the project")
    if name == "flickr8k":
        file = json.loads((SHARED / "data/flickr8k/dataset_flickr8k.json").read_text(encoding="utf-8"))
        return [sentence["raw"] for image in file["images"] for sentence in image["sentences"]]
    if name.startswith("msvd"):
        text = (SHARED / "data/msvd" / f"{name.replace('msvd', 'sents')}_lc_nopunc.txt").read_text(encoding="utf-8")
        return [line.split("\t", 1)[1] for line in text.splitlines()]
    with zipfile.ZipFile(SHARED / "data/msrvtt" / name) as archive:
        (inner,) = [entry for entry in archive.namelist() if entry.endswith(".json") and "__MACOSX" not in entry]
        return [sentence["caption"] for sentence in json.loads(archive.read(inner))["sentences"]]


OURS = ["flickr8k", "train_val_annotation.zip", "test_videodatainfo.json.zip", "msvd_train", "msvd_val", "msvd_test"]


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.parametrize("name", ["val2014", "train2014", *(pytest.param(n, marks=pytest.mark.data) for n in OURS)])
def test_every_caption(name: str):
    captions = captions_of(name)
    jars = jar_tokenize([caption.replace("\n", " ") for caption in captions])
    assert [row for row in zip(captions, ptb.tokenize(captions), jars, strict=True) if row[1] != row[2]] == []
