"""What removal has done so far: one event for each, and what training has cost, in metrics and for the run folder."""

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
"""A backward pass counts as two forward ones (the paper's code)."""


class Record:
    """The events of a run and the FLOPs of its training.

    An event is what is left right after a removal: t (updates done), epoch, reason, removed (units), live (by set),
    units (physically there, by set), parameters, flops (of one image forward), author_flops (in the paper's
    convention), logit_change (largest absolute one on a fixed batch; ema_logit_change that of the moving average of
    the weights, with which the run is evaluated), and what else is given. The first event, reason "start", is the whole
    network. Training FLOPs are 3 * FLOPs * samples, summed over the steps.
    """

    def __init__(self, network: nn.Module, surgeon: Surgeon, *, image_shape: Sequence[int]) -> None:
        """Measure the unpruned `network`, to whose costs all ratios refer."""
        self.network, self.surgeon, self.image_shape = network, surgeon, tuple(image_shape)
        self.dense = Cost.of(network, image_shape, surgeon.units)
        self.samples = 0
        self.training = {"author": 0.0, "physical": 0.0}
        self.events: list[dict[str, Any]] = []
        self.note(t=0, epoch=0, reason="start", removed=0, logit_change=0.0)

    def count(self, samples: int) -> None:
        """Take in a training step on `samples` images with the network as it is."""
        self.samples += samples
        for name, flops in (("author", self._author_flops), ("physical", self._flops)):
            self.training[name] += (1 + BACKWARD) * flops * samples

    def note(self, *, t: int, epoch: int, reason: str, **facts: Any) -> None:
        """Add an event, after the removal that it is about."""
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
        """Measure the network anew, after its widths have changed."""
        sparsity = self.surgeon.layer_sparsity()
        self._author_flops = self.dense.author_flops({name: 1 - share for name, share in sparsity.items()})
        self._flops = forward_flops(self.network, self.image_shape)

    def metrics(self) -> dict[str, float]:
        """Return "pruning/..." as of now; ratios are over the unpruned network trained on the same samples."""
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
        """Take back what `state_dict` gave, when the network has the widths of then."""
        self.events, self.samples = list(state["events"]), state["samples"]
        self.training = dict(state["training"])
        self.measure()
