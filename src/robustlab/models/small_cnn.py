"""A small convolutional network for CPU work, from 8x8 digits to 32x32 photographs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.chain import chain_units
from robustlab.models.heads import TwoHeads
from robustlab.models.layers import choose, conv3x3
from robustlab.models.units import Units
from robustlab.models.weights import started_from

NORMS = ("batch", "group", "none")


def _norm(kind: str, width: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    if kind == "group":
        return [nn.GroupNorm(8 if width % 8 == 0 else 1, width)]
    return []


class ConvTrunk(nn.Module):
    """Stages of 3x3 convolutions, mean over the last map: float [B, C, H, W] to [B, widths[-1]].

    A stage but the first begins with 2x2 max-pooling; or, where `strides` are given, nothing is pooled and the first
    convolution of each stage has its stride.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        widths: Sequence[int],
        convs: int,
        norm: str,
        stride: int = 1,
        strides: Sequence[int] | None = None,
    ):
        """Build one stage per entry of `widths`, each of `convs` convolutions, the very first with `stride`.

        norm: "batch", "group" or "none".
        """
        super().__init__()
        choose(norm, NORMS, name="model.norm")
        layers: list[nn.Module] = []
        inputs = in_channels
        first = [stride] + [1] * (len(widths) - 1) if strides is None else strides
        for stage, width in enumerate(widths):
            if stage and strides is None:
                layers.append(nn.MaxPool2d(2))
            for number in range(convs):
                # Without a normalisation the convolution needs its own bias.
                step = 1 if number else first[stage]
                conv = (
                    nn.Conv2d(inputs, width, 3, step, padding=1)
                    if norm == "none"
                    else conv3x3(inputs, width, stride=step)
                )
                layers += [conv, *_norm(norm, width), nn.ReLU()]
                inputs = width
        self.layers = nn.Sequential(*layers)

    def maps(self, images: Tensor) -> Tensor:
        """Return the feature maps before pooling: float [B, widths[-1], h, w]."""
        return self.layers(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features float [B, widths[-1]]."""
        return self.maps(images).mean(dim=(2, 3))

    def units(self) -> Units:
        """Declare the channels of each convolution."""
        return chain_units((f"layers.{name}", layer) for name, layer in self.layers.named_children())


def small_cnn(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    widths: Sequence[int] = (32, 64, 128),
    convs: int = 1,
    norm: str = "batch",
    stride: int = 1,
    strides: Sequence[int] | None = None,
) -> TwoHeads:
    """Return the network; default widths give 94,186 parameters at 10 classes and one channel.

    - stride: stride of the first convolution; 2 makes 32x32 images about four times cheaper.
    - strides: strides of the first convolution of each stage, instead of `stride` and of pooling between stages.
    - weights: see `started_from`.

    Raises `ConfigError` if the images are too small to be halved between all stages.
    """
    if not widths or min(widths) < 1 or convs < 1 or stride < 1:
        raise ConfigError(
            f"model.widths={list(widths)}, model.convs={convs}, model.stride={stride}: at least one stage "
            f"and one convolution are needed, all of positive width and stride"
        )
    channels, height, width = image_shape
    if strides is not None:
        if stride != 1 or len(strides) != len(widths) or min(strides) < 1:
            raise ConfigError(
                f"model.strides={list(strides)} needs one positive stride for each of {len(widths)} widths, "
                f"and model.stride=1, which it replaces"
            )
    elif min(height, width) < stride * 2 ** (len(widths) - 1):
        raise ConfigError(f"{height}x{width} images cannot be halved {len(widths) - 1} times; shorten model.widths")
    trunk = ConvTrunk(channels, widths=widths, convs=convs, norm=norm, stride=stride, strides=strides)
    network = TwoHeads(trunk, feature_dim=widths[-1], num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)
