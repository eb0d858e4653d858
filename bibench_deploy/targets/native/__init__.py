"""ONNX Runtime with a library of binary operators of our own."""

from bibench_deploy.targets.native.shared_library import library
from bibench_deploy.targets.native.target import NativeTarget

__all__ = ["TARGET", "library"]

TARGET = NativeTarget()
