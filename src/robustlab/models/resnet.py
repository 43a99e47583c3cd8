"""The post-activation ResNet for 32x32 images: 3x3 stem, no max-pooling (He et al. 2015, the usual CIFAR variant)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.errors import ConfigError
from robustlab.models.heads import TwoHeads
from robustlab.models.layers import conv1x1, conv3x3

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """out = ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x)); shortcut: 1x1 convolution and BN, or identity."""

    def __init__(self, inputs: int, outputs: int, *, stride: int):
        """Build a block from `inputs` to `outputs` channels."""
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        carried = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.norm2(self.conv2(hidden)) + carried)


class ResNetTrunk(nn.Module):
    """Stem, four stages, mean over the last map: float [B, C, H, W] to [B, 8 * width]."""

    def __init__(self, in_channels: int, *, blocks: tuple[int, ...], width: int):
        """Build the trunk; stage k has `blocks[k]` blocks of `width` * 2^k channels."""
        super().__init__()
        self.stem = conv3x3(in_channels, width)
        self.norm = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            layers = [BasicBlock(inputs, outputs, stride=1 if stage == 0 else 2)]
            layers += [BasicBlock(outputs, outputs, stride=1) for _ in range(count - 1)]
            stages.append(nn.Sequential(*layers))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.width = inputs

    def maps(self, images: Tensor) -> Tensor:
        """Return the feature maps before pooling: float [B, 8 * width, h, w], 4x4 for 32x32 images."""
        return self.stages(F.relu(self.norm(self.stem(images))))

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features."""
        return self.maps(images).mean(dim=(2, 3))


def cifar_resnet(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    depth: int = 18,
    width: int = 64,
) -> TwoHeads:
    """Return ResNet-18 (11,173,962 parameters at 10 classes, RGB) or ResNet-34 (21,282,122).

    PyTorch's default initialisation. Raises `ConfigError` for another depth.
    """
    if depth not in BLOCKS:
        raise ConfigError(f"model.depth={depth}: this ResNet comes with 18 or 34 layers; for others choose model=timm")
    trunk = ResNetTrunk(image_shape[0], blocks=BLOCKS[depth], width=width)
    return TwoHeads(trunk, feature_dim=trunk.width, num_classes=num_classes, proj_dim=proj_dim)
