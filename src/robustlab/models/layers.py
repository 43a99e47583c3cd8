"""Small pieces that several networks share."""

from __future__ import annotations

from torch import nn

from robustlab.errors import ConfigError


def conv3x3(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with padding 1 and no bias (a normalisation follows)."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution with no bias, as shortcuts use where stride or width changes."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def choose(value: str, options: tuple[str, ...], *, name: str) -> str:
    """Return `value` where it is one of `options`, else raise `ConfigError` that names them."""
    if value not in options:
        raise ConfigError(f"{name}={value!r} is not known; choose one of {', '.join(options)}")
    return value
