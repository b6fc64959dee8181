import gzip
import itertools
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from limner.metrics.meteor import MissingTablesError, convert, meteor_lines, tables, why_unavailable
from limner.metrics.meteor.keys import extend_key, word_keys
from limner.metrics.meteor.tables import DamagedTablesError, Tables, load_tables, open_tables
from tests.metrics.meteor.conftest import EXCEPTIONS, FUNCTION, SYNSETS, paraphrases


def key(phrase: str) -> int:
    found = np.zeros(1, dtype=np.uint64)
    for word in phrase.split(" "):
        found = extend_key(found, word_keys([word]))
    return int(found[0])


def number(found: Tables, phrase: str) -> int:
    place = int(np.searchsorted(found.phrase, np.uint64(key(phrase))))
    assert found.phrase[place] == key(phrase)
    return place


def folders(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def test_paraphrases_are_those_of_the_file_in_its_order(little: Tables) -> None:
    phrases = {phrase for pair in paraphrases() for phrase in pair}
    numbers = {phrase: number(little, phrase) for phrase in phrases}
    assert len(little.phrase) == len(set(numbers.values())) == len(phrases)
    for phrase, row in numbers.items():
        expected = [numbers[second] for first, second in paraphrases() if first == phrase]
        here = slice(little.paraphrase_start[row], little.paraphrase_start[row + 1])
        assert little.paraphrase[here].tolist() == expected
        sources = slice(little.source_start[row], little.source_start[row + 1])
        for source, rank in zip(little.source[sources], little.source_rank[sources], strict=True):
            assert little.paraphrase[little.paraphrase_start[source] + rank] == row
        assert little.source_start[row + 1] - little.source_start[row] == sum(b == phrase for _, b in paraphrases())


def test_a_file_read_in_small_blocks_gives_the_same(
    package: Path, little: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "BLOCK", 7)
    read: list[int] = []
    path = package / "meteor" / "data" / "paraphrase-en.gz"
    for name, array in convert.read_paraphrase_tables(path, read.append).items():
        assert np.array_equal(array, getattr(little, name)), name
    assert sum(read) == path.stat().st_size and max(read) == 7


def test_synsets_of_a_word_are_its_own_and_those_of_its_exceptions(little: Tables) -> None:
    found = {}
    for word in {*SYNSETS, *EXCEPTIONS.values()}:
        row = int(np.searchsorted(little.word, word_keys([word])[0]))
        assert little.word[row] == word_keys([word])[0]
        synsets = little.synset[little.synset_start[row] : little.synset_start[row + 1]]
        found[word] = (synsets.tolist(), int(little.own[row]), bool(little.exception[row]))
    assert found["run"] == ([4, 5], 2, False) and found["ran"] == ([4, 5], 0, True)
    assert found["mice"] == ([7], 0, True) and found["large"] == ([6], 1, False)
    assert little.function == frozenset(FUNCTION)
    assert little.prefixes == {"Dr": False, "e.g": False, "No": True}


def test_tables_are_converted_once(package: Path, tmp_path: Path) -> None:
    assert why_unavailable() is None
    first = load_tables()
    assert folders(tmp_path / "cache") == [f"meteor-1.5-{tables.FORMAT}"]
    shutil.rmtree(package)
    tables._load_tables.cache_clear()
    assert np.array_equal(load_tables().phrase, first.phrase) and why_unavailable() is None


def test_without_tables_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path))
    monkeypatch.setattr(tables, "find_pycocoevalcap", lambda: None)
    tables._load_tables.cache_clear()
    with pytest.raises(MissingTablesError, match=r"pip install 'limner\[meteor\]'"):
        meteor_lines(["a dog"], [["a dog"]])
    assert why_unavailable() == tables.INSTALL_HINT


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["phrase.npy", "source_rank.npy", "index.json"])
@pytest.mark.parametrize("damage", [_truncate, _flip, _empty, Path.unlink])
def test_a_damaged_cache_is_converted_again(package: Path, tmp_path: Path, name: str, damage: object) -> None:
    phrase, source_rank = (
        load_tables().phrase.copy(),
        load_tables().source_rank.copy(),
    )  # not mapped from the file to be damaged
    folder = tmp_path / "cache" / f"meteor-1.5-{tables.FORMAT}"
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises((DamagedTablesError, FileNotFoundError)):
        open_tables(folder)
    tables._load_tables.cache_clear()
    assert np.array_equal(load_tables().phrase, phrase)
    assert np.array_equal(open_tables(folder).source_rank, source_rank)
    assert folders(tmp_path / "cache") == [folder.name]


