"""Score units by the criteria of the baselines: random, magnitude, loss gradient, gradient flow.

A gate is a factor of 1 on the *pre-activation* of a unit, with respect to which SNAP-S and CroP-S (DemP's code)
differentiate. A unit with several activation modules (stage_shared) has one gate for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.models.units import Units

Scores = dict[str, Tensor]
"""Unit set -> (current width,) float; the lowest scores are removed first."""

NORMS = {"l1": 1, "l2": 2}
NORMALIZERS = ("mean", "none")

Score = Callable[[nn.Module, Units, Iterable[Batch]], Scores]


def random_scores(widths: Mapping[str, int], *, key: int) -> Scores:
    """Return uniform random scores, float64 on the CPU, so that the lowest ones are a uniform sample.

    - key: random key, see `rng.fold`.
    """
    return {
        name: torch.rand(width, dtype=torch.float64, generator=rng.generator(rng.fold(key, name)))
        for name, width in widths.items()
    }


@torch.no_grad()
def magnitude_scores(network: nn.Module, units: Units, *, norm: str = "l1") -> Scores:
    """Return the norm of all parameters that produce a unit: incoming weights, bias, scale and offset of its norms.

    - norm: "l1" (sum of absolute values) or "l2" (of the concatenated vector).
    """
    power = NORMS[norm]
    found: Scores = {}
    for one in units.sets:
        modules = [network.get_submodule(path) for path in one.writers]
        parameters = [part for module in modules for part in (module.weight, module.bias) if isinstance(part, Tensor)]
        total = torch.stack([part.abs().pow(power).reshape(len(part), -1).sum(dim=1) for part in parameters]).sum(dim=0)
        found[one.name] = total.pow(1 / power)
    return found


@torch.no_grad()
def normalised(scores: Scores, normalizer: str) -> Scores:
    """Return scores divided by the mean of their set, or unchanged ("none"); a set with all-zero scores is unchanged.

    The norm of n identically distributed weights grows with n, so raw norms of layers with different fan-in are not
    comparable: at initialisation the lowest half of ResNet-18's L1 norms covers all but one unit in 10 of its 17 sets.
    """
    if normalizer == "none":
        return scores
    return {name: score / torch.where(score.any(), score.mean(), 1.0) for name, score in scores.items()}


@torch.no_grad()
def scale_scores(network: nn.Module, units: Units) -> Scores:
    """Return |gamma| of each unit (Liu et al. 2017), averaged if several norms write it.

    Raises `ConfigError` for units without a normalisation scale.
    """
    found: Scores = {}
    for one in units.sets:
        modules = [network.get_submodule(path) for path in one.writers]
        scales = [module.weight for module in modules if isinstance(module, _BatchNorm) and module.weight is not None]
        if not scales:
            raise ConfigError(
                f"the units {one.name} have no normalisation scale, by which network slimming ranks units; prune a "
                f"network with BatchNorm, or exclude them: method.surgery.exclude=[{one.name}]"
            )
        found[one.name] = torch.stack([scale.abs() for scale in scales]).mean(dim=0)
    return found


def snap_scores(network: nn.Module, units: Units, batches: Iterable[Batch]) -> Scores:
    """Return |sum over batches of dL/dg| (SNAP-S), with L the mean cross-entropy of a batch in eval mode, float32."""
    return _summed(network, units, batches, _gradients)


def crop_scores(network: nn.Module, units: Units, batches: Iterable[Batch]) -> Scores:
    """Return |sum over batches of H g| (CroP-S), each batch's Hessian in the gates times its gradient g."""
    return _summed(network, units, batches, _hessian_gradient_products)


def _gradients(loss: Tensor, gates: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, gates)


def _hessian_gradient_products(loss: Tensor, gates: list[Tensor]) -> tuple[Tensor, ...]:
    gradients = torch.autograd.grad(loss, gates, create_graph=True)
    along = [gradient.detach() for gradient in gradients]
    return torch.autograd.grad(gradients, gates, grad_outputs=along, materialize_grads=True)


def _summed(
    network: nn.Module,
    units: Units,
    batches: Iterable[Batch],
    derivative: Callable[[Tensor, list[Tensor]], tuple[Tensor, ...]],
) -> Scores:
    """Return |sum over batches of derivative(loss, gates)|; the network is left unchanged, without gradients."""
    # Fused attention kernels have no second derivative.
    attention = sdpa_kernel(SDPBackend.MATH) if derivative is _hessian_gradient_products else nullcontext()
    with evaluating(network), gates(network, units) as gate, attention, torch.enable_grad():
        total = [torch.zeros_like(value) for value in gate.values()]
        for batch in batches:
            assert batch.targets is not None
            # The raw forward: a compiled one supports neither these hooks nor a second derivative.
            loss = F.cross_entropy(network.forward(batch.images), batch.targets)
            total = [sum_ + part for sum_, part in zip(total, derivative(loss, list(gate.values())), strict=True)]
    return {name: value.detach().abs() for name, value in zip(gate, total, strict=True)}


@contextmanager
def gates(network: nn.Module, units: Units) -> Iterator[dict[str, Tensor]]:
    """Give every unit a gate of 1 inside the context; yield set -> (current width,) float."""
    found: dict[str, Tensor] = {}
    handles = []
    for one in units.sets:
        modules = [network.get_submodule(path) for path in one.writers]
        weight = next(module.weight for module in modules if isinstance(module.weight, Tensor))
        gate = torch.ones(len(weight), dtype=weight.dtype, device=weight.device, requires_grad=True)
        found[one.name] = gate
        # Channels are axis 1 of feature maps and the last axis of tokens, which come from a linear layer.
        last = any(isinstance(module, nn.Linear) for module in modules)

        def multiply(_: nn.Module, inputs: tuple[Tensor, ...], gate: Tensor = gate, last: bool = last):
            before, *rest = inputs
            return (before * (gate if last else gate.view(-1, *[1] * (before.dim() - 2))), *rest)

        handles += [network.get_submodule(path).register_forward_pre_hook(multiply) for path in one.activations]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network in eval mode inside the context."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def refreshed_statistics(network: nn.Module, batches: Iterable[Batch]) -> Iterator[None]:
    """Set BatchNorm's running statistics to the averages over `batches` inside the context, then restore them.

    At initialisation they are (0, 1), which may handicap scores computed in eval mode. Only BatchNorm is in train mode
    during the passes.
    """
    norms = [one for one in network.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    before = [({name: value.clone() for name, value in norm.named_buffers()}, norm.momentum) for norm in norms]
    try:
        with evaluating(network), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average
                norm.train()
            for batch in batches:
                network.forward(batch.images)
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.load_state_dict(buffers, strict=False)
            norm.momentum = momentum
