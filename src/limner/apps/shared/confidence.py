"""Calibrated confidences in the output of commands, and captions that are withheld because theirs is low."""

from collections.abc import Iterable
from typing import Any

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.journal import Row
from limner.core.torch_free import Caption
from limner.decode.options import Decoding
from limner.inference.load import CaptionPipeline


def require_calibration(captioner: CaptionPipeline, decoding: Decoding) -> None:
    """Raise WrongArguments when no caption of this model and search would have a confidence."""
    calibration = getattr(captioner, "calibration", None)
    if calibration is None:
        raise WrongArguments(
            f"--min-confidence: {captioner.name} has no calibration; make one with: limner calibrate RUN"
        )
    if captioner.vocabulary is not None and not calibration.knows(decoding.bind(captioner.vocabulary)):
        raise WrongArguments(
            "--min-confidence: the confidences of this model hold for the search that was calibrated, and this is "
            "another one: leave out the decoding options, or calibrate with them"
        )


def notes_about_confidence(rows: Iterable[Row], minimum: float) -> list[str]:
    """How many captions were withheld, and how many have no confidence."""
    rows = list(rows)
    withheld = sum("withheld" in row for row in rows)
    unknown = sum("confidence" not in row for row in rows)
    notes = [f"{withheld} of {len(rows)} captions are withheld: their confidence is below {minimum:g}"]
    return notes + ([f"{unknown} of {len(rows)} captions have no confidence and are kept"] if unknown else [])


def confidence_fields(caption: Caption) -> dict[str, Any]:
    """The fields of a row that only calibrated models have."""
    fields: dict[str, Any] = {} if caption.confidence is None else {"confidence": round(caption.confidence, 4)}
    return fields if caption.unfamiliar is None else {**fields, "unfamiliar": caption.unfamiliar}


def shown_text(row: Row) -> str:
    """The caption of a row, or why there is none, with a mark where the picture is unfamiliar."""
    text = f"(withheld: confidence {row['confidence']:.2f})" if "withheld" in row else row["caption"]
    return f"{text} (unfamiliar picture)" if row.get("unfamiliar") else str(text)
