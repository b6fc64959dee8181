"""The conformance kit on the plug-in's captioner: `pytest test_mean_pool.py`."""

from limner_mean_pool import MeanPoolConfig

from limner.testing import check_captioner


def test_mean_pool() -> None:
    check_captioner(MeanPoolConfig(hidden=6))
