"""Read an .onnx file and state facts about it."""
