"""`--part` and `limner merge`: parts make up one undivided output, byte for byte, and nothing is missing or double."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.apps.cli import main
from limner.apps.shared.journal import side_file, to_jsonl
from limner.core.locks import lock_output
from limner.data.parts import Part, part_of, part_size, read_record
from limner.data.store import FeatureStore

Capture = pytest.CaptureFixture[str]


def caption(tiny: Path, part: str, out: Path, *more: str, pictures: str = "pictures") -> int:
    """Caption a part ("" for all) of a folder beside `out`."""
    given_part = ["--part", part] if part else []
    files = str(out.parent / pictures)
    return main(["caption", files, "--model", str(tiny / "run"), *given_part, "--out", str(out), *more])


@pytest.fixture
def pictures(tiny: Path, tmp_path: Path) -> Path:
    """Seven pictures, one of which cannot be read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in range(6):
        shutil.copy(tiny / "world" / "images" / f"{name:06}.png", folder)
    (folder / "000002b.png").write_text("no picture")
    return folder


def parts_of(tiny: Path, folder: Path, count: int, ending: str) -> list[Path]:
    outs = [folder / f"part-{index}.{ending}" for index in range(1, count + 1)]
    for index, out in enumerate(outs, 1):
        assert caption(tiny, f"{index}/{count}", out) in (0, 3)
    return outs


def merge(outs: list[Path], out: Path, *more: str) -> int:
    return main(["merge", *map(str, outs), "--out", str(out), *more])


def refused(outs: list[Path], out: Path, capsys: Capture, *words: str, status: int = 1) -> None:
    """The merge is refused with these words, and writes nothing."""
    before = out.read_bytes() if out.is_file() else None
    capsys.readouterr()
    assert merge(outs, out) == status
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown
    assert (out.read_bytes() if out.is_file() else None) == before


