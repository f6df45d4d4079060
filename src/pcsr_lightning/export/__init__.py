"""Trained models as ONNX files."""
