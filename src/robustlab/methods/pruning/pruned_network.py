"""Base class of methods that remove units during training: checks, removal, metrics and the record of events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.core.checks import within
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.engine.method import Context, Position, Stage, settings
from robustlab.methods.single_network import SingleNetwork
from robustlab.models.units import units_of
from robustlab.pruning.collapse import refuse_collapse
from robustlab.pruning.death import DeathReport, DeathSettings, find_dead
from robustlab.pruning.removals import Record
from robustlab.pruning.samples import Samples
from robustlab.pruning.surgery_settings import SurgerySettings


class PrunedNetwork(SingleNetwork):
    """Cross-entropy training of one network that loses units; subclasses decide which, by calling `prune`.

    It only removes dead units every `surgery.every` updates (see `DeathSettings`).
    """

    not_extendable = "its penalty, noise and pruning are planned for all updates, and dead units go after the last"

    advice = "remove fewer units"
    """Advice for a run that would remove every unit."""

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        surgery: SurgerySettings | None = None,
        death: DeathSettings | None = None,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        within("label_smoothing", label_smoothing, 0, 1, below=True)
        self.label_smoothing = label_smoothing
        self.surgery = settings(SurgerySettings, surgery)
        self.death = settings(DeathSettings, death)
        if self.surgery.fold_constants and self.death.mode == "sum":
            raise ConfigError(
                "method.surgery.fold_constants=true removes units with a constant output, but method.death.mode=sum "
                "finds units with a sum below death.eps; set death.mode=saturated_const, or fold_constants=false"
            )

    def build(self, context: Context) -> None:
        """Make the learner and attach a surgeon for its units."""
        super().build(context)
        learner = self.learners["network"]
        self.total_updates = sum(
            -(-self.steps_per_epoch(stage, epoch) // learner.accumulate)
            for stage in self.stages()
            for epoch in range(stage.epochs)
        )
        """T, the number of updates in the whole run."""
        self.units = units_of(learner.network).in_mode(self.surgery.residual)
        self.surgeon = learner.attach_surgeon(
            self.units,
            min_width=self.surgery.min_width,
            round_to=self.surgery.round_to,
            exclude=self.surgery.exclude,
        )
        self.record = Record(learner.network, self.surgeon, image_shape=context.task.image_shape)
        self._samples = Samples(context.data, context.runtime, seed=context.seed, batch_size=self.death.batch_size)
        self._ever_dead: dict[str, Tensor] = {}
        self._counted: dict[str, float] = {}
        self._epoch = 0
        self._seconds, self._waited = 0.0, 0.0

    def train_step(self, item: Batch, position: Position) -> Mapping[str, Tensor]:
        """Call `before_update` if an update starts here, then run the step."""
        learner, self._epoch = self.learners["network"], position.epoch
        if learner.pending == 0:
            started, self._waited = time.perf_counter(), 0.0
            self.before_update(learner.updates)
            self._seconds += time.perf_counter() - started - self._waited
        self.record.count(item.total)
        return super().train_step(item, position)

    def loss(self, batch: Batch, position: Position) -> Mapping[str, Tensor]:
        """Return {"loss", "accuracy"}: cross-entropy, and accuracy on the assigned labels."""
        assert batch.targets is not None
        logits = self.learners["network"](batch.images).float()
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(dim=1) == batch.targets).float().mean()}

    def before_update(self, t: int) -> None:
        """Remove dead units if it is time to; called before the first micro-batch of update `t` = 0, 1, ..., T - 1."""
        if t % self.surgery.every == 0 and t >= self.surgery.start:
            self.remove_dead(t=t)

    def after_surgery(self) -> None:
        """Called when parameters have been replaced, by a removal or by loading a checkpoint of a smaller network."""

    def remove_dead(self, *, t: int, final: bool = False) -> int:
        """Remove the units that are dead now and return their number; with surgery.enabled=false only count them.

        - final: test on `death.final_num_samples` images instead of `death.num_samples`, and record how many units the
          smaller test would have removed wrongly and how many predictions the removal changes.
        """
        report = self._find_dead(self.death.num_samples)
        if not self.surgery.enabled:
            self._count(report)
            return 0
        if not final:
            return self.prune(report.dead, reason="dead", t=t, constants=report.constants)
        few, most = (self._samples.count(one) for one in (self.death.num_samples, self.death.final_num_samples))
        by_few = report
        if most != few:
            report = self._find_dead(self.death.final_num_samples)
        wrong = sum(
            int((by_few.dead[name] & ~dead & ~self.surgeon.idle[name]).sum())
            for name, dead in report.dead.items()
            if name not in self.surgery.exclude
        )
        facts = {"samples": float(most), "samples_before": float(few), "wrongly_dead": float(wrong)}
        removed = 0
        if self.surgeon.is_news(report.dead):
            learner, images = self.learners["network"], self.death.final_num_samples
            before = self._samples.classes(learner.inference_network, images)
            removed = self.prune(report.dead, reason="final", t=t, constants=report.constants)
            shares = self._samples.disagreement(before, self._samples.classes(learner.inference_network, images))
            facts |= {f"disagree_{split}": value for split, value in shares.items()}
            self.record.events[-1] |= facts
        self._counted |= {f"pruning/final/{name}": value for name, value in facts.items()}
        return removed

    def prune(
        self,
        dead: Mapping[str, Tensor],
        *,
        reason: str,
        t: int,
        constants: Mapping[str, Tensor] | None = None,
    ) -> int:
        """Remove units, record the event, and return the number removed; do nothing if all are known to be dead.

        - dead, constants: see `Surgeon.remove`.
        - reason, t: why, and before which update, the units are removed, for the record.

        Raises `NumericalError` if no path from the images to the classifier would be left.
        """
        if not self.surgeon.is_news(dead):
            return 0
        learner, images = self.learners["network"], next(iter(self.death_batches(self.death.num_samples)))
        masks = {name: dead.get(name, idle) for name, idle in self.surgeon.idle.items()}
        refuse_collapse(learner.network, self.units, masks, images, t=t, advice=self.advice)
        before = self._logits(images)
        removed = learner.remove(dead, constants=constants)
        self.after_surgery()
        changes = {name: float((after - before[name]).abs().max()) for name, after in self._logits(images).items()}
        self.record.note(t=t, epoch=self._epoch, reason=reason, removed=removed, **changes)
        return removed

    def death_batches(self, num_samples: int | None) -> Iterator[Tensor]:
        """Yield un-augmented training images, (B, C, H, W) float, the same ones every time for a seed.

        - num_samples: number of images; None for all.
        """
        yield from self._samples.batches(num_samples)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return pruning metrics and diagnostics; after the last epoch, first check for dead units and remove them.

        "time/pruning_seconds" is the time spent on checks and surgery between the epoch's steps,
        "time/final_pruning_seconds" the time spent after the last one.
        """
        seconds = {"time/pruning_seconds": self._seconds}
        self._seconds = self._waited = 0.0
        if stage == self.stages()[-1] and epoch + 1 == stage.epochs:
            started, self._epoch = time.perf_counter(), epoch
            self.remove_dead(t=self.learners["network"].updates, final=True)
            seconds["time/final_pruning_seconds"] = time.perf_counter() - started - self._waited
        return {**super().end_epoch(stage, epoch), **self.record.metrics(), **self._counted, **seconds}

    def finish(self, folder: Path) -> dict[str, Path]:
        """Write all events of the run to pruning.json, and draw figures/live_units.png."""
        from robustlab.pruning.live_units_figure import EVENTS_FILE, live_units_figure

        self.record.save(folder / EVENTS_FILE, total_updates=self.total_updates)
        picture = folder / "figures" / "live_units.png"
        live_units_figure(self.record.events, picture, total_updates=self.total_updates)
        return {"live_units": picture}

    def state_dict(self) -> dict[str, Any]:
        """Return the record of events, and the counts of dead units that were not removed."""
        return {
            "record": self.record.state_dict(),
            "ever_dead": self._ever_dead,
            "counted": self._counted,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned, once the learner's network has been cut to size."""
        self.record.load_state_dict(state["record"])
        self._ever_dead, self._counted = dict(state["ever_dead"]), dict(state["counted"])
        self._seconds = state["seconds"]
        self.after_surgery()

    def _find_dead(self, num_samples: int | None) -> DeathReport:
        chosen, runtime = self.death, self.context.runtime
        if self.surgery.fold_constants:
            chosen = replace(chosen, mode="saturated_const", fold_mean=True)
        self._wait()
        # Ranks only split long checks: with separate BatchNorm statistics, each should see all samples. In train mode
        # they must run equally many passes, since synchronised statistics wait for every rank.
        share = num_samples != chosen.num_samples and not chosen.require_train_dead
        batches = self._samples.batches(num_samples, share=share)
        return find_dead(self.learners["network"].network, self.units, batches, settings=chosen, runtime=runtime)

    def _wait(self) -> None:
        """Let the device finish earlier steps, so that their time is not counted as pruning."""
        if self.context.runtime.device.type == "cuda":
            started = time.perf_counter()
            torch.cuda.synchronize()
            self._waited += time.perf_counter() - started

    def _count(self, report: DeathReport) -> None:
        """Record dead units that are not removed: their share, and how many of all ever found dead are dead now."""
        live = self.surgeon.live
        for name, dead in report.dead.items():
            ever = self._ever_dead.setdefault(name, torch.zeros(self.surgeon.original[name], dtype=torch.bool))
            ever[live[name]] |= dead
        now = sum(int(dead.sum()) for dead in report.dead.values())
        once = sum(int(ever[live[name]].sum()) for name, ever in self._ever_dead.items())
        self._counted = {"pruning/dead_share": now / self.units.total}
        if once:
            self._counted["pruning/dead_overlap"] = now / once

    @torch.no_grad()
    def _logits(self, images: Tensor) -> dict[str, Tensor]:
        """Return float32 logits of the network and of its moving average, in which dead units may still be active."""
        learner = self.learners["network"]
        networks = {"logit_change": learner.network}
        if learner.ema is not None:
            networks["ema_logit_change"] = learner.ema.module
        return {name: network.eval().forward(images).float() for name, network in networks.items()}