@given(st.sets(st.text("abcäZ0/", min_size=1, max_size=4), min_size=1, max_size=30), st.data())
def test_parts_are_disjoint_and_make_up_the_list_in_any_order(names: set[str], data: st.DataObject):
    listed = sorted(names)
    count = data.draw(st.integers(1, len(listed)))
    shuffled = data.draw(st.permutations(listed))
    parts = [part_of(listed, Part(index, count)) for index in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == listed
    for index, part in enumerate(parts, 1):
        assert set(part_of(shuffled, Part(index, count))) == set(part)
        assert len(part) == part_size(len(listed), Part(index, count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_by_hand():
    """Bytes decide, not the alphabet of a locale: Z comes before a, and a before ä."""
    names = ["ä", "a", "Z", "b"]
    assert part_of(names, Part(1, 2)) == ["Z", "b"] and part_of(names, Part(2, 2)) == ["ä", "a"]
    with pytest.raises(ValueError, match="the index is from 1 to 2"):
        part_of(["a", "b"], Part(3, 2))
    with pytest.raises(ValueError, match="take at most 2"):
        part_of(["a", "b"], Part(1, 3))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_merged_captions_are_those_of_one_command(tiny: Path, pictures: Path, ending: str, capsys: Capture):
    whole, merged = pictures.parent / f"whole.{ending}", pictures.parent / f"merged.{ending}"
    assert caption(tiny, "", whole) == 3
    outs = parts_of(tiny, pictures.parent, 3, ending)
    capsys.readouterr()
    assert merge(outs[::-1], merged) == 3  # in any order; one picture could not be read, as the whole command said
    shown = capsys.readouterr()
    assert "6 captions of 3 parts" in shown.out and "1 file could not be read:\n" in shown.err
    assert merged.read_bytes() == whole.read_bytes()
    assert merge(outs, merged) == 1 and "exists: give --overwrite" in capsys.readouterr().err
    assert merge(outs, merged, "--overwrite") == 3 and merged.read_bytes() == whole.read_bytes()


def test_a_record_says_which_part_it_is(tiny: Path, pictures: Path):
    (out,) = parts_of(tiny, pictures.parent, 2, "jsonl")[1:]
    record = read_record(out.with_name("part-2.jsonl.part.json"))
    assert (
        record and (record.part, record.total) == (Part(2, 2), 7) and {"model", "decoding"} <= record.made_with.keys()
    )
    assert [Path(name).name for name in record.names] == ["000001.png", "000002b.png", "000004.png"]
    assert [place for place, _ in record.items] == [1, 3, 5]


def test_what_is_missing_or_double_is_named(tiny: Path, pictures: Path, capsys: Capture):
    folder = pictures.parent
    outs, out = parts_of(tiny, folder, 3, "csv"), folder / "merged.csv"
    refused(outs[:2], out, capsys, "1 of 3 parts is not there or unfinished", "part 3/3", "part-3.csv was not given")
    for path in (outs[2], folder / "part-3.csv.part.json"):
        path.rename(folder / "pictures" / path.name)
    refused(outs[:2], out, capsys, "part 3/3: not given, 2 of 7 media")
    refused([*outs[:2], outs[0]], out, capsys, "given more than once", "part 1/3: ", "part-1.csv, ")
    refused(outs, out, capsys, "part-3.csv is not there: give outputs of `limner caption --part`")
    outs[2].write_text("file,caption,logprob,finished\n")
    refused(outs, out, capsys, "part-3.csv has no record beside it, part-3.csv.part.json")
    refused([folder / "part-1.csv.part.json"], out, capsys, "name the output itself, part-1.csv")


def test_parts_of_another_run_are_refused(tiny: Path, pictures: Path, capsys: Capture):
    folder = pictures.parent
    outs, out = parts_of(tiny, folder, 2, "csv"), folder / "merged.csv"
    other = folder / "other.csv"
    assert caption(tiny, "2/3", other) in (0, 3)
    refused([outs[0], other], out, capsys, "not of the same run", "other.csv: number of parts: 2 and 3")
    assert caption(tiny, "2/2", other, "--beam", "1", "--overwrite") in (0, 3)
    refused([outs[0], other], out, capsys, "other.csv: decoding: ")
    (pictures / "new.png").write_bytes((pictures / "000000.png").read_bytes())
    assert caption(tiny, "2/2", other, "--overwrite") in (0, 3)
    refused([outs[0], other], out, capsys, "other.csv: number of media: 7 and 8")
    (pictures / "000000.png").unlink()
    assert caption(tiny, "2/2", other, "--overwrite") in (0, 3)
    refused([outs[0], other], out, capsys, "other.csv: list of media")


def test_damaged_parts_are_refused(tiny: Path, pictures: Path, capsys: Capture):
    folder = pictures.parent
    outs, out = parts_of(tiny, folder, 2, "jsonl"), folder / "merged.jsonl"
    text = outs[1].read_text()
    outs[1].write_text(text[:-20])
    refused(outs, out, capsys, "part-2.jsonl (part 2/2) is not what was written")
    assert caption(tiny, "2/2", outs[1], "--resume") == 1
    assert "start this part anew with --overwrite" in capsys.readouterr().err
    outs[1].write_text(text)
    record = folder / "part-2.jsonl.part.json"
    good = record.read_text()
    record.write_text(good.replace("000001.png", "000009.png"))
    refused(outs, out, capsys, "part-2.jsonl.part.json is damaged")
    record.write_text(good[: len(good) // 2])
    refused(outs, out, capsys, "part-2.jsonl.part.json is not a JSON file")
    record.write_text(good)
    assert merge(outs, out) == 3


def test_an_interrupted_part_says_what_it_lacks_and_goes_on(tiny: Path, pictures: Path, monkeypatch, capsys: Capture):
    from limner.apps.shared.journal import Journal

    folder = pictures.parent
    whole, outs, out = folder / "whole.csv", [folder / "part-1.csv", folder / "part-2.csv"], folder / "merged.csv"
    assert caption(tiny, "", whole) == 3 and caption(tiny, "1/2", outs[0]) == 0
    with monkeypatch.context() as patch:
        add = Journal.add

        def die(journal: Journal, row: dict[str, object]) -> None:
            add(journal, row)
            raise KeyboardInterrupt

        patch.setattr(Journal, "add", die)
        assert caption(tiny, "2/2", outs[1]) == 130
    assert "--part 2/2" in (shown := capsys.readouterr().err) and "--resume" in shown
    words = ("part 2/2: ", "part-2.csv is unfinished, 2 of 3 files have no caption yet", "000004.png", "with --resume")
    refused(outs, out, capsys, *words)
    refused(outs[:1], out, capsys, *words)  # a pattern does not find it, and its record is still beside the others
    assert caption(tiny, "1/2", outs[1], "--resume") == 1
    assert "part: 2/2 and 1/2" in capsys.readouterr().err
    assert caption(tiny, "", outs[1], "--resume") == 1
    assert "is part 2/2 of 7 files: give --part 2/2" in capsys.readouterr().err
    assert caption(tiny, "2/2", outs[1], "--resume") == 3
    assert merge(outs, out) == 3 and out.read_bytes() == whole.read_bytes()


def test_a_kill_between_the_output_and_its_record_loses_nothing(tiny: Path, pictures: Path, monkeypatch):
    from limner.apps.shared.caption_parts import CaptionPart

    folder = pictures.parent
    whole, outs, out = folder / "whole.csv", [folder / "part-1.csv", folder / "part-2.csv"], folder / "merged.csv"
    assert caption(tiny, "", whole) == 3 and caption(tiny, "1/2", outs[0]) == 0

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CaptionPart, "finish", die)
        assert caption(tiny, "2/2", outs[1]) == 130
    assert outs[1].is_file() and side_file(outs[1]).is_file() and merge(outs, out) == 1
    assert caption(tiny, "2/2", outs[1], "--resume") == 3
    assert merge(outs, out) == 3 and out.read_bytes() == whole.read_bytes()


def test_other_outputs_are_never_taken_for_a_part(tiny: Path, pictures: Path, capsys: Capture):
    folder = pictures.parent
    out = folder / "c.csv"
    assert caption(tiny, "", out) == 3
    before = out.read_bytes()
    assert caption(tiny, "1/2", out, "--resume") == 1 and "so it is of another command" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert caption(tiny, "1/2", out, "--overwrite") == 0 and (folder / "c.csv.part.json").is_file()
    assert caption(tiny, "", out, "--overwrite") == 3 and not (folder / "c.csv.part.json").exists()
    assert out.read_bytes() == before


def test_wrong_arguments(tiny: Path, pictures: Path, capsys: Capture):
    out = pictures.parent / "c.csv"
    for part, words in (("0/2", "from 1 to 2"), ("3/2", "from 1 to 2"), ("2", "expected I/N"), ("a/b", "expected I/N")):
        with pytest.raises(SystemExit) as left:
            caption(tiny, part, out)
        assert left.value.code == 2 and words in capsys.readouterr().err
    assert caption(tiny, "1/8", out) == 1 and "take at most 7" in capsys.readouterr().err
    assert caption(tiny, "1/2", out.with_suffix(".html")) == 2 and "can be merged" in capsys.readouterr().err
    assert main(["caption", str(pictures), "--part", "1/2"]) == 2
    assert main(["extract", str(tiny / "run"), "--part", "1/2"]) == 2
    assert "needs a store of its own: give --out DIR" in capsys.readouterr().err
    outs = parts_of(tiny, pictures.parent, 2, "csv")
    refused(outs, pictures.parent / "c.txt", capsys, "are merged into", status=2)
    refused([outs[0], pictures], out, capsys, "merge captions and features separately", status=2)
    refused(outs, outs[0], capsys, "part-1.csv exists: give --overwrite")
    assert merge(outs, outs[0], "--overwrite") == 1 and "is an input" in capsys.readouterr().err


def test_two_jobs_never_write_one_output(tiny: Path, pictures: Path, capsys: Capture):
    folder = pictures.parent
    outs, out = parts_of(tiny, folder, 2, "csv"), folder / "m.csv"
    with lock_output(out):
        refused(outs, out, capsys, "is being written by another process")
        assert caption(tiny, "1/2", out) == 1
    assert "is being written by another process" in capsys.readouterr().err and not out.exists()


def test_formulas_survive_the_merge_with_and_without_apostrophes(tmp_path: Path):
    """A caption that begins with an apostrophe and a formula is one when CSV files have no marks of their own."""
    from dataclasses import replace

    from limner.apps.shared.caption_parts import CaptionPart, merged_rows
    from limner.apps.shared.journal import to_csv
    from limner.inference.pieces import Problems

    for csv_safe in (True, False):
        rows = [
            {"file": f"{n}.png", "caption": text, "logprob": None, "finished": True}
            for n, text in enumerate(("'=1", "=1", "a\r\nb", ' "x",\u2028'))
        ]
        outs = [tmp_path / f"{csv_safe}-{index}.csv" for index in (1, 2)]
        for index, out in enumerate(outs, 1):
            part = CaptionPart(out, Part(index, 2), [str(row["file"]) for row in rows], resume=False)
            part.require({"model": "m", "decoding": {}})
            own = [row for row in rows if row["file"] in part.files]
            with open(out, "w", newline="", encoding="utf-8") as file:
                file.write(to_csv(own, safe=csv_safe))
            part.finish(csv_safe, Problems())
            assert part.record and replace(part.record).finished == {}
        assert to_jsonl(merged_rows(outs)[0]) == to_jsonl(rows)


def extract(tiny: Path, out: Path, *more: str, augmentations: str = "full,flip") -> int:
    """Media one by one: which media share a batch may change the last bit of a feature."""
    given_more = ["--augmentations", augmentations, "--batch-size", "1", *more]
    return main(["extract", str(tiny / "run"), "--out", str(out), *given_more])


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_merged_stores_are_those_of_one_command(tiny: Path, tmp_path: Path, capsys: Capture):
    whole, merged, outs = tmp_path / "whole", tmp_path / "merged", [tmp_path / f"f-{index}" for index in (1, 2, 3)]
    assert extract(tiny, whole) == 0
    for index, out in enumerate(outs[:2], 1):
        assert extract(tiny, out, "--part", f"{index}/3") == 0
    refused(outs[:2], merged, capsys, "1 of 3 parts is not there or unfinished", "part 3/3: not given, ")
    assert extract(tiny, outs[2], "--part", "3/3") == 0
    assert extract(tiny, outs[2], "--part", "3/3") == 0  # resumed, with nothing left to do
    assert merge(outs, merged) == 0
    assert files_of(merged) == files_of(whole)
    FeatureStore(merged).verify()
    refused(outs, merged, capsys, "merged exists: give --overwrite")
    assert merge(outs, merged, "--overwrite") == 0 and files_of(merged) == files_of(whole)
    refused([*outs, outs[1]], tmp_path / "x", capsys, "given more than once", "part 2/3")
    refused([outs[0], whole, outs[2]], tmp_path / "x", capsys, "whole has no part.json")
    for arguments, words in (
        (("--part", "2/3"), "part: 1/3 and 2/3"),
        (("--part", "1/4"), "number of parts: 3 and 4"),
        (("--part", "1/3", "--frames", "2"), "sampling: "),
        ((), "holds part 1/3 of a data set: give --part 1/3"),
    ):
        before = files_of(outs[0])
        assert extract(tiny, outs[0], *arguments) == 1 and words in capsys.readouterr().err
        assert files_of(outs[0]) == before
    assert extract(tiny, whole, "--part", "1/3") == 1 and "that are not of a part" in capsys.readouterr().err
    (outs[1] / "index.json").unlink()
    refused(outs, tmp_path / "x", capsys, "part 2/3: ", "f-2 is unfinished: 1 shards and no index.json")
    refused([outs[0], outs[2]], tmp_path / "x", capsys, "part 2/3: ", "f-2 is unfinished")
    assert extract(tiny, outs[1], "--part", "2/3") == 0
    shard = outs[1] / "shard-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    refused(outs, tmp_path / "x", capsys, "shard-00000.safetensors is damaged")
    assert not (tmp_path / "x").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert merge(outs, tmp_path / "mine", "--overwrite") == 1 and "is not a feature store" in capsys.readouterr().err


def test_augmentations_are_added_to_parts(tiny: Path, tmp_path: Path):
    outs = [tmp_path / f"f-{index}" for index in (1, 2)]
    for index, out in enumerate(outs, 1):
        for augmentations in ("full", "full,flip"):
            assert extract(tiny, out, "--part", f"{index}/2", augmentations=augmentations) == 0
    assert extract(tiny, tmp_path / "whole") == 0 and merge(outs, tmp_path / "merged") == 0
    assert files_of(tmp_path / "merged") == files_of(tmp_path / "whole")


def test_a_part_of_damaged_media_alone_can_be_merged(tiny: Path, tmp_path: Path, capsys: Capture):
    """Part 2 of 2 holds nothing but its failures; the merged store is that of one undivided command."""
    world = tmp_path / "world"
    shutil.copytree(tiny / "world", world)
    names = sorted(path.name for path in (world / "images").iterdir())
    for name in names[1::2]:
        (world / "images" / name).write_text("no picture")
    outs = [tmp_path / name for name in ("one", "two", "whole")]
    for out, part in zip(outs, (["--part", "1/2"], ["--part", "2/2"], []), strict=True):
        status = main(["extract", str(tiny / "run"), "--data.media", str(world), "--out", str(out), *part])
        assert status == (0 if part == ["--part", "1/2"] else 3)
    assert FeatureStore(outs[1]).ids == [] and len(FeatureStore(outs[1]).failures) == len(names) // 2
    assert main(["merge", *map(str, outs[:2]), "--out", str(tmp_path / "m")]) == 3
    assert files_of(tmp_path / "m") == files_of(outs[2])
    with pytest.raises(KeyError, match="not an image in a format that is read"):
        FeatureStore(outs[1]).get(f"image-{names[1].removesuffix('.png')}")
