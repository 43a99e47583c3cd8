"""A device that is not there is refused, with what there is."""

import pytest
import torch

from robustlab.core.devices import device_of
from robustlab.core.errors import ConfigError


def test_what_is_there():
    assert device_of("cpu", "trainer.device=") == torch.device("cpu")


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
@pytest.mark.parametrize(
    ("count", "number", "message"),
    [
        (0, "", "trainer.device={}, but no {KIND} device is visible; use trainer.device=cpu"),
        (0, ":0", "trainer.device={}, but no {KIND} device is visible; use trainer.device=cpu"),
        (1, ":1", "trainer.device={}, but this machine shows only {kind}"),
        (2, ":2", "trainer.device={}, but this machine shows only {kind}:0 to {kind}:1"),
    ],
)
def test_what_is_not_there(monkeypatch, kind, count, number, message):
    monkeypatch.setattr(torch.get_device_module(kind), "device_count", lambda: count)
    with pytest.raises(ConfigError) as refusal:
        device_of(kind + number, "trainer.device=")
    assert str(refusal.value) == message.format(kind + number, kind=kind, KIND=kind.upper())


def test_one_of_several(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda", "") == torch.device("cuda")
    assert device_of("cuda:1", "") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x", ""])
def test_no_device(name):
    with pytest.raises(ConfigError, match="torch has no such device; use cpu, cuda or cuda:<n>"):
        device_of(name, "--device ")
