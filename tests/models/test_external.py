"""timm and torchvision behind one face; local weights files."""

import pytest
import torch
from torch import nn

from robustlab.core.errors import ConfigError
from robustlab.models.bottleneck import resnet50
from robustlab.models.external import timm_model, torchvision_model
from robustlab.models.mlp import mlp
from robustlab.models.preact_resnet import preact_resnet18, wide_resnet
from robustlab.models.resnet import cifar_resnet, resnet_small
from robustlab.models.small_cnn import small_cnn
from robustlab.models.vgg import vgg16
from robustlab.models.weights import load_weights, read_weights

SMALL = [
    (timm_model, "resnet10t", {}),
    (timm_model, "mobilenetv3_small_050", {}),
    (timm_model, "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}),
    (timm_model, "deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 2}),
    (torchvision_model, "resnet18", {}),
    (torchvision_model, "shufflenet_v2_x0_5", {}),
    (torchvision_model, "mobilenet_v3_small", {}),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("builder", "architecture", "options"), SMALL)
def test_models_take_small_images_and_have_two_heads(builder, architecture, options, channels):
    shape = (channels, 32, 32)
    network = builder(num_classes=7, image_shape=shape, architecture=architecture, options=options, proj_dim=16)
    assert network.training
    network.eval()
    images = torch.randn(2, *shape)
    projection, logits = network(images, project=True)
    assert projection.shape == (2, 16)
    assert logits.shape == (2, 7)
    assert network.features(images).shape == (2, network.feature_dim)
    assert network.classifier.in_features == network.feature_dim
    assert torch.equal(network.classifier(network.features(images)), network(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_models_take_64_pixels(channels):
    shape = (channels, 64, 64)
    for builder in (timm_model, torchvision_model):
        network = builder(num_classes=200, image_shape=shape, architecture="resnet18").eval()
        assert network(torch.randn(2, *shape)).shape == (2, 200)


def test_a_wrapped_model_computes_what_the_librarys_own_does():
    import timm
    from torchvision import models

    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    expected = timm.create_model("mobilenetv3_small_050", num_classes=7).eval()(images)
    torch.manual_seed(0)
    wrapped = timm_model(num_classes=7, image_shape=(3, 32, 32), architecture="mobilenetv3_small_050").eval()
    assert torch.equal(wrapped(images), expected)
    torch.manual_seed(0)
    expected = models.get_model("mobilenet_v3_small", num_classes=7).eval()(images)
    torch.manual_seed(0)
    wrapped = torchvision_model(num_classes=7, image_shape=(3, 32, 32), architecture="mobilenet_v3_small").eval()
    assert torch.equal(wrapped(images), expected)


@pytest.mark.parametrize(
    ("builder", "wrong", "right"), [(timm_model, "resnet51", "resnet50"), (torchvision_model, "resnt18", "resnet18")]
)
def test_an_unknown_architecture_is_told_with_near_names(builder, wrong, right):
    with pytest.raises(ConfigError, match=right):
        builder(num_classes=10, image_shape=(3, 32, 32), architecture=wrong)


def test_images_of_a_size_that_the_model_cannot_take_are_told():
    with pytest.raises(ConfigError, match="img_size=32"):
        timm_model(num_classes=10, image_shape=(3, 32, 32), architecture="vit_tiny_patch16_224", options={"depth": 1})


def test_a_wrong_option_is_told():
    with pytest.raises(ConfigError, match=r"model\.options"):
        torchvision_model(num_classes=10, image_shape=(3, 32, 32), architecture="resnet18", options={"depht": 3})


def test_a_torchvision_model_without_a_linear_classifier_is_refused():
    with pytest.raises(ConfigError, match="linear classifier"):
        torchvision_model(num_classes=10, image_shape=(3, 64, 64), architecture="squeezenet1_1")


def test_pretrained_weights_that_cannot_be_had_are_told(monkeypatch):
    import timm
    from torchvision import models

    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    for builder in (timm_model, torchvision_model):
        with pytest.raises(ConfigError, match=r"Network is unreachable.*model\.weights=<file>"):
            builder(num_classes=10, image_shape=(3, 32, 32), architecture="resnet18", pretrained=True)


def test_torchvision_pretrained_weights_get_a_fresh_classifier(monkeypatch, capsys):
    from torchvision import models

    published = models.resnet18(num_classes=1000)
    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", lambda *a, **k: published.state_dict())
    network = torchvision_model(num_classes=10, image_shape=(1, 32, 32), architecture="resnet18", pretrained=True)
    assert "'fc'" in capsys.readouterr().out
    state = network.trunk.state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], published.layer4[1].conv2.weight)
    torch.testing.assert_close(state["conv1.weight"], published.conv1.weight.sum(1, keepdim=True))


def test_pretrained_and_a_file_contradict_each_other():
    with pytest.raises(ConfigError, match="set only one of them"):
        timm_model(num_classes=2, image_shape=(3, 32, 32), architecture="resnet10t", pretrained=True, weights="w.pth")


def save(state, path):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("builder", "architecture"), [(timm_model, "resnet10t"), (torchvision_model, "shufflenet_v2_x0_5")]
)
def test_own_weights_come_back_bit_for_bit(builder, architecture, name, tmp_path, capsys):
    options = {"image_shape": (3, 32, 32), "architecture": architecture, "proj_dim": 16}
    first = builder(num_classes=7, **options)
    save(first.state_dict(), tmp_path / name)
    again = builder(num_classes=7, weights=str(tmp_path / name), **options)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    assert capsys.readouterr().out == ""
    other = builder(num_classes=9, weights=str(tmp_path / name), **{**options, "proj_dim": None})
    assert "'classifier'" in capsys.readouterr().out
    trunk = first.trunk.state_dict()
    assert all(torch.equal(value, trunk[key]) for key, value in other.trunk.state_dict().items())


def test_the_librarys_own_files_load_with_their_classifier(tmp_path):
    import timm

    model = timm.create_model("resnet10t", num_classes=7)
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pth"
    )
    network = timm_model(
        num_classes=7, image_shape=(3, 32, 32), architecture="resnet10t", weights=str(tmp_path / "w.pth")
    )
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(images), model.eval()(images))


