"""The named views of a data set, from `dataset.views`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import TaskSpec
from robustlab.data.serving.feed import View
from robustlab.data.transforms.transform import Pipeline, Transform

TEST_VIEW = "test"
"""The view without augmentation: the original images, or the output of dataset.views.test, e.g. a crop."""


class Views:
    """Views by name, always including `test`."""

    def __init__(self, transforms: Mapping[str, Sequence[Transform]] | None) -> None:
        self._views = {name: View(name, Pipeline(list(steps))) for name, steps in (transforms or {}).items()}
        self.test = self._views.setdefault(TEST_VIEW, View(TEST_VIEW, Pipeline([])))

    def choose(self, names: Sequence[str]) -> list[View]:
        """Return views by name. Raises ConfigError for an unknown name, or if no name is given."""
        unknown = [name for name in names if name not in self._views]
        if unknown or not names:
            raise ConfigError(
                f"no view {', '.join(map(repr, unknown)) or 'asked for'}; dataset.views has "
                f"{', '.join(sorted(self._views))}"
            )
        return [self._views[name] for name in names]

    def served_shape(self, task: TaskSpec) -> tuple[int, int, int]:
        """Return (C, H, W) of an image in the test view. Raises ConfigError for a test view that draws at random."""
        pipeline = self.test.pipeline
        if pipeline.draws:
            raise ConfigError(
                "dataset.views.test must give the same images every time; move random transforms to dataset.views.weak"
            )
        if not pipeline.transforms:
            return task.image_shape
        served = pipeline(torch.zeros((1, *task.image_shape), dtype=torch.uint8), torch.empty((1, 0)))
        channels, height, width = served.shape[1:]
        return channels, height, width
