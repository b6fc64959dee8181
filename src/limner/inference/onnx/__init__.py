"""Exported captioners in use, without PyTorch: NumPy, onnxruntime, Pillow and PyAV."""
