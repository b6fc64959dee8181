"""METEOR 1.5 without Java: `meteor(candidates, references)` is a metric like the others.

Its tables are converted once from an installed pycocoevalcap; where there is none, `why_unavailable()` says what to
install.
"""

from limner.metrics.meteor.evaluation import meteor, meteor_counts, meteor_lines
from limner.metrics.meteor.tables import MissingTablesError, why_unavailable

__all__ = ["MissingTablesError", "meteor", "meteor_counts", "meteor_lines", "why_unavailable"]
