"""The strided 1x1 convolution of our shortcuts is torch's, on a road that does not overrun memory."""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes.util import find_library

import pytest
import torch
import torch.nn.functional as F

from robustlab.models.layers import conv1x1

PROGRAM = """
import torch
from robustlab.models.layers import conv1x1
torch.set_num_threads(1)
for inputs in range(1, 10):
    layer = conv1x1(inputs, 5, stride=2).to(memory_format=torch.channels_last)
    for _ in range(3):
        images = torch.randn(64, inputs, 8, 8).contiguous(memory_format=torch.channels_last)
        layer(images).sum().backward()
"""


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("inputs", [1, 3, 8])
def test_values_and_gradients_are_those_of_torch(inputs, stride, side):
    layer = conv1x1(inputs, 4, stride=stride).double()
    images = torch.randn(2, inputs, side, side, dtype=torch.float64, requires_grad=True)
    ours = layer(images)
    theirs = F.conv2d(images, layer.weight, stride=stride)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), [images, layer.weight], retain_graph=True),
        torch.autograd.grad((theirs * weights).sum(), [images, layer.weight]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(find_library("c_malloc_debug") is None, reason="needs glibc's checking allocator")
def test_narrow_widths_in_channels_last_leave_the_heap_whole():
    checked = {**os.environ, "LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=checked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
