"""Larq Compute Engine: a Keras model in Larq's layers, and its .tflite with 1-bit kernels."""

from bibench_deploy.targets.lce.target import LceTarget

TARGET = LceTarget()
