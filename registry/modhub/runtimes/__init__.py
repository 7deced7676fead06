"""Classifiers in other runtimes: exported as ONNX, PT2 or TorchScript, and run with ONNX Runtime."""
