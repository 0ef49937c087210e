"""Networks as ONNX files: written, verified against torch on real pictures, and compared with it."""
