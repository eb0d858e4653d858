"""The sign that every layer, estimator and export here agrees on."""

from __future__ import annotations

import torch
from torch import Tensor


def sign(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Binarize to {-1, +1}: `+1 where x >= 0, else -1`; carries no gradient.

    Differs from `torch.sign`, which gives 0 at 0: a third value that no 1-bit engine can hold.
    Negative zero counts as zero, so it becomes +1 as well.

    Args:
        x: Any shape, floating dtype.
        out: Memory for the result, shaped and typed as `x`; may be `x` itself. Use what is
            returned: under `torch.compile` this memory is left as it was.

    Returns:
        Same shape, dtype and device as `x`; every element is exactly -1 or +1.

    Raises:
        TypeError: `x` is not floating point, so its result could enter no convolution.

    Example:
        >>> import torch
        >>> sign(torch.tensor([-2.0, -0.25, -0.0, 0.0, 0.5]))
        tensor([-1., -1.,  1.,  1.,  1.])
    """
    if not x.is_floating_point():
        raise TypeError(f"sign needs a floating tensor, got {x.dtype}; call x.float() first")
    if torch.compiler.is_compiling():
        # A compiler plans memory by itself, and traces no `out=` in channels-last memory.
        return torch.where(x.detach() >= 0.0, 1.0, -1.0).to(x.dtype)
    # The same, which takes ten times as long on a CPU.
    positive = torch.ge(x.detach(), 0.0, out=torch.empty_like(x) if out is None else out)
    return positive.mul_(2.0).sub_(1.0)
