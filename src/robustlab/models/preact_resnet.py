"""Pre-activation residual networks: CrossSplit's ResNet-18 and (wide) ResNets such as ResNet-8 = WRN-10-1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.heads import TwoHeads
from robustlab.models.layers import choose, conv1x1, conv3x3
from robustlab.models.skip import Selector
from robustlab.models.units import FEATURES, Reader, Skip, Units, UnitSet
from robustlab.models.weights import started_from

SHORTCUTS = ("activated", "raw")


class PreActBlock(nn.Module):
    """h = ReLU(BN(x)); out = conv(ReLU(BN(conv(h)))) + shortcut.

    Where stride or width changes, the shortcut is a 1x1 convolution of h. Else it is h itself (`"activated"`, as in
    the official code of CrossSplit, DivideMix and UNICON) or the raw x (`"raw"`, He et al. 2016, identity
    mappings).
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, shortcut: str):
        """Build a block from `inputs` to `outputs` channels; `shortcut` is "activated" or "raw"."""
        super().__init__()
        self.raw = choose(shortcut, SHORTCUTS, name="model.shortcut") == "raw"
        self.norm1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU()
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.conv2 = conv3x3(outputs, outputs)
        self.skip = Selector()
        self.shortcut = conv1x1(inputs, outputs, stride=stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        activated = self.act1(self.norm1(x))
        identity = x if self.raw else activated
        carried = identity if self.shortcut is None else self.shortcut(activated)
        hidden = self.conv1(activated)
        return self.skip(carried, self.conv2(self.act2(self.norm2(hidden))))

    def unit_sets(self, path: str) -> tuple[UnitSet, UnitSet]:
        """Return the block's activated input, whose other writers come before it, and its inner channels."""
        readers = [f"{path}.conv1"] + ([f"{path}.shortcut"] if self.shortcut is not None else [])
        return (
            UnitSet(
                f"{path}.input",
                self.norm1.num_features,
                (f"{path}.act1",),
                (f"{path}.norm1",),
                tuple(Reader(reader) for reader in readers),
                residual=True,
            ),
            UnitSet(
                f"{path}.conv1",
                self.norm2.num_features,
                (f"{path}.act2",),
                (f"{path}.conv1", f"{path}.norm2"),
                (Reader(f"{path}.conv2"),),
            ),
        )


class PreActTrunk(nn.Module):
    """Stem, stages of pre-activation blocks, pooling: float [B, C, H, W] to [B, feature_dim].

    The first stage keeps the size, each later one halves it. `image_shape`: C, H, W. `stem_norm`: BatchNorm-ReLU after
    the stem. `final_norm`: BatchNorm-ReLU before pooling. `pool`: side of the average pool; None pools over the whole
    map.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        stem: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        shortcut: str,
        stem_norm: bool,
        final_norm: bool,
        pool: int | None,
    ):
        """Build the trunk; `widths` and `blocks` have one entry a stage. Raises `ConfigError` for images too small."""
        super().__init__()
        self.pool = pool
        self.raw = shortcut == "raw"
        self.stem = conv3x3(image_shape[0], stem)
        self.stem_norm = nn.BatchNorm2d(stem) if stem_norm else None
        self.stem_act = nn.ReLU()
        stages: list[nn.Module] = []
        inputs = stem
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            layers = []
            for stride in strides:
                layers.append(PreActBlock(inputs, width, stride=stride, shortcut=shortcut))
                inputs = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.final_norm = nn.BatchNorm2d(widths[-1]) if final_norm else None
        self.final_act = nn.ReLU()
        self.positions = self._positions(*image_shape[1:])
        self.feature_dim = widths[-1] * self.positions

    def maps(self, images: Tensor) -> Tensor:
        """Return the feature maps before pooling: float [B, width, h, w], 4x4 for 32x32 images and four stages."""
        x = self.stem(images)
        if self.stem_norm is not None:
            x = self.stem_act(self.stem_norm(x))
        for stage in self.stages:
            x = stage(x)
        return x if self.final_norm is None else self.final_act(self.final_norm(x))

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled, flattened features."""
        maps = self.maps(images)
        if self.pool is None:
            return maps.mean(dim=(2, 3))
        return F.avg_pool2d(maps, self.pool).flatten(1)

    def units(self) -> Units:
        """Declare the inner channels of each block and, with the "activated" shortcut, the streams between blocks.

        A stream is tested where a block activates it, and belongs to whatever adds to it. With the "raw" shortcut it
        goes on unactivated, where no channel is ever zero, so it stays whole; so does the output of the last block
        unless a final norm and ReLU follow.
        """
        blocks = {path: block for path, block in self.named_modules() if isinstance(block, PreActBlock)}
        following = [f"{path}.input" for path in list(blocks)[1:]] + ["final" if self.final_norm else None]
        sets: list[UnitSet] = []
        skips: list[Skip] = []
        stream = ("stem",) if self.stem_norm is None else ("stem", "stem_norm")
        for (path, block), target in zip(blocks.items(), following, strict=True):
            into, inner = block.unit_sets(path)
            if not block.raw:
                sets.append(replace(into, writers=(*stream, *into.writers)))
            if not block.raw and block.shortcut is None:
                skips.append(Skip(f"{path}.skip", into.name, target))
            sets.append(inner)
            stream = (f"{path}.conv2",) if block.shortcut is None else (f"{path}.conv2", f"{path}.shortcut")
        if self.final_norm is not None and not self.raw:
            readers = (Reader(FEATURES, self.positions),)
            width = self.final_norm.num_features
            sets.append(UnitSet("final", width, ("final_act",), (*stream, "final_norm"), readers, residual=True))
        return Units(tuple(sets), tuple(skips))

    def _positions(self, height: int, width: int) -> int:
        """Return the number of features that each channel of the last map contributes."""
        if self.pool is None:
            return 1
        for _ in self.stages[1:]:
            height, width = (height + 1) // 2, (width + 1) // 2
        if min(height, width) < self.pool:
            raise ConfigError(
                f"images give a {height}x{width} map before pooling, too small for the {self.pool}x{self.pool} "
                f"average pool; set model.pool=null (pool over the whole map) or choose model=small_cnn"
            )
        return (height // self.pool) * (width // self.pool)


def preact_resnet18(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    width: int = 64,
    shortcut: str = "activated",
    final_bn: bool = False,
    pool: int | None = 4,
) -> TwoHeads:
    """Return the pre-activation ResNet-18 of CrossSplit's official code: 11,171,274 parameters at 10 classes, RGB.

    With proj_dim=128: 11,237,194 (C=10), 11,283,364 (C=100). The pool stays 4x4, so 64x64 images give 2,048 features,
    as in UNICON's code for Tiny-ImageNet. PyTorch's default initialisation.
    weights: see `started_from`.
    """
    trunk = PreActTrunk(
        image_shape,
        stem=width,
        widths=[width, 2 * width, 4 * width, 8 * width],
        blocks=[2, 2, 2, 2],
        shortcut=shortcut,
        stem_norm=True,
        final_norm=final_bn,
        pool=pool,
    )
    network = TwoHeads(trunk, feature_dim=trunk.feature_dim, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)


def wide_resnet(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    depth: int = 28,
    widen: int = 10,
    shortcut: str = "raw",
) -> TwoHeads:
    """Return a wide ResNet (Zagoruyko and Komodakis 2016) without dropout; depth = 6 n + 4, three stages of n blocks.

    depth=10, widen=1 is ResNet-8 (77,850 parameters at 10 classes, RGB); depth=28, widen=10 has 36,479,194.
    Raises `ConfigError` for another depth.
    weights: see `started_from`.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ConfigError(f"model.depth={depth} is not a depth of a wide ResNet; it must be 6 n + 4: 10, 16, 22, 28")
    trunk = PreActTrunk(
        image_shape,
        stem=16,
        widths=[16 * widen, 32 * widen, 64 * widen],
        blocks=[(depth - 4) // 6] * 3,
        shortcut=shortcut,
        stem_norm=False,
        final_norm=True,
        pool=None,
    )
    network = TwoHeads(trunk, feature_dim=trunk.feature_dim, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)
