"""ONNX Runtime: the network in float, as the graph it came from."""

from bibench_deploy.targets.onnx.target import OnnxTarget

TARGET = OnnxTarget()
