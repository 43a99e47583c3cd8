"""Small pieces that several networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.core.errors import ConfigError


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution without bias whose stride is taken before the product, on a CPU.

    The value is the same. oneDNN's weight gradient of a strided 1x1 convolution in channels_last writes beyond its
    buffer for fewer than 8 input channels (torch 2.15: "corrupted double-linked list"), widths that pruning leaves.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map float [B, in_channels, H, W] to [B, out_channels, ceil(H / stride), ceil(W / stride)]."""
        if input.device.type != "cpu" or self.stride == (1, 1):
            return super().forward(input)
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight)


def conv3x3(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with padding 1 and no bias (a normalisation follows)."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution with no bias, as shortcuts use where stride or width changes."""
    return Conv1x1(inputs, outputs, 1, stride, bias=False)


def choose(value: str, options: tuple[str, ...], *, name: str) -> str:
    """Return `value` where it is one of `options`, else raise `ConfigError` that names them."""
    if value not in options:
        raise ConfigError(f"{name}={value!r} is not known; choose one of {', '.join(options)}")
    return value
