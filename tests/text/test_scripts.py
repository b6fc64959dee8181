"""Languages without blanks between words: their tokens, their text, and the notes that ask for them."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import limner
from limner.apps.cli import main
from limner.metrics.report import METRICS
from limner.runs.recipe import Recipe
from limner.runs.recipe_file import save_recipe
from limner.runs.run import load_run
from limner.text.scripts import CHARACTER_TOKENIZERS, caption_notes, has_no_blanks, join_characters
from limner.text.tokens import get_tokenizer
from limner.text.vocabulary import Vocabulary
from tests.training.world import pictures, recipe

CHINESE = ("一只黑狗在草地上奔跑", "两个男人在海滩上踢球", "一个小女孩在吃冰淇淋", "三匹马在雪地里玩耍")


@pytest.mark.parametrize(
    ("text", "by_character", "by_script"),
    [
        ("一只黑狗", "一 只 黑 狗", "一 只 黑 狗"),
        ("在2014年 DVD", "在 2 0 1 4 年 d v d", "在 2014 年 dvd"),
        ("T恤。", "t 恤 。", "t 恤 。"),
        ("狗, (很)快!", "狗 , ( 很 ) 快 !", "狗 -lrb- 很 -rrb- 快"),  # script-runs leaves out what PTB leaves out
        ("犬がラーメンを", "犬 が ラ ー メ ン を", "犬 が ラ ー メ ン を"),
        ("か\u3099", "が", "が"),  # decomposed becomes composed
        ("วิ่ง", "วิ่ ง", "วิ่ ง"),  # vowel and tone signs stay with their letter
        ("ឆ្កែ\u200bខ្មៅ", "ឆ្ កែ ខ្ មៅ", "ឆ្ កែ ខ្ មៅ"),  # Khmer with a zero-width blank between words
        ("𨋢門", "𨋢 門", "𨋢 門"),  # beyond U+FFFF, where the jar's PTB tokens leave it out
        ("A man isn't", "a m a n i s n ' t", "a man is n't"),
        ("검은 개", "검 은 개", "검은 개"),  # Korean has blanks
        ("", "", ""),
    ],
)
def test_tokens(text: str, by_character: str, by_script: str):
    assert get_tokenizer("characters")([text]) == [by_character]
    assert get_tokenizer("script-runs")([text]) == [by_script]


@given(st.text(alphabet="一狗がำิกខ្ dog3.。,́", max_size=12))
def test_the_joined_text_has_the_same_tokens(text: str):
    for name in CHARACTER_TOKENIZERS:
        tokens = get_tokenizer(name)([text])[0]
        assert all(token.split() == [token] for token in tokens.split(" ") if token)
        if name == "characters" or not set("3.,'") & set(text):  # PTB tokens such as "3.dog" depend on their neighbours
            assert get_tokenizer(name)([join_characters(tokens.split(" "), name)])[0] == tokens


def test_a_vocabulary_writes_chinese_without_blanks(tmp_path: Path):
    words = Vocabulary.build([*CHINESE, "一只 dog runs"], 1, "script-runs")
    assert words.decode(words.encode("一只 Dog runs")) == "一只dog runs"
    assert words.decode(words.encode("一只黑狗在奔跑")) == "一只黑狗在奔跑"
    assert words.word_pieces("黑狗") == [("黑",), ("狗",)]
    assert Vocabulary.build(["一 只"], 1, "ptb").decode([4, 5]) == "一 只"  # any other tokenizer keeps its blanks


@pytest.mark.parametrize(
    ("caption", "flagged"),
    [
        *((caption, True) for caption in CHINESE),
        ("犬が公園で走っています", True),
        ("สุนัขสีดำวิ่งบนสนามหญ้า", True),
        ("ឆ្កែខ្មៅកំពុងរត់", True),
        ("ကလေးတစ်ယောက်ပြေးနေသည်", True),
        ("一 只 黑 狗 在 草 地 上", False),  # by character
        ("一只 黑狗 在 草地 上 奔跑", False),  # by word
        ("สุนัข สี ดำ วิ่ง บน สนาม หญ้า", False),
        ("검은 개가 잔디밭에서 달린다", False),
        ("كلب أسود يلعبان", False),
        ("एक बिल्ली", False),
        ("một con chó", False),
        ("a man holds a sign 出口", False),
    ],
)
def test_which_captions_have_no_blanks(caption: str, flagged: bool):
    assert has_no_blanks(caption) is flagged
    assert bool(caption_notes([caption], "ptb")) is flagged
    assert not caption_notes([caption], "characters")


def test_a_few_captions_among_many_give_no_note():
    assert not caption_notes([CHINESE[0], *["a dog"] * 10], "ptb")
    assert caption_notes([CHINESE[0], *["a dog"] * 9], "split", "--x")[0].endswith(
        f"for example '{CHINESE[0]}': the tokenizer 'split' takes each run of them for one word; --x characters makes "
        "every character a token, --x script-runs does so for such scripts only and keeps the words of others"
    )


def test_decomposed_beside_composed_is_noted():
    (note,) = caption_notes(["cho\u0301 đen", "ch\u00f3 đen", "dog"], "ptb")
    assert note.startswith("1 of 3 captions are in Unicode's decomposed form (NFD) and others in the composed form")
    assert not caption_notes(["cho\u0301 đen", "dog"], "ptb")  # all accents in one form
    assert not caption_notes(["cho\u0301 đen", "ch\u00f3 đen"], "simple")  # which composes them


# --- Commands ---------------------------------------------------------------------------------------------------------

CANDIDATES = {"1": "一只黑狗在草地上奔跑", "2": "两个男人在海滩上踢球", "3": "一个女孩在吃冰淇淋"}
REFERENCES = {
    "1": ["一只黑色的狗在草地上奔跑", "草地上有一只正在奔跑的黑狗"],
    "2": ["两个男人在海滩上踢足球", "海滩上的两个男人正在踢球"],
    "3": ["一个小女孩在吃冰淇淋", "小女孩吃着冰淇淋"],
}


def score(folder: Path, *more: str) -> dict[str, float]:
    for name, content in (("c", CANDIDATES), ("r", REFERENCES)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    given = ["--candidates", str(folder / "c.json"), "--references", str(folder / "r.json"), "--overwrite"]
    metrics = ["--metrics", "BLEU-1,BLEU-4,ROUGE-L,CIDEr-D"]
    assert main(["score", *given, *metrics, "--out", str(folder / "s.json"), *more]) == 0
    return json.loads((folder / "s.json").read_text())["scores"]


@pytest.mark.parametrize("tokenizer", CHARACTER_TOKENIZERS)
def test_scores_are_those_of_pycocoevalcap_on_separated_characters(tokenizer: str, tmp_path: Path, capsys):
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates = {id: [" ".join(text)] for id, text in CANDIDATES.items()}
    references = {id: [" ".join(text) for text in texts] for id, texts in REFERENCES.items()}
    bleu = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    expected = {"BLEU-1": bleu[0], "BLEU-4": bleu[3], "ROUGE-L": Rouge().compute_score(references, candidates)[0]}
    expected["CIDEr-D"] = Cider().compute_score(references, candidates)[0]
    assert score(tmp_path, "--tokenizer", tokenizer) == pytest.approx(expected, abs=1e-12)
    assert "no blanks" not in capsys.readouterr().err


@pytest.mark.parametrize("tokenizer", ["split", "ptb"])
def test_tokenised_files_score_as_with_pycocoevalcap(tokenizer: str, tmp_path: Path):
    """Captions that a tokenizer wrote are split at blanks by both tokenizers, as pycocoevalcap does."""
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    words = ("a", "man", "'s", "red", "dog", "does", "n't", "run", "in", "snow", "ca", "two", "t-shirt", "1/2", "u.s.")
    rng = random.Random(0)
    line = lambda: " ".join(rng.choices(words, k=rng.randint(3, 12)))  # noqa: E731
    references = {str(k): [line() for _ in range(3)] for k in range(20)}
    candidates = {id: [texts[0] if int(id) % 3 == 0 else line()] for id, texts in references.items()}
    (tmp_path / "c.json").write_text(json.dumps({id: texts[0] for id, texts in candidates.items()}))
    (tmp_path / "r.json").write_text(json.dumps(references))
    report = limner.score(tmp_path / "c.json", tmp_path / "r.json", tokenizer=tokenizer)
    bleu = Bleu(4).compute_score(references, candidates, verbose=0)[0]
    others = [metric.compute_score(references, candidates)[0] for metric in (Rouge(), Cider())]
    names = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
    assert [report.scores[name] for name in names] == pytest.approx([*bleu, *others], abs=1e-12)


def test_scores_of_whole_sentences_come_with_a_note(tmp_path: Path, capsys):
    assert score(tmp_path)["BLEU-1"] < 1e-6
    assert "note: 9 of 9 captions have no blanks between words" in capsys.readouterr().err


def chinese_recipe(folder: Path, tokenizer: str) -> Recipe:
    data = pictures(folder, 4, captions=CHINESE)
    return recipe(data, ("vocabulary.tokenizer", tokenizer), ("decoding.rules.max_length", 12), batch_size=1)


def test_training_and_evaluating_by_character(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METRICS, "METEOR", METRICS["ROUGE-L"])  # its tables are large
    save_recipe(chinese_recipe(tmp_path / "data", "characters"), tmp_path / "r.json")
    assert main(["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]) == 0
    assert "no blanks" not in "".join(capsys.readouterr())
    words = load_run(tmp_path / "run").vocabulary
    assert set(words.words[4:]) == set("".join(CHINESE))
    assert main(["evaluate", str(tmp_path / "run"), "--split", "val", "--report", str(tmp_path / "r.html")]) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["protocol"]["tokenizer"].startswith("characters ")
    assert all(" " not in row["caption"] for row in scores["segments"])
    assert "no blanks" not in capsys.readouterr().err
    again = ["--split", "val", "--tokenizer", "ptb", "--out", str(tmp_path / "again")]
    assert main(["evaluate", str(tmp_path / "run"), *again]) == 0
    assert "captions have no blanks between words" in capsys.readouterr().err


def test_training_on_whole_sentences_warns(tmp_path: Path, capsys):
    save_recipe(chinese_recipe(tmp_path / "data", "ptb"), tmp_path / "r.json")
    assert main(["train", str(tmp_path / "r.json"), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "warning: 7 of 7 captions have no blanks between words" in said
    assert "--vocabulary.tokenizer characters makes every character a token" in said
