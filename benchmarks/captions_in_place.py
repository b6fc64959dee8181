"""300 photographs with captions beside and inside them: before and after each `--existing` policy, run twice.

    limner caption photos/ --beam 1 --out captions.jsonl          # photos/: 300 images of Flickr8k
    python benchmarks/captions_in_place.py captions.jsonl LIMNER_DATA/flickr8k/dataset_flickr8k.json

A third of the photographs first get a caption of Flickr8k's people in the same place.  What is counted afterwards comes
from other readers than those that wrote: Pillow reads EXIF, XMP and pixels.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from PIL import Image

from limner.apps.shared.caption_writers import CaptionQueue, CaptionWriter
from limner.apps.shared.description_writer import DescriptionWriter
from limner.apps.shared.sidecar_writer import SidecarWriter
from limner.apps.shared.wording import Wording
from limner.data.image_descriptions import xmp_description
from limner.data.metadata import picture_data
from limner.data.sidecars import read_sidecar
from limner.inference.pieces import Problems

POLICIES = ("skip", "overwrite", "append", "prepend")
PLACES: dict[str, Callable[[Wording], CaptionWriter]] = {
    "--sidecar txt": lambda wording: SidecarWriter("txt", wording),
    "--sidecar xmp": lambda wording: SidecarWriter("xmp", wording),
    "--exif": lambda wording: DescriptionWriter("exif", wording),
    "--xmp": lambda wording: DescriptionWriter("xmp", wording),
}


def words_in(place: str, photo: Path) -> str:
    """What another program finds there."""
    if place.startswith("--sidecar"):
        path = photo.with_suffix("." + place.split()[1])
        return read_sidecar(path) if path.exists() else ""
    with Image.open(photo) as image:
        if place == "--xmp":
            return xmp_description(image.info.get("xmp", b""))
        text = image.getexif().get(270, "")
    return text.encode("latin-1").decode("utf-8")


def parts_of(photo: Path) -> tuple[str, str]:
    """-> (hash of the compressed picture and of all metadata but EXIF and XMP, hash of the pixels)."""
    compressed = sha256(b"\0".join(picture_data(photo.read_bytes()))).hexdigest()
    with Image.open(photo) as image:
        return compressed, sha256(image.tobytes()).hexdigest()


def measure(place: str, policy: str, captions: dict[Path, str], human: dict[str, str], folder: Path) -> str:
    """One row of the table."""
    photos = [Path(shutil.copyfile(path, folder / path.name)) for path in captions]  # not their permissions
    theirs = {photo: human[photo.name] for photo in photos[::3]}
    by_hand = PLACES[place](Wording("overwrite"))
    for photo, text in theirs.items():
        by_hand.write(str(photo), [{"caption": text, "logprob": 0.0}], Problems())
    before = sum(bool(words_in(place, photo)) for photo in photos)
    parts = {photo: parts_of(photo) for photo in photos}
    found: list[dict[Path, bytes]] = []
    for _ in range(2):
        problems = Problems()
        queue = CaptionQueue([PLACES[place](Wording(policy))], problems)
        for file in queue.select([str(photo) for photo in photos]):
            caption = captions[next(path for path in captions if path.name == Path(file).name)]
            queue.add(file, {"file": file, "caption": caption, "logprob": -1.0})
        queue.flush()
        assert not problems.failed, problems.failed[:3]
        found.append({path: path.read_bytes() for path in sorted(folder.iterdir())})
    after = sum(bool(words_in(place, photo)) for photo in photos)
    kept = sum(text in words_in(place, photo) for photo, text in theirs.items())
    changed = sum(found[0][path] != found[1][path] for path in found[0])
    pictures = sum(parts_of(photo) != parts[photo] for photo in photos)
    return f"| `{place}` | `{policy}` | {before} | {after} | {kept} of {len(theirs)} | {changed} | {pictures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("captions", type=Path, help="what `limner caption --out captions.jsonl` wrote")
    parser.add_argument("people", type=Path, help="dataset_flickr8k.json")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES), metavar="PLACE")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.captions.read_text().splitlines()]
    captions = {Path(row["file"]): row["caption"] for row in rows}
    images = json.loads(options.people.read_text())["images"]
    human = {image["filename"]: image["sentences"][0]["raw"].strip() for image in images}
    print(
        "| place | `--existing` | with words before | after | human text still there | changed by the second run | ",
        end="",
    )
    print("pictures changed |\n|---|---|---|---|---|---|---|")
    for place in options.places:
        for policy in POLICIES:
            with tempfile.TemporaryDirectory() as folder:
                print(measure(place, policy, captions, human, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
