"""Graph passes that bring a lowered graph to the library's operators, one pass per file.

Each changes an `onnx_ir.Model` in place; its file says what it requires and what it ensures.
"""
