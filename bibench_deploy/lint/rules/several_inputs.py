"""BIB510 several-inputs: a network of several inputs.

A device is measured with one image at a time, and the engines' files are written for one.

Bad:   def forward(self, image, mask)
Good:  def forward(self, image_and_mask)             # split inside

Rests on: daBNN, which reads its first input alone; this project's Keras model for LCE.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB510", "several-inputs")
