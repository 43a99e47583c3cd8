"""Make the units of torchvision's and timm's ResNets removable, without changing weight names or outputs."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from robustlab.models.layers import conv1x1
from robustlab.models.skip import Selector
from robustlab.models.units import FEATURES, Reader, Skip, Units, UnitSet

HOMES = ("torchvision.models.resnet", "timm.models.resnet")
"""Library modules that define the networks, as names, since importing either takes a second."""


class PrunableBlock(nn.Module):
    """A basic or bottleneck block with a library block's modules, separate activations, and a `Selector`.

    torchvision calls one ReLU two or three times per block, and both libraries add the skip in place, so neither allows
    telling which units are dead where, nor skips between sides of different width.
    """

    def __init__(self, block: nn.Module) -> None:
        """Take over the modules of `block` under the same names."""
        super().__init__()
        self.depth = 3 if hasattr(block, "conv3") else 2
        for number in range(1, self.depth + 1):
            for name in (f"conv{number}", f"bn{number}"):
                self.add_module(name, block.get_submodule(name))
            self.add_module(f"act{number}", _activation(block, number))
        downsample = getattr(block, "downsample", None)
        self.downsample = None if downsample is None else _sequence(downsample)
        self.drop_path = getattr(block, "drop_path", None)
        self.skip = Selector()

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, C, H, W] to the output of the block."""
        out = x
        for number in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            if number < self.depth:
                out = self.get_submodule(f"act{number}")(out)
        if self.drop_path is not None:
            out = self.drop_path(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.get_submodule(f"act{self.depth}")(self.skip(shortcut, out))

    def projection(self) -> list[str]:
        """Return the names of convolution and norm of the shortcut, none where it is the identity."""
        if self.downsample is None:
            return []
        return [f"downsample.{name}" for name, module in self.downsample.named_children() if list(module.parameters())]


def make_prunable(model: nn.Module) -> None:
    """Replace the blocks of a torchvision or timm ResNet by `PrunableBlock`; other models are unchanged.

    So are ResNets with parts that mix channels: squeeze-and-excitation, blurred striding, DropBlock, a convolution
    instead of the stem's pooling, two kinds of pooling in parallel.
    """
    if not _is(model, "ResNet") or not isinstance(model.maxpool, nn.MaxPool2d):
        return
    mult = getattr(getattr(model, "global_pool", None), "feat_mult", None)
    blocks = [(path, block) for path, block in model.named_modules() if _is(block, "BasicBlock", "Bottleneck")]
    if (callable(mult) and mult() != 1) or not all(_is_plain(block) for _, block in blocks):
        return
    for path, block in blocks:
        model.set_submodule(path, PrunableBlock(block))
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]


def resnet_units(trunk: nn.Module) -> Units:
    """Return stem, inner and output channels of all blocks that `make_prunable` has made; none for other trunks."""
    blocks = {path: block for path, block in trunk.named_modules() if isinstance(block, PrunableBlock)}
    if not blocks:
        return Units(())
    readers = [_readers(path, block) for path, block in blocks.items()] + [(Reader(FEATURES),)]
    sets, skips = list(_stem(trunk, readers[0])), []
    for (path, block), following in zip(blocks.items(), readers[1:], strict=True):
        source = sets[-1].name
        for number in range(1, block.depth + 1):
            last = number == block.depth
            projection = [f"{path}.{name}" for name in block.projection()] if last else []
            sets.append(
                UnitSet(
                    f"{path}.output" if last else f"{path}.conv{number}",
                    _width(block.get_submodule(f"conv{number}")),
                    activations=(f"{path}.act{number}",),
                    writers=(f"{path}.conv{number}", f"{path}.bn{number}", *projection),
                    readers=following if last else (Reader(f"{path}.conv{number + 1}"),),
                    residual=last,
                )
            )
        if block.downsample is None:
            skips.append(Skip(f"{path}.skip", source, sets[-1].name))
    return Units(tuple(sets), tuple(skips))


def _stem(trunk: nn.Module, readers: tuple[Reader, ...]) -> Iterator[UnitSet]:
    """Yield the sets before the first block: the stem, and of a deep one its first convolutions."""
    activation = "relu" if hasattr(trunk, "relu") else "act1"
    first, path = trunk.get_submodule("conv1"), "conv1"
    if isinstance(first, nn.Sequential):  # convolution, norm, activation, ..., convolution
        names = [f"conv1.{name}" for name, _ in first.named_children()]
        for conv, norm, act, following in zip(names[:-1:3], names[1::3], names[2::3], names[3::3], strict=True):
            yield UnitSet(conv, _width(trunk.get_submodule(conv)), (act,), (conv, norm), (Reader(following),))
        path = names[-1]
    width = _width(trunk.get_submodule(path))
    yield UnitSet("stem", width, (activation,), (path, "bn1"), readers, residual=True)


def _readers(path: str, block: PrunableBlock) -> tuple[Reader, ...]:
    return (Reader(f"{path}.conv1"), *(Reader(f"{path}.{name}") for name in block.projection()[:1]))


def _width(conv: nn.Module) -> int:
    assert isinstance(conv, nn.Conv2d)
    return conv.out_channels


def _is_plain(block: nn.Module) -> bool:
    """Return whether a block consists only of modules that `PrunableBlock` takes over."""
    parts = [getattr(block, name, None) for name in ("se", "aa", "drop_block")]
    return all(part is None or isinstance(part, nn.Identity) for part in parts)


def _is(module: nn.Module, *names: str) -> bool:
    return type(module).__module__ in HOMES and type(module).__name__ in names


def _activation(block: nn.Module, number: int) -> nn.Module:
    own = getattr(block, f"act{number}", None)
    return nn.ReLU() if own is None else own


def _sequence(downsample: nn.Module) -> nn.Sequential:
    """Return a shortcut in which no strided 1x1 convolution writes beyond its buffer: see `layers.Conv1x1`."""
    assert isinstance(downsample, nn.Sequential)
    for name, conv in downsample.named_children():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.bias is None:
            stride = conv.stride[0]
            safe = conv1x1(conv.in_channels, conv.out_channels, stride=stride)
            safe.weight = conv.weight
            downsample.add_module(name, safe)
    return downsample
