"""Captioners as files that run without PyTorch; `limner.inference.onnx` runs them."""
