"""The policies draw what torchvision's draw, and what they draw is what torchvision's operations give."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import AutoAugment as Oracle
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import RandAugment as RandOracle
from torchvision.transforms import TrivialAugmentWide as TrivialOracle
from torchvision.transforms.v2 import RandAugment as Operations

from robustlab.core import rng
from robustlab.data.transforms.policies import OPERATIONS, AutoAugment, RandAugment, Staged, TrivialAugment
from robustlab.data.transforms.policy_tables import SPACE, SUB_POLICIES, magnitudes, wide_magnitudes
from tests.device import waiting_is_an_error

POLICIES = {"cifar10": AutoAugmentPolicy.CIFAR10, "imagenet": AutoAugmentPolicy.IMAGENET}
FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")


def pictures(count: int, channels: int = 3) -> Tensor:
    """Smooth colourful images, so that every operation changes them."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand((count, channels, 5, 5), generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear").to(torch.uint8)


@pytest.mark.parametrize("name", POLICIES)
def test_sub_policies_equal_torchvision(name: str) -> None:
    expected = [tuple((op, p, m or 0) for op, p, m in pair) for pair in Oracle(POLICIES[name]).policies]
    assert [tuple(pair) for pair in SUB_POLICIES[name]] == expected


@pytest.mark.parametrize("bins", [10, 31])
@pytest.mark.parametrize("size", [(32, 32), (28, 64)])
def test_magnitudes_equal_torchvision(bins: int, size: tuple[int, int]) -> None:
    for name, (expected, _) in Oracle()._augmentation_space(bins, size).items():
        assert torch.equal(magnitudes(name, bins, *size), (expected.expand(bins)).float()), name
    for name, (expected, _) in TrivialOracle()._augmentation_space(bins).items():
        assert torch.equal(wide_magnitudes(name, bins), (expected.expand(bins)).float()), name
    assert set(RandOracle()._augmentation_space(bins, size)) == set(SPACE)


def test_magnitudes_of_the_specification() -> None:
    shift = magnitudes("TranslateX", 10, 32, 32).long().tolist()
    assert (shift[3], shift[8], shift[9]) == (4, 12, 14)
    assert magnitudes("Posterize", 10, 32, 32).tolist() == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert magnitudes("Solarize", 10, 32, 32, solarize=256)[[0, 9]].tolist() == [256, 0]


def replay(policy: Staged, images: Tensor, u: Tensor) -> Tensor:
    """Run the choices of a policy one sample after the other with torchvision's operations on tensors."""
    run: Any = Operations()._apply_image_or_video_transform
    number, argument = policy.choose(u, *images.shape[2:])
    result = []
    for image, numbers, arguments in zip(images, number.tolist(), argument.tolist(), strict=True):
        for position, value in zip(numbers, arguments, strict=True):
            name = OPERATIONS[position]
            value = value - 1.0 if name in FACTORS else value / 255.0 if name == "Solarize" else value
            image = run(image, name, value, InterpolationMode.NEAREST, {Tensor: [128.0] * images.shape[1]})
        result.append(image)
    return torch.stack(result)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "policy",
    [
        AutoAugment("cifar10", solarize_levels=255),
        AutoAugment("imagenet", solarize_levels=255),
        RandAugment(),
        RandAugment(3, 25),
        TrivialAugment(),
    ],
    ids=["cifar10", "imagenet", "rand", "rand3", "trivial"],
)
def test_batched_policy_equals_torchvision_operations(policy: Staged, channels: int) -> None:
    images = pictures(192, channels)
    u = rng.uniform(11, torch.arange(192), policy.draws)
    difference = (policy(images, u).int() - replay(policy, images, u).int()).abs()
    # one grey level in an early stage can be stretched by a later one, in few pixels
    assert (difference > 1).float().mean() < 2e-4
    assert (difference.flatten(1).amax(1) <= 1).float().mean() > 0.95


