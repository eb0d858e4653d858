"""Answers of a network of the target native: LIBRARY MODEL IMAGES.npy ANSWERS.npy.

Needs what a board has, onnxruntime and numpy, and nothing of bibench; prints the runtime's version.
"""

import sys

import numpy as np
import onnxruntime


def main(library: str, model: str, images: str, answers: str) -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    rows = [session.run(None, {entry.name: row[None]})[0] for row in np.load(images)]
    np.save(answers, np.concatenate(rows))
    print(onnxruntime.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