def test_a_file_where_the_cache_should_be_gives_way(package: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    folder = tmp_path / "cache" / f"meteor-1.5-{tables.FORMAT}"
    folder.write_text("not a folder")
    load_tables()
    assert open_tables(folder).function == frozenset(FUNCTION)


def test_a_cache_of_another_format_is_not_read(package: Path, tmp_path: Path) -> None:
    load_tables()
    index = tmp_path / "cache" / f"meteor-1.5-{tables.FORMAT}" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 0}))
    with pytest.raises(DamagedTablesError, match="another format"):
        open_tables(index.parent)


def test_a_cut_paraphrase_file_is_refused(package: Path) -> None:
    path = package / "meteor" / "data" / "paraphrase-en.gz"
    content = path.read_bytes()
    _truncate(path)
    with pytest.raises(ValueError, match="install pycocoevalcap again"):
        load_tables()
    path.write_bytes(gzip.compress(gzip.decompress(content)[:-5]))
    with pytest.raises(ValueError, match="install pycocoevalcap again"):
        load_tables()
    path.write_bytes(b"\x1f\x8bno gzip at all")
    with pytest.raises(ValueError, match="install pycocoevalcap again"):
        load_tables()


def test_a_cache_that_cannot_be_written(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file: no folder can be made in it")
    found = load_tables()
    assert found.function == frozenset(FUNCTION)
    assert "set LIMNER_CACHE" in capsys.readouterr().err
    assert load_tables() is found  # converted once per process


def _convert_at_once(folder: Path, start: object, package: Path) -> bool:
    tables.find_pycocoevalcap = lambda: package
    os.environ["LIMNER_CACHE"] = str(folder)
    start.wait()  # type: ignore[attr-defined]
    return len(load_tables().phrase) > 0


def test_two_processes_may_convert_at_once(package: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        start = manager.Barrier(2)
        with context.Pool(2) as pool:
            task = (tmp_path / "cache", start, package)
            results = [pool.apply_async(_convert_at_once, task) for _ in range(2)]
            assert all(result.get(timeout=60) for result in results)
    assert folders(tmp_path / "cache") == [f"meteor-1.5-{tables.FORMAT}"]
    assert open_tables(tmp_path / "cache" / f"meteor-1.5-{tables.FORMAT}").function == frozenset(FUNCTION)


def test_keys_of_words_are_polynomials_of_their_bytes() -> None:
    base, mask = 0xD1342543DE82EF95, (1 << 64) - 1

    def mixed(value: int) -> int:
        value = (value ^ value >> 29) * 0x9E3779B97F4A7C15 & mask
        return value ^ value >> 29

    words = ["a", "dog", "café", "\x00", "\ud800", "", "dog"]
    for word, found in zip(words, word_keys(words).tolist(), strict=True):
        letters = word.encode("utf-8", "surrogatepass")
        assert found == mixed(sum((letter + 1) * base**i for i, letter in enumerate(letters)) & mask), word


def test_phrases_that_are_alike_have_keys_of_their_own() -> None:
    phrases = [
        " ".join(words) for n in (1, 2, 3) for words in itertools.product(("a", "b", "ab", "ba", "\x00"), repeat=n)
    ]
    assert len({key(phrase) for phrase in phrases}) == len(phrases)
