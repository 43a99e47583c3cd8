"""DemP whose units die when a test needs it, and which kills its own process around removals."""

import json
import os
import signal
from pathlib import Path

import torch
from torch import nn

from robustlab.methods.pruning.demp import DemP


class DyingDemP(DemP):
    """One unit of the first layer dies right before each check; with DIE=all, all of the last layer.

    KILL_PLAN names a JSON file: pairs [where, t] yet to come, each of which ends the process once. where: "before",
    "in" or "after" what is removed before update t.
    """

    def before_update(self, t):
        if t and t % self.surgery.every == 0:
            everything = os.environ.get("DIE") == "all"
            self._silence(self.units.sets[-1 if everything else 0].name, slice(None) if everything else 0)
        self._t = t
        self._end("before")
        super().before_update(t)
        self._end("after")

    def after_surgery(self):
        super().after_surgery()
        if hasattr(self, "_t"):
            self._end("in")

    @torch.no_grad()
    def _silence(self, name, rows):
        for path in self.units[name].writers:
            module = self.learners["network"].network.get_submodule(path)
            if isinstance(module, nn.BatchNorm2d):
                module.weight[rows], module.bias[rows] = 0.0, -50.0

    def _end(self, where):
        path = os.environ.get("KILL_PLAN")
        if path is None:
            return
        plan = json.loads(Path(path).read_text())
        if [where, self._t] in plan:
            plan.remove([where, self._t])
            Path(path).write_text(json.dumps(plan))
            os.kill(os.getpid(), signal.SIGKILL)
