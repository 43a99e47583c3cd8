"""The evaluation crops of birds (whatever the aspect ratio) and of faces (central square, then resized)."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.core.errors import ConfigError
from robustlab.data.transforms.decode import CenterCropResize, ResizeCenterCrop

NOTHING = torch.empty(0)


def pixels(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def by_pillow(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def test_stretched_images_keep_their_borders():
    image = pixels(40, 90)
    crop = ResizeCenterCrop(resize=32, size=28, stretch=True)(image, NOTHING)
    expected = by_pillow(image, (32, 32))[:, 2:30, 2:30]
    assert crop.shape == (3, 28, 28)
    assert int((crop.int() - expected.int()).abs().max()) <= 1
    assert not torch.equal(ResizeCenterCrop(resize=32, size=28)(image, NOTHING), crop)


def test_central_square():
    face = pixels(218, 178)
    crop = CenterCropResize(crop=178, size=224)(face, NOTHING)
    expected = by_pillow(face[:, 20:198], (224, 224))
    assert crop.shape == (3, 224, 224)
    assert int((crop.int() - expected.int()).abs().max()) <= 1
    assert torch.equal(CenterCropResize(crop=178, size=178)(face, NOTHING), face[:, 20:198])
    assert CenterCropResize(crop=178, size=8)(pixels(60, 50), NOTHING).shape == (3, 8, 8)
    with pytest.raises(ConfigError, match="crop >= 1 and size >= 1, got crop=0"):
        CenterCropResize(crop=0, size=8)
