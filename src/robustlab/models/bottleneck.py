"""ResNet-50: bottleneck blocks behind ImageNet's stem (He et al. 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from robustlab.models.heads import TwoHeads
from robustlab.models.layers import conv1x1, conv3x3
from robustlab.models.residual import ResidualBlock, ResNetTrunk
from robustlab.models.weights import started_from

BLOCKS = (3, 4, 6, 3)


class Bottleneck(ResidualBlock):
    """1x1 convolution to `width` channels, 3x3, 1x1 to 4 * width; each with BN, and ReLU after two and the addition.

    The stride is in the 3x3 convolution, as in torchvision and most published results, not in the first as in the
    paper.
    """

    depth, expansion = 3, 4

    def __init__(self, inputs: int, width: int, *, stride: int):
        """Build a block from `inputs` to 4 * `width` channels."""
        super().__init__()
        self.conv1 = conv1x1(inputs, width)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride=stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = conv1x1(width, 4 * width)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.act3 = nn.ReLU()
        self.join(inputs, width, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, H, W] to [B, 4 * width, H / stride, W / stride]."""
        hidden = self.act2(self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x))))))
        return self.act3(self.add(x, self.norm3(self.conv3(hidden))))


def resnet50(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    width: int = 64,
    zero_init: bool = True,
) -> TwoHeads:
    """Return ResNet-50 for ImageNet: 25,557,032 parameters at 1,000 classes, RGB, and 22,720 removable units.

    The stem is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2. width: channels of the stem and inside
    the first stage's blocks. zero_init: start the last norm scale of each block at 0, so that blocks start as their
    shortcuts (Goyal et al. 2017; DemP's code). Convolutions start from He et al.'s normal, by fan-out.
    weights: see `started_from`.
    """
    stem = nn.Conv2d(image_shape[0], width, 7, stride=2, padding=3, bias=False)
    widths = [width * 2**stage for stage in range(len(BLOCKS))]
    trunk = ResNetTrunk(stem, Bottleneck, widths=widths, blocks=BLOCKS, pool=nn.MaxPool2d(3, stride=2, padding=1))
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck) and zero_init:
            nn.init.zeros_(module.norm3.weight)
    network = TwoHeads(trunk, feature_dim=trunk.width, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)
