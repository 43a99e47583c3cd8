"""Whether a network still tells images apart once some of its units are dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustlab.core.errors import NumericalError
from robustlab.models.units import Units
from robustlab.pruning.scores import evaluating

FEW = 8
"""Images that are enough to find out whether the network depends on them at all."""


def refuse_collapse(
    network: nn.Module, units: Units, dead: Mapping[str, Tensor], images: Tensor, *, t: int, advice: str
) -> None:
    """Raise `NumericalError` if without the units `dead` no path from the images to the classifier is left.

    dead: bool [current width] by set. images: float [B, C, H, W]. t, advice: the update, and what to do, for the
    message.
    """
    masks = {name: mask.to(images.device) for name, mask in dead.items()}
    cut = severing_sets(network, units, masks, images[:FEW])
    if cut:
        others = f" (and of {len(cut) - 1} more)" if len(cut) > 1 else ""
        raise NumericalError(
            f"all units of {cut[0]}{others} are dead at update {t}, and nothing leads around them: the network "
            f"gives one answer to every image; {advice}, and run the command again"
        )


def severing_sets(network: nn.Module, units: Units, dead: Mapping[str, Tensor], images: Tensor) -> list[str]:
    """Return the names of wholly dead sets that cut the classifier off from the images; empty where nothing does.

    A wholly dead layer of a chain does, the inner layer of a residual block does not: the skip leads around it. Where
    only several of them together do, all are named. dead: bool [current width] by set. images: a few, float
    [B, C, H, W]. Where no set is wholly dead, nothing is computed.
    """
    whole = [name for name, mask in dead.items() if bool(mask.all())]
    if not whole or _connected(network, units, dead, images):
        return []
    alone = [name for name in whole if not _connected(network, units, {name: dead[name]}, images)]
    return alone or whole


def _connected(network: nn.Module, units: Units, dead: Mapping[str, Tensor], images: Tensor) -> bool:
    """Return whether any logit depends on the images when units `dead` are 0 and all others pass on what they get."""
    probe = images.detach().clone().requires_grad_()
    with evaluating(network), _linear(network, units, dead), torch.enable_grad():
        logits = network.forward(probe)  # the raw forward: a compiled one does not call the hooks
        (gradient,) = torch.autograd.grad(logits.float().abs().sum(), probe, allow_unused=True)
    return gradient is not None and bool(gradient.count_nonzero())


@contextmanager
def _linear(network: nn.Module, units: Units, dead: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace each registered activation by a gate: 0 for dead units, 1 for the others, which thus never go silent."""
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
