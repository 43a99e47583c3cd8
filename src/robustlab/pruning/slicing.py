"""Cut tensors along their unit axes: parameters and buffers of modules, together with the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Cuts = Mapping[int, Tensor]
"""Axis -> positions to keep, (kept,) int64."""


def sliced(tensor: Tensor, cuts: Cuts) -> Tensor:
    """Return a detached copy with only the given positions of each axis, in the memory format of `tensor`."""
    kept = tensor.detach()
    for axis, positions in cuts.items():
        kept = kept.index_select(axis, positions.to(kept.device))
    if _is_channels_last(tensor):  # index_select gives the default format
        kept = torch.empty_like(kept, memory_format=torch.channels_last).copy_(kept)
    return kept


def _is_channels_last(tensor: Tensor) -> bool:
    # By strides: for 1x1 kernels is_contiguous() is true for both formats, but convolutions look at strides.
    return tensor.dim() == 4 and tensor.stride(1) == 1 and tensor.stride(3) == tensor.shape[1]


def expanded(positions: Tensor, columns: int) -> Tensor:
    """Return the input columns of units at `positions`: unit c owns c * columns ... (c + 1) * columns - 1."""
    return (positions[:, None] * columns + torch.arange(columns)).flatten()


def cut_module(module: nn.Module, cuts: Mapping[str, Cuts], optimizer: torch.optim.Optimizer | None) -> None:
    """Cut the named tensors of a convolution, linear layer or BatchNorm, and update the module's size attributes.

    A cut parameter becomes a new `nn.Parameter`, because cutting `data` in place breaks the next backward if an older
    graph still refers to the parameter. The optimizer gets the new parameter, and its state is cut in the same way.
    """
    for name, wanted in cuts.items():
        old = getattr(module, name)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(sliced(old, wanted), requires_grad=old.requires_grad)
            if old.grad is not None:
                new.grad = sliced(old.grad, wanted)
            setattr(module, name, new)
            if optimizer is not None:
                _replace(optimizer, old, new, wanted)
        else:
            setattr(module, name, sliced(old, wanted))
    if isinstance(module, _BatchNorm):
        module.num_features = len(next(iter(cuts.values()))[0])
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    else:
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        module.out_channels, module.in_channels = module.weight.shape[:2]


def _replace(optimizer: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter, cuts: Cuts) -> None:
    for group in optimizer.param_groups:  # keep the same lists, to which schedulers hold references
        for place, parameter in enumerate(group["params"]):
            if parameter is old:
                group["params"][place] = new
    if old in optimizer.state:
        optimizer.state[new] = {
            name: sliced(value, cuts) if isinstance(value, Tensor) and value.shape == old.shape else value
            for name, value in optimizer.state.pop(old).items()
        }