def test_mismatching_weights_are_listed(tmp_path):
    source = small_cnn(num_classes=3, image_shape=(1, 8, 8), widths=[4])
    state = dict(source.state_dict())
    state["stranger"] = torch.zeros(2)
    state["trunk.layers.0.weight"] = torch.zeros(4, 2, 3, 3)
    del state["trunk.layers.1.weight"]
    with pytest.raises(ConfigError) as error:
        load_weights(source, state, heads=("classifier",), source="file w.pth")
    message = str(error.value)
    assert "file w.pth does not match the network in 3 of its entries" in message
    assert "missing: trunk.layers.1.weight [4]" in message
    assert "unexpected: stranger [2]" in message
    assert "other shape: trunk.layers.0.weight is [4, 2, 3, 3], the network has [4, 1, 3, 3]" in message


class Foreign:
    """Something that weights_only=True refuses."""


@pytest.mark.parametrize(("builder", "library"), [(timm_model, "timm"), (torchvision_model, "torchvision")])
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_resnets_whose_units_can_be_removed_compute_what_the_librarys_do(builder, library, architecture, tmp_path):
    import timm
    import torchvision

    torch.manual_seed(0)
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    model = make(architecture, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    network = builder(
        num_classes=7, image_shape=(3, 32, 32), architecture=architecture, weights=str(tmp_path / "w.pth")
    )
    network, model, images = network.double(), model.double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    # To rounding: on a CPU, shortcuts take their stride before the product (`layers.Conv1x1`).
    torch.testing.assert_close(network.eval()(images), model.eval()(images))
    trained, expected = network.train()(images), model.train()(images)
    torch.testing.assert_close(trained, expected)
    trained.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in network.trunk.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])


OWN = {
    "resnet18": (cifar_resnet, {"width": 4}),
    "resnet_small": (resnet_small, {}),
    "resnet50": (resnet50, {"width": 4}),
    "preact_resnet18": (preact_resnet18, {"width": 4}),
    "wide_resnet": (wide_resnet, {"depth": 10, "widen": 1}),
    "vgg16": (vgg16, {"width": 2, "dense": [8, 8]}),
    "mlp": (mlp, {"widths": [6]}),
    "small_cnn": (small_cnn, {"widths": [4, 6]}),
}


@pytest.mark.parametrize("name", OWN)
def test_own_networks_start_from_a_file(name, tmp_path, capsys):
    builder, options = OWN[name]
    first = builder(num_classes=7, image_shape=(3, 32, 32), proj_dim=4, **options)
    torch.save(first.state_dict(), tmp_path / "w.pth")
    again = builder(num_classes=7, image_shape=(3, 32, 32), proj_dim=4, weights=str(tmp_path / "w.pth"), **options)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    other = builder(num_classes=3, image_shape=(3, 32, 32), weights=str(tmp_path / "w.pth"), **options)
    assert "'classifier'" in capsys.readouterr().out
    assert all(torch.equal(value, other.trunk.state_dict()[key]) for key, value in first.trunk.state_dict().items())
    with pytest.raises(ConfigError, match="does not match the network"):
        builder(num_classes=7, image_shape=(1, 32, 32), weights=str(tmp_path / "w.pth"), **options)


def test_unreadable_weights_files_are_told(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_weights(tmp_path / "none.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "bad.pth").write_bytes(b"PK\x03\x04 cut off")
    for name in ("bad.safetensors", "bad.pth"):
        with pytest.raises(ConfigError, match=name):
            read_weights(tmp_path / name)
    torch.save(Foreign(), tmp_path / "code.pth")
    with pytest.raises(ConfigError, match="foreign code"):
        read_weights(tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="no state dict"):
        read_weights(tmp_path / "other.pth")


def test_a_file_without_a_head_is_a_trunk_to_start_from(tmp_path, capsys):
    import timm

    model: nn.Module = timm.create_model("resnet10t", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    network = timm_model(
        num_classes=7, image_shape=(3, 32, 32), architecture="resnet10t", weights=str(tmp_path / "w.pth")
    )
    assert "starts from fresh weights" in capsys.readouterr().out
    assert torch.equal(network.trunk.state_dict()["conv1.0.weight"], model.state_dict()["conv1.0.weight"])
