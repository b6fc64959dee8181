"""Inference with exported captioners, without PyTorch: NumPy, onnxruntime, Pillow and PyAV."""
