"""Graph passes that bring a model towards a runtime, one pass per file.

Each pass changes an `onnx_ir.Model` in place and keeps it a valid ONNX model that
computes the same; its file says what it requires and what it ensures.
"""
