"""Damaged files for hours: every reader gets the same time until it has read enough of them.

    LIMNER_UNCHECKED=1 OMP_NUM_THREADS=1 nice python -m tests.faults.fuzz --seconds 3600 --totals totals.json

`--totals` adds up over calls: a call goes on with the seeds after those of earlier ones.  The status is 1 when a file
did what none may do; each is named with its seed: `mutate(data, seed)` makes it again.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["LIMNER_UNCHECKED"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from limner.apps.cli import main as limner
from limner.core.files import write_json
from tests.conftest import TINY
from tests.faults.harness import Fault, one_damaged, try_damaged
from tests.faults.readers import Reader, all_readers

FIRST = 1_000_000  # seeds below are those of the tests


def tiny_run(root: Path) -> Path:
    """A micro-world, a recipe and a run of it, as the fixture `tiny` has them."""
    (root / "tiny.yaml").write_text(TINY.format(world=root / "world"))
    assert limner(["shapes", "--out", str(root / "world"), "--images", "40", "--size", "32"]) == 0
    assert limner(["train", str(root / "tiny.yaml"), "--out", str(root / "run"), "--seed", "1", "--frames=4"]) == 0
    return root


def keep(reader: Reader, fault: Fault, folder: Path) -> None:
    """Write the damaged file, as `tests/faults/found` has those of the past."""
    files = {path: path.read_bytes() for path in reader.files}
    path, data = one_damaged(files, fault.seed)
    out = folder / reader.name.replace(" ", "_") / f"{fault.seed}-{path.name}"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600, help="of all readers together")
    parser.add_argument("--turn", type=float, default=4, metavar="SECONDS", help="of a reader, before the next one")
    parser.add_argument("--enough", type=int, default=20_000, help="damaged files for a reader")
    parser.add_argument("--totals", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--keep", type=Path, default=Path("found"), metavar="DIR", help="where such files go")
    parser.add_argument("--only", default="", help="readers whose names contain this")
    options = parser.parse_args()
    totals: dict[str, int] = json.loads(options.totals.read_text()) if options.totals.exists() else {}
    until, found = time.monotonic() + options.seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "corpus").mkdir()
        readers = [it for it in all_readers(root / "corpus", tiny_run(root)) if options.only in it.name]
        while time.monotonic() < until and any(totals.get(it.name, 0) < options.enough for it in readers):
            for reader in readers:
                done = totals.get(reader.name, 0)
                seeds = range(FIRST + done, FIRST + max(done, options.enough))
                if not seeds or time.monotonic() > until:
                    continue
                count, faults = try_damaged(reader, seeds, root / "corpus", options.turn)
                totals[reader.name] = done + count
                for fault in faults:
                    found += 1
                    print(*fault, sep=" | ", flush=True)
                    keep(reader, fault, options.keep)
                write_json(options.totals, totals)
    for name, count in sorted(totals.items()):
        print(f"{count:>8} {name}")
    print(f"{sum(totals.values()):>8} in all, {found} wrong in this call")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
