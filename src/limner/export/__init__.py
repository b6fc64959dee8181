"""Captioners as files that run without PyTorch; `limner.engine` runs them."""
