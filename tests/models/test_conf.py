"""Every file of conf/model builds, by itself and with a projection head that a method asks for."""

from inspect import signature
from pathlib import Path

import pytest
import torch
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(CONF.glob("*.yaml"))
SIDES = {"vit_b16": 224}
"""Of the images, where a file is made for others than 32x32."""


def load(path: Path):
    return OmegaConf.create({"model": OmegaConf.load(path)}).model


def test_there_are_files():
    assert {path.stem for path in FILES} >= {"small_cnn", "preact_resnet18", "resnet18", "resnet8", "mlp", "timm"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_builds(path):
    node = load(path)
    assert node.name
    options = {name: value for name, value in node.items() if name != "name"}
    # On the meta device a WRN-28-10 costs nothing; libraries that compute while building need a real one.
    device = "cpu" if "external" in node._target_ else "meta"
    side = SIDES.get(path.stem, 32)
    with torch.device(device):
        network = instantiate(options, num_classes=10, image_shape=(3, side, side), proj_dim=128)
        projection, logits = network(torch.zeros(2, 3, side, side), project=True)
    assert (projection.shape, logits.shape) == ((2, 128), (2, 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_names_all_arguments_of_its_builder(path):
    node = load(path)
    arguments = set(signature(get_method(node._target_)).parameters) - {"num_classes", "image_shape"}
    assert arguments == set(map(str, node)) - {"name", "_target_"}
