"""Devices by name, and whether this machine has them."""

from __future__ import annotations

import torch

from robustlab.core.errors import ConfigError


def device_of(name: str, setting: str) -> torch.device:
    """Return the device of a name such as "cpu", "cuda" or "cuda:1".

    - setting: what the user wrote before the name, e.g. "trainer.device=", for the message.

    Raises ConfigError for a name that torch does not know and for a device that this machine lacks.
    """
    try:
        device = torch.device(name)
        count = 1 if device.type == "cpu" else torch.get_device_module(device.type).device_count()
    except (RuntimeError, AttributeError) as error:  # no device, or one that nothing can be computed on
        raise ConfigError(f"{setting}{name}: torch has no such device; use cpu, cuda or cuda:<n>") from error
    if not count:
        raise ConfigError(f"{setting}{name}, but no {device.type.upper()} device is visible; use {setting}cpu")
    if (device.index or 0) >= count:
        seen = device.type if count == 1 else f"{device.type}:0 to {device.type}:{count - 1}"
        raise ConfigError(f"{setting}{name}, but this machine shows only {seen}")
    return device
