"""DemP: dense-to-sparse structured pruning by the death of units (Dufort-Labbé et al., arXiv 2403.07688)."""

from __future__ import annotations

from robustlab.core.errors import ConfigError
from robustlab.engine.method import Context, Stage, settings
from robustlab.methods.pruning.pruned_network import PrunedNetwork
from robustlab.pruning.death import DeathSettings
from robustlab.pruning.floor import Floor
from robustlab.pruning.penalty import PenaltySettings, add_gradient, penalty, targeted
from robustlab.pruning.removal_rules import floor_problem
from robustlab.pruning.surgery_settings import SurgerySettings
from robustlab.pruning.update_noise import LEAST_STD, NoiseSettings, UpdateNoise


class DemP(PrunedNetwork):
    """Demon Pruning: a penalty that rises and falls kills units, noise promotes that, and dead units are removed.

    One update t, with the files that do each part:

        if t % surgery.every == 0:                               # pruned_network.before_update
            dead = units silent on death.num_samples images      # pruning/death.find_dead
            cut the dead units out of network, optimizer, EMA    # engine/learner.remove, pruning/surgery.Surgeon
        for each micro-batch:                                    # engine/loop, pruned_network.loss
            backward(cross_entropy(network(images), labels))     # engine/learner.step
        lambda, sigma = reg.schedule(t), noise.schedule(t)       # pruning/strength_schedule
        live = gradients != 0                                    # pruning/update_noise.UpdateNoise.look
        gradients += lambda * dR/dw                              # pruning/penalty.add_gradient, pruning/floor
        clip(gradients, trainer.clip_norm)                       # engine/learner
        weights = optimizer(weights, gradients)                  # torch.optim
        weights[live] += sigma * N(0, 1)                         # pruning/update_noise.UpdateNoise.add
        EMA and learning rate                                    # engine/learner, engine/lr_schedule

    The final sparsity results from `reg.peak`. `reg.floor` (ours) keeps the penalty from killing whole layers at large
    peaks.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        reg: PenaltySettings | None = None,
        noise: NoiseSettings | None = None,
        death: DeathSettings | None = None,
        surgery: SurgerySettings | None = None,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing, surgery=surgery, death=death)
        self.reg = settings(PenaltySettings, reg)
        self.noise = settings(NoiseSettings, noise)
        problem = floor_problem(self.reg.floor, min_width=self.surgery.min_width, enabled=self.surgery.enabled)
        if problem is not None:
            raise ConfigError(problem)

    @property
    def advice(self) -> str:
        """Advice for a run that would remove every unit."""
        floor = "" if self.reg.floor is not None else ", or let the penalty stop earlier, e.g. method.reg.floor=2"
        return f"lower method.reg.peak, which is {self.reg.peak}{floor}"

    def build(self, context: Context) -> None:
        """Make the learner, and hook penalty and noise into its updates."""
        super().build(context)
        self._lambda = self.reg.strength(self.total_updates)
        self._sigma = self.noise.strength(self._lambda, self.total_updates)
        learner = self.learners["network"]
        learner.on_gradients, learner.on_update = self._add_penalty, self._add_noise
        self.after_surgery()

    def after_surgery(self) -> None:
        """Collect the current parameters."""
        network = self.learners["network"].network
        self._penalised = targeted(network, self.units, self.reg.target) if self.reg.peak else []
        self._floor = None
        if self.reg.floor is not None:
            idle = self.surgeon.idle
            self._floor = Floor(network, self.units, self._penalised, count=self.reg.floor, idle=idle)
        seed = self.context.seed if self.noise.seed is None else self.noise.seed
        self._noise = UpdateNoise(network, mask=self.noise.mask, seed=seed)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return lambda, lambda * R and sigma of the next update, together with the pruning metrics."""
        values = super().end_epoch(stage, epoch)
        t = self.learners["network"].updates
        strength = self._lambda(t)
        values |= {"pruning/reg_strength": strength, "pruning/noise_std": self._sigma(t)}
        if self._penalised:
            values["pruning/penalty"] = strength * float(penalty(self._penalised, self.reg.kind))
        return values

    def _add_penalty(self) -> None:
        """Add the penalty's gradient after the task's gradient and before clipping, recording the task's mask first."""
        t = self.learners["network"].updates
        if self._sigma(t) >= LEAST_STD:
            self._noise.look()
        if self._penalised and (strength := self._lambda(t)) > 0:
            factors = None if self._floor is None else self._floor.factors()
            add_gradient(self._penalised, self.reg.kind, strength, factors=factors)

    def _add_noise(self) -> None:
        t = self.learners["network"].updates
        if (sigma := self._sigma(t)) >= LEAST_STD:
            self._noise.add(t, sigma)
