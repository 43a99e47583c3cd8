"""Drawing helpers for figures of concepts: a colour per concept, and images with slots highlighted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FADED = 0.16
"""Opacity of pixels outside a slot; the rest is white."""
NEUTRAL, STRONG = "#a8a8a8", "#3b6ea8"
TITLE = 10
"""Size of titles in points."""


def colour(concept: int) -> Any:
    """Return the colour of a concept: ten distinct ones, then twenty that are harder to tell apart."""
    import matplotlib

    if concept < 10:
        return matplotlib.colormaps["tab10"](concept)
    return matplotlib.colormaps["tab20b"]((concept - 10) % 20)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, independent of matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def slot_masks(winners: Tensor, slots: int, size: tuple[int, int]) -> Tensor:
    """Return the pixels that each slot wins, (M, N, H, W) bool.

    - winners: slot at each position, (M, h, w) int64.
    - slots: N.
    - size: H, W.
    """
    one_hot = F.one_hot(winners, slots).permute(0, 3, 1, 2).float()
    return F.interpolate(one_hot, size, mode="nearest") > 0.5


def as_picture(image: Tensor) -> np.ndarray:
    """Convert a (C, H, W) uint8 image with 1 or 3 channels to an (H, W, 3) float array in [0, 1]."""
    return image.cpu().expand(3, -1, -1).permute(1, 2, 0).numpy() / 255.0


def highlighted(picture: np.ndarray, mask: Tensor) -> np.ndarray:
    """Return the picture with everything outside the mask faded to grey."""
    grey = picture.mean(axis=2, keepdims=True) * FADED + (1 - FADED)
    return np.where(mask.cpu().numpy()[:, :, None], picture, np.broadcast_to(grey, picture.shape))


def coloured(picture: np.ndarray, masks: Tensor, concepts: Sequence[int]) -> np.ndarray:
    """Return the picture in grey, overlaid with the colours of its slots' concepts."""
    mixed = np.broadcast_to(picture.mean(axis=2, keepdims=True), picture.shape).copy()
    for mask, concept in zip(masks.cpu().numpy(), concepts, strict=True):
        if concept >= 0:
            mixed[mask] = 0.4 * mixed[mask] + 0.6 * np.array(colour(concept)[:3])
    return mixed


def outline(axis: Axes, mask: Tensor, concept: int) -> None:
    """Frame the picture, and trace the edge of the mask along pixel borders, in the concept's colour."""
    for spine in axis.spines.values():
        spine.set(edgecolor=colour(concept), linewidth=2)
    inside = mask.cpu().numpy()
    rows, columns = np.nonzero(inside[:, 1:] != inside[:, :-1])
    axis.vlines(columns + 0.5, rows - 0.5, rows + 0.5, color=colour(concept), linewidth=1.3)
    rows, columns = np.nonzero(inside[1:] != inside[:-1])
    axis.hlines(rows + 0.5, columns - 0.5, columns + 0.5, color=colour(concept), linewidth=1.3)


def show(axis: Axes, picture: np.ndarray) -> None:
    """Draw an image without ticks."""
    axis.imshow(picture, interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def legend(figure: Figure, concepts: Sequence[int]) -> None:
    """Add a legend of the concepts' colours below the figure."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour(concept), label=f"concept {concept}") for concept in concepts]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False, fontsize=8
    )  # fmt: skip