@pytest.mark.parametrize("name", POLICIES)
def test_operations_are_drawn_as_often_as_the_table_says(name: str) -> None:
    policy, count = AutoAugment(name), 50_000
    number, argument = policy.choose(rng.uniform(3, torch.arange(count), policy.draws), 32, 32)
    for stage in range(2):
        expected = dict.fromkeys(OPERATIONS, 0.0)
        for pair in SUB_POLICIES[name]:
            expected[pair[stage][0]] += pair[stage][1] / 25
            expected["Identity"] += (1 - pair[stage][1]) / 25
        for position, operation in enumerate(OPERATIONS):
            share = float((number[:, stage] == position).float().mean())
            p = expected[operation]
            assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / count) + 1e-6, operation
    for operation in ("TranslateY", "Color", "Rotate") if name == "cifar10" else ("Rotate", "Color", "Contrast"):
        drawn = argument[number == OPERATIONS.index(operation)]
        positive = float((drawn > (1 if operation in FACTORS else 0)).float().mean())
        nothing = float((drawn == (1 if operation in FACTORS else 0)).float().mean())
        assert positive == pytest.approx((1 - nothing) / 2, abs=0.03)


def test_rand_and_trivial_draw_uniformly() -> None:
    for policy in (RandAugment(), TrivialAugment()):
        number, _ = policy.choose(rng.uniform(3, torch.arange(42_000), policy.draws), 32, 32)
        for column in number.T:
            counts = torch.bincount(column, minlength=len(OPERATIONS))
            assert counts[OPERATIONS.index("Invert")] == counts[OPERATIONS.index("Hue")] == 0
            assert (counts[counts > 0] - 3000).abs().max() < 300
            assert int((counts > 0).sum()) == 14
    number, argument = TrivialAugment().choose(rng.uniform(4, torch.arange(42_000), 3), 32, 32)
    turned = argument[number == OPERATIONS.index("Rotate")]
    assert turned.unique().numel() == 61  # 30 bins to each side and none


def test_one_sided_rotation() -> None:
    policy = AutoAugment(signed_rotate=False)
    number, argument = policy.choose(rng.uniform(3, torch.arange(5000), 5), 32, 32)
    turned = argument[number == OPERATIONS.index("Rotate")]
    assert len(turned) > 50
    assert bool((turned > 0).all())


def test_result_is_distributed_as_torchvision_on_pillow_images() -> None:
    count = 3000
    images = pictures(1).expand(count, -1, -1, -1).contiguous()
    policy = AutoAugment(solarize_levels=255)
    ours = policy(images, rng.uniform(8, torch.arange(count), 5)).float()
    torch.manual_seed(0)
    oracle, picture = (
        Oracle(AutoAugmentPolicy.CIFAR10, fill=[128.0] * 3),
        Image.fromarray(images[0].permute(1, 2, 0).numpy()),
    )
    theirs = torch.tensor(np.stack([np.asarray(oracle(picture)) for _ in range(count)])).permute(0, 3, 1, 2).float()
    ours_mean, theirs_mean = ours.mean((2, 3)), theirs.mean((2, 3))  # [count, C]
    error = ((ours_mean.var(0) + theirs_mean.var(0)) / count).sqrt()
    assert bool(((ours_mean.mean(0) - theirs_mean.mean(0)).abs() < 4 * error).all())
    torch.testing.assert_close(ours_mean.std(0), theirs_mean.std(0), rtol=0.12, atol=0.5)
    pixel_error = ((ours.var(0) + theirs.var(0)) / count).sqrt().clamp(min=0.5)
    assert float((ours.mean(0) - theirs.mean(0)).abs().div(pixel_error).max()) < 5.5


@pytest.mark.gpu
def test_policies_on_a_gpu_equal_the_cpu_and_do_not_wait() -> None:
    images = pictures(256)
    for policy in (AutoAugment(), RandAugment(), TrivialAugment()):
        u = rng.uniform(2, torch.arange(256), policy.draws)
        expected, on_device = policy(images, u), images.cuda()
        policy(on_device, u)
        with waiting_is_an_error():
            result = policy(on_device, u)
        difference = (result.cpu().int() - expected.int()).abs()
        assert (difference > 1).float().mean() < 2e-3
        assert torch.equal(policy(on_device, u.cuda()), result)
