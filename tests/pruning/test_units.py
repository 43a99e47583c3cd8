"""Sets of units by residual mode, and the networks that have none."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.models.external import timm_model, torchvision_model
from robustlab.models.mlp import mlp
from robustlab.models.preact_resnet import preact_resnet18
from robustlab.models.resnet import cifar_resnet, resnet_small
from robustlab.models.small_cnn import small_cnn
from robustlab.models.units import units_of

RGB = (3, 32, 32)
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2}
VIT = {"architecture": "vit_tiny_patch16_224", "options": {**SMALL, "scale_mlp_norm": True}}


@pytest.mark.parametrize(
    ("builder", "options", "shared", "inner"),
    [
        # A stream counts once a stage: the stem with the first one's, then one a stage.
        (cifar_resnet, {}, 1_920 + 64 + 128 + 256 + 512, 1_920),
        (resnet_small, {"widths": [8, 16, 32]}, 112 + 56, 112),
        # Blocks with a projection read the stream before them; the last stage's joins the raw output.
        (preact_resnet18, {}, 1_920 + 64 + 128 + 256, 1_920),
        (preact_resnet18, {"final_bn": True}, 1_920 + 64 + 128 + 256 + 512, 1_920),
        (mlp, {}, 512, 512),
    ],
)
def test_units_by_residual_mode(builder, options, shared, inner):
    with torch.device("meta"):
        units = units_of(builder(num_classes=10, image_shape=RGB, **options))
    assert units.in_mode("per_block") is units
    assert units.in_mode("stage_shared").total == shared
    assert units.in_mode("inner_only").total == inner
    assert not units.in_mode("stage_shared").skips
    with pytest.raises(ConfigError, match="per_block, stage_shared, inner_only"):
        units.in_mode("per_stage")


@pytest.mark.parametrize(
    ("builder", "options", "message"),
    [
        (mlp, {"norm": "layer"}, "LayerNorm"),
        (small_cnn, {"norm": "group"}, "GroupNorm"),
        (torchvision_model, {"architecture": "shufflenet_v2_x0_5"}, "declares no units"),
        (timm_model, {"architecture": "seresnet18"}, "declares no units"),
        (timm_model, VIT, "LayerNorm"),
    ],
)
def test_networks_that_cannot_be_pruned_are_refused(builder, options, message):
    network = builder(num_classes=3, image_shape=RGB, **options)
    with pytest.raises(ConfigError, match=message):
        units_of(network)
