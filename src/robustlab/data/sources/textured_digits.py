"""Synthetic digits (or clothes) with a background or a patch that correlates with the class, generated in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.sources.grey_images import SIDE, Images, grey_images
from robustlab.data.sources.shortcuts import aligned, check_share, shuffled
from robustlab.data.transforms.transform import single_thread

_COLOURS = ((0.55, 0.38, 0.22), (0.22, 0.38, 0.62))  # brown, blue
_CLASSES = {True: ((0, 3, 6, 8), (1, 4, 7)), False: ((0, 2, 4, 6), (5, 7, 9))}  # digits; clothes
_NAMES = {True: ("round", "straight"), False: ("tops", "shoes")}
_SHORTCUTS = {"background": ("brown_vertical", "blue_horizontal"), "patch": ("brown", "blue")}
_PATCH, _MARGIN = 5, 1  # side of the patch and its distance from the upper left corner
_CHUNK = 1024


class TexturedDigits(DataSource):
    """Two classes, round {0, 3, 6, 8} and straight {1, 4, 7} digits, whose background is an easier cue than the shape.

    An off-white digit is placed at a random position over a brown background with vertical stripes (a = 0) or a blue
    one with horizontal stripes (a = 1), of random phase, frequency and brightness, with a little noise. With shortcut
    "patch", a coloured 5x5 square in the upper left corner of a dark grey image replaces the background. For
    Fashion-MNIST, the classes are tops {T-shirt, pullover, coat, shirt} and shoes {sandal, sneaker, ankle boot}.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        images: Images = "mnist_npz",
        root: str = "data",
        file: str | None = None,
        download: bool = False,
        shortcut: str = "background",
        correlation: float = 0.95,
        eval_correlation: float = 0.5,
        train: int = 5200,
        val: int = 1500,
        test: int = 1876,
        size: int = 32,
        seed: int = 0,
        mean: Sequence[float] = (0.33, 0.319, 0.334),
        std: Sequence[float] = (0.217, 0.189, 0.228),
    ) -> None:
        """Check the arguments.

        - images, root, file, download: as in `grey_images`.
        - shortcut: "background" or "patch".
        - correlation, eval_correlation: share of each class with a = y in train, and in val and test.
        - train, val, test: number of images, from one pool of the source's training and test images; val and test do
          not depend on `train`.
        - size: side of the images, at least 28.
        - seed: seed of all draws, independent of the run's seed.
        - mean, std: per channel, for pixels in [0, 1].
        """
        check_share("correlation", correlation)
        check_share("eval_correlation", eval_correlation)
        if shortcut not in _SHORTCUTS:
            raise ConfigError(f"dataset.source.shortcut must be background or patch, not {shortcut!r}")
        if size < SIDE or min(train, val, test) < 1:
            raise ConfigError(f"dataset.source needs size >= {SIDE} and train, val and test >= 1")
        self.images, self.root, self.file, self.download = images, root, file, download
        self.shortcut, self.size, self.seed = shortcut, size, seed
        self.correlations = {"train": correlation, "val": eval_correlation, "test": eval_correlation}
        self.sizes = {"test": test, "val": val, "train": train}  # in the order in which images are taken from the pool
        digits = images != "fashion_mnist"
        self.classes = _CLASSES[digits]
        self.task = TaskSpec(2, (3, size, size), tuple(mean), tuple(std), _NAMES[digits], _SHORTCUTS[shortcut])

    def split(self, name: str) -> Split:
        """Return "train", "val" or "test" with attributes."""
        if name not in self.splits:
            raise ConfigError(f"this data set has the splits train, val and test, not {name!r}")
        grey, classes = grey_images(self.images, root=self.root, file=self.file, download=self.download).pooled
        member = torch.full((10,), -1)
        for label, group in enumerate(self.classes):
            member[list(group)] = label
        pool = torch.nonzero(member[classes] >= 0).flatten()
        wanted = sum(self.sizes.values())
        if wanted > len(pool):
            raise ConfigError(
                f"train, val and test need {wanted} images, but {self.images} has {len(pool)} of these classes; lower "
                "dataset.source.train, val or test, or use another dataset.source.images"
            )
        pool = pool[shuffled(self._key("order"), len(pool))]
        parts = dict(zip(self.sizes, pool[:wanted].split(list(self.sizes.values())), strict=True))
        rows = parts[name]
        labels = member[classes[rows]]
        attributes = aligned(labels, self.correlations[name], num_attributes=2, key=self._key("attribute"), index=rows)
        return Split(self._render(grey[rows], attributes, rows), labels, attributes)

    def _key(self, purpose: str) -> int:
        return rng.fold(self.seed, "textured digits", purpose)

    def _render(self, grey: Tensor, attributes: Tensor, index: Tensor) -> Tensor:
        """Render digits, (N, 28, 28) uint8, to (N, 3, size, size) uint8; `index` is the counter of random draws."""
        chunks = zip(grey.split(_CHUNK), attributes.split(_CHUNK), index.split(_CHUNK), strict=True)
        with single_thread():
            return torch.cat([self._paint(*chunk) for chunk in chunks])

    def _paint(self, grey: Tensor, attributes: Tensor, index: Tensor) -> Tensor:
        u = rng.uniform(self._key("image"), index, 9).double()
        background = _textured if self.shortcut == "background" else _patched
        shade = 0.80 + 0.14 * u[:, 2:3] + 0.04 * u[:, 3:6]  # slightly tinted
        strokes = _placed(grey, u[:, 0], u[:, 1], self.size)
        image = torch.lerp(background(attributes, u[:, 6:], self.size), shade[:, :, None, None], strokes)
        noise = rng.uniform(self._key("noise"), index, 3 * self.size**2).double().view_as(image) - 0.5
        return ((image + 0.08 * noise).clamp(0.0, 1.0) * 255).round().to(torch.uint8)


