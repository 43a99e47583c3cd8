"""Hyperparameters of concept discovery, one dataclass per group of the method's YAML.

Defaults are the paper's values for Waterbirds and CelebA where known, else the project's own choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from robustlab.core.checks import at_least, choose, within
from robustlab.core.errors import ConfigError
from robustlab.data.transforms.jitter import check_ranges


@dataclass(frozen=True)
class SlotSettings:
    """The networks of stage 1.

    - count: N, the number of slots per image.
    - dim: d, the width of a slot.
    - hidden: hidden width of projector and predictor (SlotCon: 4096).
    """

    count: int = 4
    dim: int = 32
    hidden: int = 1024

    def __post_init__(self) -> None:
        at_least("slots.count", self.count, 2)
        at_least("slots.dim", self.dim, 1)
        at_least("slots.hidden", self.hidden, 1)


@dataclass(frozen=True)
class ViewSettings:
    """The two crops of an image and their appearance; properties that are randomised cannot become concepts.

    - scale: bounds of a crop's area, as a fraction of the image.
    - ratio: bounds of its width over its height, log-uniform.
    - min_overlap: minimum overlap of the two crops, as a fraction of the smaller one.
    - attempts: how often a second crop is drawn until it overlaps enough; after that the first one is used twice.
    - flip: probability of a horizontal flip.
    - size: side of the views in pixels; null for the image's own.
    - jitter: strengths of brightness, contrast, saturation (factors in [1 - s, 1 + s]) and hue (turns in [-s, s]),
      applied in this order.
    - jitter_probability, grey: probabilities.
    - blur, solarise: probabilities for the first and the second view.
    - blur_sigma: bounds of the standard deviation, in pixels.
    - solarise_threshold: grey level above which pixels are inverted.
    """

    scale: Sequence[float] = (0.2, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    min_overlap: float = 0.1
    attempts: int = 10
    flip: float = 0.5
    size: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    jitter: Sequence[float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grey: float = 0.2
    blur: Sequence[float] = (0.0, 0.0)
    blur_sigma: Sequence[float] = (0.1, 2.0)
    solarise: Sequence[float] = (0.0, 0.0)
    solarise_threshold: int = 128

    def __post_init__(self) -> None:
        for name, length in (
            ("scale", 2),
            ("ratio", 2),
            ("jitter", 4),
            ("blur", 2),
            ("blur_sigma", 2),
            ("solarise", 2),
        ):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != length:
                raise ConfigError(f"method.views.{name} needs {length} numbers, got {getattr(self, name)}")
        check_ranges("method.views", (self.scale[0], self.scale[1]), (self.ratio[0], self.ratio[1]))
        check_ranges("method.views.blur_sigma:", (self.blur_sigma[0], self.blur_sigma[1]), (1.0, 1.0))
        within("views.scale", self.scale[1], 0, 1)
        within("views.min_overlap", self.min_overlap, 0.001, 1)
        at_least("views.attempts", self.attempts, 1)
        if self.size is not None:
            at_least("views.size", self.size, 1)
        choose("views.interpolation", self.interpolation, ("bilinear", "bicubic"))
        for strength in self.jitter[:3]:
            at_least("views.jitter", strength, 0)
        within("views.jitter (hue)", self.jitter[3], 0, 0.5)
        for name in ("flip", "jitter_probability", "grey"):
            within(f"views.{name}", getattr(self, name), 0, 1)
        for name in ("blur", "solarise"):
            for probability in getattr(self, name):
                within(f"views.{name}", probability, 0, 1)
        within("views.solarise_threshold", self.solarise_threshold, 0, 255)


@dataclass(frozen=True)
class TemperatureSettings:
    """Temperatures.

    - student: the student's assignments and the dictionary's codes.
    - teacher: the teacher's assignments, and the pooling into slots in both branches.
    - contrast: the slot contrast.
    """

    student: float = 0.1
    teacher: float = 0.07
    contrast: float = 0.2

    def __post_init__(self) -> None:
        for name in ("student", "teacher", "contrast"):
            at_least(f"temperature.{name}", getattr(self, name), 0, above=True)


@dataclass(frozen=True)
class WeightSettings:
    """Weights of the three losses; 0 skips a loss."""

    distillation: float = 1.0
    contrast: float = 1.0
    quantisation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("distillation", "contrast", "quantisation"):
            at_least(f"weights.{name}", getattr(self, name), 0)
        if not self.distillation + self.contrast + self.quantisation:
            raise ConfigError("method.weights are all 0, so there is nothing to train; make one of them positive")


@dataclass(frozen=True)
class DictionarySettings:
    """The dictionary.

    - codes: K, the number of codes.
    - momentum: momentum of the codes' moving average.
    - initial: "slots" starts from random slots of the first batch, so that all codes are in use; "random" starts from
      random directions, most of which a short run never uses.
    - reseed: move a code whose usage is below `reseed_below` to a random slot of the batch. Usage is a moving average,
      1 for uniform use.
    - reseed_after: share of stage 1's updates within which the usage of an unused code falls below `reseed_below`.
    """

    codes: int = 8
    momentum: float = 0.9
    initial: Literal["slots", "random"] = "slots"
    reseed: bool = True
    reseed_after: float = 0.2
    reseed_below: float = 0.02

    def __post_init__(self) -> None:
        at_least("dictionary.codes", self.codes, 2)
        choose("dictionary.initial", self.initial, ("slots", "random"))
        within("dictionary.momentum", self.momentum, 0, 1)
        within("dictionary.reseed_after", self.reseed_after, 0, 1, above=True)
        within("dictionary.reseed_below", self.reseed_below, 0, 1, above=True, below=True)

    def usage_momentum(self, updates: int) -> float:
        """Return the momentum of the usage for a stage of `updates` updates, at least 1."""
        return self.reseed_below ** (1 / max(self.reseed_after * updates, 1))


@dataclass(frozen=True)
class TeacherSettings:
    """The teacher.

    - momentum: momentum of the moving average of the student's weights.
    - schedule: "constant"; "cosine" lets the momentum rise to 1 over the run; "auto" is cosine below 2000 updates.
    - centre_momentum: momentum of the moving average of the teacher's logits, by which its targets are centred.
    """

    momentum: float = 0.99
    schedule: Literal["auto", "constant", "cosine"] = "auto"
    centre_momentum: float = 0.9

    def __post_init__(self) -> None:
        within("teacher.momentum", self.momentum, 0, 1)
        within("teacher.centre_momentum", self.centre_momentum, 0, 1)
        choose("teacher.schedule", self.schedule, ("auto", "constant", "cosine"))


@dataclass(frozen=True)
class ExtractSettings:
    """Extraction of the concepts of all images.

    - min_pixels: positions of the grid that a slot must win to count as active; the largest slot always does.
    - batch_size: batch size of the forward passes.
    """

    min_pixels: int = 1
    batch_size: int = 512

    def __post_init__(self) -> None:
        at_least("extract.min_pixels", self.min_pixels, 1)
        at_least("extract.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class PerfSettings:
    """Performance. `fuse_views`: one forward for both views, which then share their BatchNorm statistics."""

    fuse_views: bool = False


@dataclass(frozen=True)
class DiscoverySettings:
    """All settings of stage 1."""

    slots: SlotSettings = field(default_factory=SlotSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    temperature: TemperatureSettings = field(default_factory=TemperatureSettings)
    weights: WeightSettings = field(default_factory=WeightSettings)
    dictionary: DictionarySettings = field(default_factory=DictionarySettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    perf: PerfSettings = field(default_factory=PerfSettings)
