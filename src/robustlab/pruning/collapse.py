"""Check that a network's output still depends on its input once some of its units are dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustlab.core.console import counted
from robustlab.core.errors import NumericalError
from robustlab.models.units import Units
from robustlab.pruning.scores import evaluating

FEW = 8
"""Number of images that suffice to find out whether the network depends on its input at all."""


def refuse_collapse(
    network: nn.Module, units: Units, dead: Mapping[str, Tensor], images: Tensor, *, t: int, advice: str
) -> None:
    """Raise `NumericalError` if no path from the images to the classifier is left without the `dead` units.

    - dead: set -> (current width,) bool.
    - images: (B, C, H, W) float.
    - t, advice: the current update, and what to do, for the message.
    """
    masks = {name: mask.to(images.device) for name, mask in dead.items()}
    cut = severing_sets(network, units, masks, images[:FEW])
    if cut:
        others = f" (and {counted(len(cut) - 1, 'more set')})" if len(cut) > 1 else ""
        raise NumericalError(
            f"all units of {cut[0]}{others} are dead at update {t}, and no skip connection bypasses them: the network "
            f"gives the same output for every image; {advice}, and run the command again"
        )


def severing_sets(network: nn.Module, units: Units, dead: Mapping[str, Tensor], images: Tensor) -> list[str]:
    """Return the names of completely dead sets that cut the classifier off from the images; empty if none do.

    A completely dead layer in a chain does; the inner layer of a residual block does not, because the skip bypasses it.
    If only several sets together do, all are named. Nothing is computed unless some set is completely dead.

    - dead: set -> (current width,) bool.
    - images: a few images, (B, C, H, W) float.
    """
    whole = [name for name, mask in dead.items() if bool(mask.all())]
    if not whole or _connected(network, units, dead, images):
        return []
    alone = [name for name in whole if not _connected(network, units, {name: dead[name]}, images)]
    return alone or whole


def _connected(network: nn.Module, units: Units, dead: Mapping[str, Tensor], images: Tensor) -> bool:
    """Return whether any logit depends on the images if `dead` units output 0 and all other units are linear."""
    probe = images.detach().clone().requires_grad_()
    with evaluating(network), _linear(network, units, dead), torch.enable_grad():
        logits = network.forward(probe)  # the raw forward: a compiled one does not call hooks
        (gradient,) = torch.autograd.grad(logits.float().abs().sum(), probe, allow_unused=True)
    return gradient is not None and bool(gradient.count_nonzero())


@contextmanager
def _linear(network: nn.Module, units: Units, dead: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace each registered activation by a gate: 0 for dead units, 1 for the others."""
    handles = []
    for one in units.sets:
        if one.name not in dead:
            continue
        last = any(isinstance(network.get_submodule(path), nn.Linear) for path in one.writers)

        def gate(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor, mask: Tensor = dead[one.name], last=last):
            live = (~mask).to(inputs[0])
            return inputs[0] * (live if last else live.view(-1, *[1] * (inputs[0].dim() - 2)))

        handles += [network.get_submodule(path).register_forward_hook(gate) for path in one.activations]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
