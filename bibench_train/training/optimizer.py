"""Optimizers by the names of the recipe."""

from __future__ import annotations

import torch
from torch import nn

from bibench_train.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a model.

    Weight decay holds for the weights of convolutions and linear layers. What has one dimension
    (biases, batch norms) and what an algorithm learns beside the weights is left out: pulling a
    threshold or a scale towards 0 is no regularisation.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_weight = parameter.dim() > 1 and ".binarizer." not in name
        (decayed if is_weight else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = recipe.learning_rate
    # Fused: one pass over memory in place of one for each operation.
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    return torch.optim.Adam(groups, lr=rate, fused=True)
