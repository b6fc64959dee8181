"""METEOR 1.5 without Java: `meteor(candidates, references)` is a metric like the others.

Its tables are converted once from an installed pycocoevalcap; `missing()` says how to get it where there is none.
"""

from limner.metrics.meteor.evaluation import meteor, meteor_counts, meteor_lines
from limner.metrics.meteor.tables import MissingTables, missing

__all__ = ["MissingTables", "meteor", "meteor_counts", "meteor_lines", "missing"]