def _placed(digits: Tensor, row: Tensor, column: Tensor, size: int) -> Tensor:
    """Place digits at positions given by uniforms `row` and `column`: (N, 1, size, size) float64 in [0, 1]."""
    places = size - SIDE + 1
    frames = torch.zeros((len(digits), 1, size, size), dtype=torch.float64)
    top, left = ((u * places).long()[:, None] + torch.arange(SIDE) for u in (row, column))
    frames[torch.arange(len(digits))[:, None, None], 0, top[:, :, None], left[:, None, :]] = digits.double() / 255
    return frames


def _textured(attributes: Tensor, u: Tensor, size: int) -> Tensor:
    """Return striped backgrounds, (N, 3, size, size) float64; u: number of stripes, phase, brightness."""
    frequency, phase, brightness = 3.0 + 4.0 * u[:, 0], u[:, 1], 0.45 + 0.45 * u[:, 2]
    ramp = torch.arange(size, dtype=torch.float64) / size
    wave = torch.sin(2 * math.pi * (frequency[:, None] * ramp + phase[:, None]))
    stripes = (brightness[:, None] * (1.0 + 0.3 * wave))[:, None, :]  # along the columns: vertical stripes
    square = stripes.expand(-1, size, -1)
    square = torch.where((attributes == 1)[:, None, None], square.transpose(1, 2), square)
    return torch.tensor(_COLOURS, dtype=torch.float64)[attributes][:, :, None, None] * square[:, None]


def _patched(attributes: Tensor, u: Tensor, size: int) -> Tensor:
    """Return dark grey backgrounds with a coloured square, (N, 3, size, size) float64; u: grey level, -, brightness."""
    image = (0.12 + 0.12 * u[:, 0])[:, None, None, None].repeat(1, 3, size, size)
    colour = torch.tensor(_COLOURS, dtype=torch.float64)[attributes] * (0.8 + 0.6 * u[:, 2:3])
    image[:, :, _MARGIN : _MARGIN + _PATCH, _MARGIN : _MARGIN + _PATCH] = colour[:, :, None, None]
    return image
