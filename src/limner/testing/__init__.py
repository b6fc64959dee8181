"""The conformance kit: checks that all captioners, encoders and metrics of limner pass, for your own ones.

    from limner.testing import check_captioner

    def test_my_captioner():
        check_captioner(MyConfig(hidden=8))

A check that fails raises AssertionError, which says what was expected and what the model did.
"""

from limner.testing.captioner import CHECKS, check_captioner, random_features, small_captioner
from limner.testing.encoder import check_encoder
from limner.testing.metric import check_metric

__all__ = ["CHECKS", "check_captioner", "check_encoder", "check_metric", "random_features", "small_captioner"]
