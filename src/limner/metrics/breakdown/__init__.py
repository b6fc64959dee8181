"""How the scores of one caption come about, match by match: `break_down(references, id, caption)`."""

from limner.metrics.breakdown.caption import CaptionBreakdown, break_down, find_id
from limner.metrics.breakdown.tables import breakdown_tables

__all__ = ["CaptionBreakdown", "break_down", "breakdown_tables", "find_id"]
