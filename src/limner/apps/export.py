"""`limner export`: export a run as ONNX, to caption without PyTorch."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from limner.apps.shared.arguments import refuse_unknown

if TYPE_CHECKING:
    from limner.export.check import ExportCheck

VOCABULARY = "vocabulary.json"


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    from limner.export.check import media_in_folder
    from limner.export.exporter import export_onnx
    from limner.runs.resolve import resolve_model
    from limner.runs.run import load_run

    media = media_in_folder(options.check, options.limit) if options.check else ()
    loaded = load_run(resolve_model(options.run), options.encoder)
    out = options.out or Path(f"{str(options.run).rstrip('/')}.onnx")
    exported = export_onnx(loaded, out, options.int8, media)
    print(summary("float32", exported.float_check))
    if exported.int8_check:
        print(summary("int8", exported.int8_check))
        for before, after in exported.int8_check.examples:
            print(f"    '{before}' became '{after}'")
    for reason in exported.float_check.failures:
        print(f"not compared: {reason}", file=sys.stderr)
    for name, size in exported.file_bytes.items():
        smaller = exported.int8_check and name != VOCABULARY
        share = f", {size / exported.float_bytes[name]:.0%} of the float file" if smaller else ""
        print(f"{name}: {size / 1e6:.1f} MB{share}")
    kinds = " and ".join(name for name, able in (("images", exported.images), ("videos", exported.clips)) if able)
    print(f"wrote {exported.folder}, for {kinds}: limner caption FILE --model {exported.folder}")
    return 0


def summary(name: str, check: "ExportCheck") -> str:
    """How many captions of an exported model equal PyTorch's."""
    same = f"{name}: {check.identical} of {check.media} captions are PyTorch's ({check.identical_share:.1%})"
    if check.identical == check.media:
        return same
    logprob = check.mean_logprob
    return f"{same}; mean log-probability {logprob - check.mean_logprob_loss:.3f} against {logprob:.3f}"
