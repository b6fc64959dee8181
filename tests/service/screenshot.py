"""Remake the picture of the page that the README shows: limner-small captions an example, and a word is chosen.

python -m tests.service.screenshot docs/page.png
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

import limner
from limner.core.files import atomic_write
from limner.inference.pipeline import Pipeline
from tests.browser import chromium
from tests.service.world import served

EXAMPLE, WORD = "cat", "cat"
SIZE = (1040, 900)


def main(out: Path) -> None:
    """Serve limner-small, open the page in Chromium, and write what it shows."""
    pipeline = limner.load()
    assert isinstance(pipeline, Pipeline)
    with served({"limner-small": pipeline}) as address, tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        with chromium(Path(folder) / "profile") as tab:
            tab.open(f"{address}/", *SIZE)
            tab.until("document.body.dataset.ready")
            buttons = "[...document.querySelectorAll('{} button')].find(e => e.textContent.trim() == '{}').click()"
            tab.ask(buttons.format(".examples", EXAMPLE))
            tab.until("document.querySelector('.words')")
            tab.ask(buttons.format(".words", WORD))
            tab.ask("scrollTo(0, document.querySelector('#examples').offsetTop - 8)")
            tab.picture(picture, whole=False)
        file = io.BytesIO()
        with Image.open(picture) as image:  # 32 levels of each colour, which nobody sees, halve the file
            image.convert("RGB").point(lambda level: min(255, (level + 4) // 8 * 8)).save(file, "PNG", optimize=True)
    with atomic_write(out) as temporary:
        temporary.write_bytes(file.getvalue())
    print(f"wrote {out}, {len(file.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
