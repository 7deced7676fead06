"""Classifiers outside PyTorch: written as ONNX and PT2, and run from there."""
