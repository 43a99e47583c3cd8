"""Record the events of removal and the cost of training, as metrics and for the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robustlab.core.files import write_text
from robustlab.pruning.cost import Cost, forward_flops, parameters
from robustlab.pruning.surgery import Surgeon

BACKWARD = 2
"""A backward pass counts as two forward passes (the paper's code)."""


class Record:
    """The events of a run and the FLOPs of its training.

    An event describes the network right after a removal: t (number of updates so far), epoch, reason, removed (units),
    live (set -> units), units (set -> units physically present), parameters, flops (one image's forward pass),
    author_flops (in the paper's convention), logit_change (largest absolute change on a fixed batch; ema_logit_change
    for the moving average, with which the run is evaluated), and any additional facts. The first event, with reason
    "start", is the unpruned network. Training FLOPs are 3 * FLOPs * samples, summed over steps.
    """

    def __init__(self, network: nn.Module, surgeon: Surgeon, *, image_shape: Sequence[int]) -> None:
        """Measure the unpruned `network`, the reference of all ratios."""
        self.network, self.surgeon, self.image_shape = network, surgeon, tuple(image_shape)
        self.dense = Cost.of(network, image_shape, surgeon.units)
        self.samples = 0
        self.training = {"author": 0.0, "physical": 0.0}
        self.events: list[dict[str, Any]] = []
        self.note(t=0, epoch=0, reason="start", removed=0, logit_change=0.0)

    def count(self, samples: int) -> None:
        """Count a training step on `samples` images with the current network."""
        self.samples += samples
        for name, flops in (("author", self._author_flops), ("physical", self._flops)):
            self.training[name] += (1 + BACKWARD) * flops * samples

    def note(self, *, t: int, epoch: int, reason: str, **facts: Any) -> None:
        """Add an event, after the removal that it describes."""
        self.measure()
        self.events.append(
            {
                "t": t,
                "epoch": epoch,
                "reason": reason,
                "live": self.surgeon.live_counts(),
                "units": {name: len(live) for name, live in self.surgeon.live.items()},
                "parameters": parameters(self.network),
                "flops": self._flops,
                "author_flops": self._author_flops,
                **facts,
            }
        )

    def measure(self) -> None:
        """Measure the network again, after its widths have changed."""
        sparsity = self.surgeon.layer_sparsity()
        self._author_flops = self.dense.author_flops({name: 1 - share for name, share in sparsity.items()})
        self._flops = forward_flops(self.network, self.image_shape)

    def metrics(self) -> dict[str, float]:
        """Return the current "pruning/..." metrics; ratios are relative to training unpruned on the same samples."""
        whole = {"author": self.dense.author_flops(), "physical": float(self.dense.flops)}
        passed = (1 + BACKWARD) * max(self.samples, 1)
        live = {f"live/{name}": float(count) for name, count in self.surgeon.live_counts().items()}
        values = {
            "neuron_sparsity": self.surgeon.neuron_sparsity(),
            "weight_sparsity": self.dense.weight_sparsity(self.network),
            "flops_ratio": self._author_flops / whole["author"],
            "flops_ratio_physical": self._flops / whole["physical"],
            "training_flops": self.training["author"],
            "training_flops_ratio": self.training["author"] / (passed * whole["author"]),
            "training_flops_ratio_physical": self.training["physical"] / (passed * whole["physical"]),
            **live,
        }
        return {f"pruning/{name}": value for name, value in values.items()}

    def save(self, path: Path, **facts: Any) -> None:
        """Write the events and `facts` as JSON. Raises RunFolderError."""
        write_text(path, json.dumps({**facts, "events": self.events}, indent=1) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {"events": self.events, "samples": self.samples, "training": self.training}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, once the network has the same widths again."""
        self.events, self.samples = list(state["events"]), state["samples"]
        self.training = dict(state["training"])
        self.measure()
