import time

import pytest
import torch
from torch import nn

from robustlab.export.latency import inference_speed_up
from robustlab.models.small_cnn import small_cnn


class Slow(nn.Module):
    """Takes `seconds` for each image and writes down how it was called."""

    def __init__(self, seconds, calls, name):
        super().__init__()
        self.seconds, self.calls, self.name = seconds, calls, name
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        self.calls.append((self.name, len(images), self.training, torch.is_inference_mode_enabled()))
        time.sleep(self.seconds * len(images))
        return images * self.weight


def test_medians_of_turns_after_a_warm_up():
    calls = []
    dense, pruned = Slow(6e-3, calls, "dense"), Slow(1e-3, calls, "pruned")
    found = inference_speed_up(dense, pruned, (1, 2, 2), batch_sizes=(1, 2), runs=5, warm_up=2)
    turns = [("dense", size, False, True) if name == "dense" else ("pruned", size, False, True)
             for size in (1, 2) for _ in range(7) for name in ("dense", "pruned")]  # fmt: skip
    assert calls == turns
    assert [one.batch_size for one in found] == [1, 2]
    for one in found:
        assert one.dense_seconds >= 6e-3 * one.batch_size
        assert one.ratio == one.dense_seconds / one.pruned_seconds > 1.5
        assert (one.dtype, one.device) == ("float32", "cpu")


@pytest.mark.parametrize("channels_last", [False, True])
def test_networks_are_measured_in_the_type_asked_for(channels_last):
    seen = []
    network = small_cnn(num_classes=3, image_shape=(1, 8, 8), widths=[4, 8])
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    (found,) = inference_speed_up(
        network,
        network,
        (1, 8, 8),
        batch_sizes=(3,),
        runs=1,
        warm_up=0,
        dtype=torch.float64,
        channels_last=channels_last,
    )
    assert found.dtype == "float64"
    assert {images.dtype for images in seen} == {torch.float64}
    assert network.trunk.layers[4].weight.is_contiguous(memory_format=torch.channels_last) == channels_last
