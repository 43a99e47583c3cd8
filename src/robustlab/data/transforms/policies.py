"""Batched AutoAugment, RandAugment and TrivialAugment, with independent operations and magnitudes per sample.

A policy turns uniform random numbers into an operation and an argument per sample and stage. The batch is then sorted
by operation, and each operation runs once on the slice of samples that drew it, so that a batch of any size costs the
same few kernels.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.transforms import colour_ops as ops
from robustlab.data.transforms import geometry
from robustlab.data.transforms.policy_tables import SPACE, SUB_POLICIES, magnitudes, wide_magnitudes
from robustlab.data.transforms.transform import Transform, integers

_COLOR_OPERATIONS: dict[str, ops.Operation] = {
    "Identity": ops.identity,
    "Brightness": ops.brightness,
    "Color": ops.color,
    "Contrast": ops.contrast,
    "Sharpness": ops.sharpness,
    "Posterize": ops.posterize,
    "Solarize": ops.solarize,
    "AutoContrast": ops.autocontrast,
    "Equalize": ops.equalize,
    "Invert": ops.invert,
    "Hue": ops.hue,
}
_MATRICES = {
    "TranslateX": geometry.shift_x,
    "TranslateY": geometry.shift_y,
    "Rotate": geometry.rotation,
    "ShearX": geometry.slope_x,
    "ShearY": geometry.slope_y,
}
OPERATIONS = (*_COLOR_OPERATIONS, *_MATRICES)
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
_FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")  # a magnitude m stands for the factor 1 + m


class Staged(Transform):
    """A transform that runs a drawn operation on each sample, stage after stage."""

    def __init__(self, *, fill: int = 128, interpolation: str = "nearest", integer_translate: bool = True) -> None:
        """Check the arguments.

        - fill: grey level of uncovered areas.
        - interpolation: "nearest" or "bilinear".
        - integer_translate: truncate shifts to whole pixels as in torchvision; False shifts by fractions.
        """
        if interpolation not in ("nearest", "bilinear") or not 0 <= fill <= 255:
            raise ConfigError(
                f"{type(self).__name__} needs fill in 0..255 and interpolation nearest or bilinear, "
                f"got {fill} and {interpolation!r}"
            )
        self.fill, self.interpolation, self.integer_translate = fill, interpolation, integer_translate

    @abstractmethod
    def choose(self, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the positions in OPERATIONS, (B, S) int64, and arguments, (B, S) float32, for S stages.

        - u: uniform random numbers, (B, draws) float32 on the CPU.
        """

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the augmented images; synchronises once if `u` is on a device, never if it is on the CPU."""
        if len(images) == 0:
            return images
        number, argument = self.choose(u.cpu(), *images.shape[2:])
        order, arrangement = [], torch.arange(len(images))
        for stage in range(number.shape[1]):
            order.append(number[arrangement, stage].argsort(stable=True))
            arrangement = arrangement[order[-1]]
            argument[:, stage] = argument[arrangement, stage]
        counts = [torch.bincount(column, minlength=len(OPERATIONS)).tolist() for column in number.T]
        # One non-blocking copy each to the device, then slices of samples that drew the same operation.
        moved = torch.stack([*order, arrangement.argsort()]).to(images.device, non_blocking=True)
        argument = argument.to(images.device, non_blocking=True)
        for stage, count in enumerate(counts):
            images = images.index_select(0, moved[stage])
            self._run(images, argument[:, stage], count)
        return images.index_select(0, moved[-1])

    def _run(self, images: Tensor, argument: Tensor, counts: list[int]) -> None:
        """Modify sorted images in place; counts[k] consecutive samples have drawn operation k."""
        height, width = images.shape[2:]
        start, matrices, moved_from = 0, [], len(images)
        for name, count in zip(OPERATIONS, counts, strict=True):
            chosen = slice(start, start + count)
            start += count
            if count == 0 or name == "Identity":
                continue
            if name in _COLOR_OPERATIONS:
                images[chosen] = _COLOR_OPERATIONS[name](images[chosen], argument[chosen])
            elif self.integer_translate and name in ("TranslateX", "TranslateY"):
                function = geometry.translate_x if name == "TranslateX" else geometry.translate_y
                images[chosen] = function(images[chosen], argument[chosen], fill=self.fill)
            else:  # the remaining operations are affine and run together
                moved_from = min(moved_from, chosen.start)
                matrices.append(_MATRICES[name](argument[chosen], height, width))
        if matrices:
            images[moved_from:] = geometry.affine(
                images[moved_from:], torch.cat(matrices), fill=self.fill, interpolation=self.interpolation
            )


def _flags(names: tuple[str, ...]) -> Tensor:
    """Return which operations are named, (len(OPERATIONS),) bool."""
    return torch.tensor([name in names for name in OPERATIONS])


def _arguments(number: Tensor, magnitude: Tensor, u: Tensor, signed_rotate: bool) -> Tensor:
    """Return the arguments of operations: magnitudes with a random sign if they have one, factors around 1."""
    signed = _flags((*_FACTORS, *_MATRICES) if signed_rotate else (*_FACTORS, *(set(_MATRICES) - {"Rotate"})))
    return torch.where(signed[number] & (u < 0.5), -magnitude, magnitude) + _flags(_FACTORS)[number].float()


class AutoAugment(Staged):
    """One of 25 sub-policies per sample, each of whose two operations runs with its own probability."""

    draws = 5

    def __init__(
        self,
        policy: str = "cifar10",
        fill: int = 128,
        signed_rotate: bool = True,
        interpolation: str = "nearest",
        integer_translate: bool = True,
        solarize_levels: int = 256,
    ) -> None:
        """Check the arguments. `fill`, `interpolation`, `integer_translate`: see `Staged`.

        - policy: "cifar10" or "imagenet".
        - signed_rotate: False rotates anti-clockwise only (CrossSplit's released code).
        - solarize_levels: the threshold of bin m is levels * (1 - m / 9), 256 in the released code and 255 in
          torchvision.
        """
        super().__init__(fill=fill, interpolation=interpolation, integer_translate=integer_translate)
        if policy not in SUB_POLICIES:
            raise ConfigError(f"AutoAugment knows the policies {', '.join(SUB_POLICIES)}, not {policy!r}")
        self.policy, self.signed_rotate, self.solarize_levels = policy, signed_rotate, solarize_levels
        steps = SUB_POLICIES[policy]
        self._number = torch.tensor([[_NUMBER[step[0]] for step in pair] for pair in steps])
        self._probability = torch.tensor([[step[1] for step in pair] for pair in steps])
        self._tables: dict[tuple[int, int], Tensor] = {}

    def _magnitude(self, height: int, width: int) -> Tensor:
        """Return the magnitudes for images of a size, (25, 2) float32."""
        if (height, width) not in self._tables:
            self._tables[height, width] = torch.tensor(
                [
                    [
                        float(magnitudes(name, 10, height, width, solarize=self.solarize_levels)[m])
                        for name, _, m in pair
                    ]
                    for pair in SUB_POLICIES[self.policy]
                ]
            )
        return self._tables[height, width]

    def choose(self, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the choices; u: sub-policy, two probabilities, two signs."""
        chosen = integers(u[:, 0], len(self._number))
        number = self._number[chosen]
        argument = _arguments(number, self._magnitude(height, width)[chosen], u[:, 3:5], self.signed_rotate)
        return torch.where(u[:, 1:3] < self._probability[chosen], number, 0), argument


_SPACE_NUMBER = torch.tensor([_NUMBER[name] for name in SPACE])


class RandAugment(Staged):
    """`num_ops` operations per sample, drawn uniformly with replacement, all at the same magnitude."""

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        fill: int = 128,
        interpolation: str = "nearest",
        integer_translate: bool = True,
    ) -> None:
        """Check the arguments. Others are as in `Staged`.

        - magnitude: bin in 0 .. num_magnitude_bins - 1.
        """
        super().__init__(fill=fill, interpolation=interpolation, integer_translate=integer_translate)
        if num_ops < 1 or not 0 <= magnitude < num_magnitude_bins or num_magnitude_bins < 2:
            raise ConfigError(
                f"RandAugment needs num_ops >= 1 and magnitude in 0..{num_magnitude_bins - 1} of at least 2 bins, "
                f"got num_ops={num_ops}, magnitude={magnitude}"
            )
        self.num_ops, self.magnitude, self.bins = num_ops, magnitude, num_magnitude_bins
        self.draws = 2 * num_ops

    def choose(self, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the choices; u: the operations, then the signs."""
        drawn = integers(u[:, : self.num_ops], len(SPACE))
        table = _rand_magnitudes(self.bins, height, width)[:, self.magnitude]
        number = _SPACE_NUMBER[drawn]
        return number, _arguments(number, table[drawn], u[:, self.num_ops :], True)


class TrivialAugment(Staged):
    """One operation per sample, with a magnitude drawn uniformly from the wide space."""

    draws = 3

    def __init__(
        self,
        num_magnitude_bins: int = 31,
        fill: int = 128,
        interpolation: str = "nearest",
        integer_translate: bool = True,
    ) -> None:
        """Check the arguments. `num_magnitude_bins`: at least 2; others are as in `Staged`."""
        super().__init__(fill=fill, interpolation=interpolation, integer_translate=integer_translate)
        if num_magnitude_bins < 2:
            raise ConfigError(f"TrivialAugment needs at least 2 magnitude bins, got {num_magnitude_bins}")
        self.bins = num_magnitude_bins
        self._table = torch.stack([wide_magnitudes(name, num_magnitude_bins) for name in SPACE])

    def choose(self, u: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the choices; u: operation, magnitude, sign."""
        drawn, level = integers(u[:, :1], len(SPACE)), integers(u[:, 1:2], self.bins)
        number = _SPACE_NUMBER[drawn]
        return number, _arguments(number, self._table[drawn, level], u[:, 2:3], True)


@lru_cache(maxsize=64)
def _rand_magnitudes(bins: int, height: int, width: int) -> Tensor:
    """Return RandAugment's magnitudes for images of a size, (14, bins)."""
    return torch.stack([magnitudes(name, bins, height, width) for name in SPACE])
