"""The trunk of post-activation residual networks, and the declaration of its removable channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from robustlab.models.layers import conv1x1
from robustlab.models.skip import Selector
from robustlab.models.units import FEATURES, Reader, Skip, Units, UnitSet


class ResidualBlock(nn.Module):
    """Base of blocks out = ReLU(BN(conv(... ReLU(BN(conv(x))))) + shortcut(x)); a subclass has conv1, norm1, act1, ...

    The last ReLU, act<depth>, comes after the addition. The shortcut is a 1x1 convolution and BN where stride or width
    changes, else the identity.
    """

    depth: ClassVar[int]  # convolutions of the block
    expansion: ClassVar[int]  # output channels per channel of `width`

    def join(self, inputs: int, width: int, *, stride: int) -> None:
        """Make shortcut and skip; subclasses call it after their convolutions, which fixes the order of the draws."""
        outputs = width * self.expansion
        self.skip = Selector()
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs))

    def add(self, x: Tensor, out: Tensor) -> Tensor:
        """Return `out` plus the shortcut of the block's input x."""
        return self.skip(x if self.shortcut is None else self.shortcut(x), out)

    def readers(self, path: str) -> tuple[Reader, ...]:
        """Return who reads the input of the block at `path`."""
        shortcut = () if self.shortcut is None else (Reader(f"{path}.shortcut.0"),)
        return (Reader(f"{path}.conv1"), *shortcut)

    def unit_sets(self, path: str, readers: tuple[Reader, ...]) -> list[UnitSet]:
        """Return the inner channels and, last, the output channels of the block at `path`, which `readers` read."""
        shortcut = () if self.shortcut is None else (f"{path}.shortcut.0", f"{path}.shortcut.1")
        sets = []
        for number in range(1, self.depth + 1):
            last = number == self.depth
            norm = self.get_submodule(f"norm{number}")
            assert isinstance(norm, nn.BatchNorm2d)
            sets.append(
                UnitSet(
                    f"{path}.output" if last else f"{path}.conv{number}",
                    norm.num_features,
                    activations=(f"{path}.act{number}",),
                    writers=(f"{path}.conv{number}", f"{path}.norm{number}", *(shortcut if last else ())),
                    readers=readers if last else (Reader(f"{path}.conv{number + 1}"),),
                    residual=last,
                )
            )
        return sets


class ResNetTrunk(nn.Module):
    """Stem, stages of blocks, mean over the last map: float [B, C, H, W] to [B, width]; later stages halve the size."""

    def __init__(
        self,
        stem: nn.Conv2d,
        block: type[ResidualBlock],
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        pool: nn.Module | None = None,
    ):
        """Build the trunk; stage k has `blocks[k]` blocks of `widths[k]`. pool: between stem and stages."""
        super().__init__()
        self.stem = stem
        self.norm = nn.BatchNorm2d(stem.out_channels)
        self.act = nn.ReLU()
        self.pool = nn.Identity() if pool is None else pool
        stages: list[nn.Module] = []
        inputs = stem.out_channels
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers: list[nn.Module] = []
            for index in range(count):
                layers.append(block(inputs, width, stride=2 if stage and not index else 1))
                inputs = width * block.expansion
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.width = inputs

    def maps(self, images: Tensor) -> Tensor:
        """Return the feature maps before pooling: float [B, width, h, w]."""
        return self.stages(self.pool(self.act(self.norm(self.stem(images)))))

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features."""
        return self.maps(images).mean(dim=(2, 3))

    def units(self) -> Units:
        """Declare stem, inner and output channels of all blocks; an identity skip carries one stream to the next."""
        blocks = {path: block for path, block in self.named_modules() if isinstance(block, ResidualBlock)}
        readers = [block.readers(path) for path, block in blocks.items()] + [(Reader(FEATURES),)]
        stem = UnitSet("stem", self.stem.out_channels, ("act",), ("stem", "norm"), readers[0], residual=True)
        sets, skips = [stem], []
        for (path, block), following in zip(blocks.items(), readers[1:], strict=True):
            source = sets[-1].name
            sets += block.unit_sets(path, following)
            if block.shortcut is None:
                skips.append(Skip(f"{path}.skip", source, sets[-1].name))
        return Units(tuple(sets), tuple(skips))
