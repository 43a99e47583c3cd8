"""A small data set whose images differ, in memory or read one by one."""

import torch
from torch import Tensor

from robustlab.data.dataset import DataSource, Split, TaskSpec


class Lazy:
    """Images decoded on demand."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def decode(self, index: int) -> Tensor:
        return self.images[index]


class Toy(DataSource):
    """`count` training samples of `num_classes` classes in turn, 8 x 8 colour noise; half as many test samples."""

    def __init__(self, count: int = 40, num_classes: int = 4, *, lazy: bool = False, clean: bool = True) -> None:
        self.task = TaskSpec(num_classes, (3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        self.provides = frozenset({"clean_labels"}) if clean else frozenset()
        self.count, self.lazy = count, lazy

    def split(self, name: str) -> Split:
        count = self.count if name == "train" else self.count // 2
        generator = torch.Generator().manual_seed(len(name))
        images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
        return Split(Lazy(images) if self.lazy else images, torch.arange(count) % self.task.num_classes)
