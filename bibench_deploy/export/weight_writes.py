"""Find the weights that a module writes to while it runs.

`torch.export` runs a module on tensors without memory. A module that puts such a tensor in
the place of a weight (`weight.data = …`), or copies it into one (`weight.data.copy_(…)`),
ends the whole process by a signal, so this is looked for first, on real tensors. A weight
that is put back before the module returns counts too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def run_and_watch(
    model: torch.nn.Module, example_input: torch.Tensor
) -> tuple[Any, tuple[str, ...]]:
    """Run a module once, and say which of its parameters were written to.

    Returns:
        What the module gave, and the names of the parameters, in the order of the writes.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    names = {id(weight): name for name, weight in model.named_parameters()}
    places = {_place(weight): name for name, weight in model.named_parameters()}
    written: dict[str, None] = {}
    # mypy finds no property that a setter can be read from.
    set_data = torch.Tensor.data.__set__  # type: ignore[attr-defined]  # torch's types hide that it is a property

    class Setters(TorchFunctionMode):
        """Sees `weight.data = …`, which is no operator."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function == set_data and id(args[0]) in names:
                written[names[id(args[0])]] = None
            return function(*args, **(kwargs or {}))

    class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
        """Sees every operator that writes to memory."""

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            for argument, value in zip(function._schema.arguments, args, strict=False):
                is_write = argument.alias_info is not None and argument.alias_info.is_write
                if is_write and isinstance(value, torch.Tensor) and _place(value) in places:
                    written[places[_place(value)]] = None
            return function(*args, **(kwargs or {}))

    with Setters(), Operators():  # type: ignore[no-untyped-call]  # torch gives it no types
        # A copy: what the module does to its input is its own affair.
        output = model(example_input.clone())
    return output, tuple(written)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
