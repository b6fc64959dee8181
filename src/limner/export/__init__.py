"""Export of captioners to ONNX files, which `limner.inference.onnx` runs without PyTorch."""
