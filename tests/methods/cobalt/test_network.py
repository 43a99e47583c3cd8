"""Student and teacher."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError
from robustlab.methods.groups.cobalt.discovery_settings import SlotSettings, TeacherSettings
from robustlab.methods.groups.cobalt.slot_network import make_student, make_teacher, momentum_at, update_teacher
from robustlab.models.mlp import mlp
from robustlab.models.small_cnn import small_cnn

SHAPE = (3, 16, 16)
SETTINGS = SlotSettings(count=3, dim=8, hidden=12)


def student():
    trunk = small_cnn(num_classes=2, image_shape=SHAPE, widths=(4, 6), strides=(2, 2)).trunk
    return make_student(trunk, image_shape=SHAPE, settings=SETTINGS)


def moved(network):
    """Change every parameter and every BatchNorm statistic."""
    network(torch.randn(4, *SHAPE))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    return network


def test_shapes():
    network = student()
    assert network(torch.randn(2, *SHAPE)).shape == (2, 8, 4, 4)
    assert network.base.slots.shape == (3, 8)
    assert network.predict(torch.randn(2, 3, 8)).shape == (2, 3, 8)


def test_the_teacher_is_a_copy_with_the_same_names_and_no_predictor():
    network = student()
    teacher = make_teacher(network)
    names = {name: parameter for name, parameter in network.base.named_parameters()}
    assert names.keys() == dict(teacher.named_parameters()).keys()
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, names[name])
        assert parameter.data_ptr() != names[name].data_ptr()
        assert not parameter.requires_grad
    assert not any("predictor" in name for name, _ in teacher.named_parameters())


@settings(max_examples=20)
@given(st.floats(0, 1))
def test_the_teacher_moves_by_the_formula_and_keeps_its_buffers(momentum):
    network = student()
    teacher = make_teacher(network).double()
    moved(network).double()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    update_teacher(teacher, network, momentum=momentum)
    current = dict(network.base.named_parameters())
    for name, value in teacher.state_dict().items():
        if name in current:
            expected = momentum * before[name] + (1 - momentum) * current[name].detach()
            torch.testing.assert_close(value, expected, atol=1e-7, rtol=0)
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_momentum_are_exact(momentum):
    network = student()
    teacher = make_teacher(network)
    before = [parameter.clone() for parameter in teacher.parameters()]
    moved(network)
    update_teacher(teacher, network, momentum=momentum)
    wanted = before if momentum else list(network.base.parameters())
    assert all(torch.equal(one, other) for one, other in zip(teacher.parameters(), wanted, strict=True))


def test_momentum_over_a_run():
    constant = TeacherSettings(schedule="constant")
    assert [momentum_at(update, total=10, settings=constant) for update in (0, 5, 10)] == [0.99] * 3
    cosine = TeacherSettings(schedule="cosine")
    assert momentum_at(0, total=10, settings=cosine) == pytest.approx(0.99)
    assert momentum_at(5, total=10, settings=cosine) == pytest.approx(1 - 0.01 * (math.cos(math.pi / 2) + 1) / 2)
    assert momentum_at(10, total=10, settings=cosine) == pytest.approx(1)
    auto = TeacherSettings()
    assert momentum_at(1000, total=1999, settings=auto) > 0.99
    assert momentum_at(1000, total=2000, settings=auto) == 0.99


def test_a_network_without_feature_maps_is_refused():
    with pytest.raises(ConfigError, match="no feature maps"):
        make_student(mlp(num_classes=2, image_shape=SHAPE).trunk, image_shape=SHAPE, settings=SETTINGS)
