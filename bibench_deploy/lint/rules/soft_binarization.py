"""BIB106 soft-binarization: weights that are not ±1 yet, in the middle of a schedule.

BNext's weights are soft until its temperature has fallen, BiPer's are a sine wave in the first
half of a run, FDA-BNN adds noise until its last epoch. Such a checkpoint computes other numbers
than any binary layer can.

It is seen in a run or a module, whose algorithm is known. An .onnx file does not say what was
meant: its soft weights are floats that read signs (BIB103), and FDA-BNN's sign plus noise is a sign
that no binary layer reads (BIB107).

Bad:   a run of bnext, biper or fda that was stopped early
Good:  the same run after bibench train --resume

Rests on: the forward formula of each algorithm (bibench_train/algorithms/bnext.py, biper.py,
fda.py): only at its end are all weights ±1.
"""

from __future__ import annotations

from bibench_deploy.lint.rules._rule import Rule

RULE = Rule("BIB106", "soft-binarization")
