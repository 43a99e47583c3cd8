"""CoBalT: stage 1 discovers concepts, stage 2 trains a classifier on images sampled in balance over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from robustlab.core.checks import at_least, choose
from robustlab.core.errors import ConfigError
from robustlab.data.serving.loader import Loader
from robustlab.engine.method import Context, Position, Stage, settings
from robustlab.methods.erm import ERM
from robustlab.methods.groups.cobalt import artifact as concept_files
from robustlab.methods.groups.cobalt.artifact import Concepts
from robustlab.methods.groups.cobalt.concept_controls import clustered, shuffled
from robustlab.methods.groups.cobalt.discover import PURPOSE, Discovery
from robustlab.methods.groups.cobalt.discovery_settings import (
    DictionarySettings,
    DiscoverySettings,
    ExtractSettings,
    PerfSettings,
    SlotSettings,
    TeacherSettings,
    TemperatureSettings,
    ViewSettings,
    WeightSettings,
)
from robustlab.methods.groups.cobalt.outcome import announce, diagnostics, draws, write_report
from robustlab.methods.groups.cobalt.sampler import probabilities
from robustlab.methods.groups.cobalt.sampler_report import SamplerReport
from robustlab.methods.groups.cobalt.sampler_settings import DiscoverSettings, SamplerSettings

DISCOVER, CLASSIFY = "discover", "classify"
FILE = "concepts.pt"
"""Name of the file of concepts in the run folder."""


class CoBalT(ERM):
    """Concept discovery without labels, then cross-entropy on images sampled to balance concepts and labels.

    No group labels are used, neither in training nor for `surrogate_groups`, on which the rule `ig` is based. Stage 1
    ("discover") trains the learner "discovery" and ends by assigning concepts to all images; stage 2 ("classify")
    trains "network" from separate initial weights. Both networks are instances of the configured model.

    - concepts: "slots", or one of two controls: "shuffled" (each image gets the concepts of another one) and "image"
      (clusters of whole images in the features of stage 1, without slots).
    - artifact: concept file of an earlier run, which replaces stage 1.
    - classify: False ends the run after stage 1.
    - discover: see `DiscoverSettings`.
    - slots, ..., perf: see `discovery_settings`.
    - sampler: see `SamplerSettings`.
    - min_group_val: minimum size of an inferred validation group for the worst group.
    """

    predictors: ClassVar[tuple[str, ...] | None] = ("network",)

    def __init__(
        self,
        *,
        concepts: Literal["slots", "shuffled", "image"] = "slots",
        artifact: str | None = None,
        classify: bool = True,
        discover: DiscoverSettings | None = None,
        slots: SlotSettings | None = None,
        views: ViewSettings | None = None,
        temperature: TemperatureSettings | None = None,
        weights: WeightSettings | None = None,
        dictionary: DictionarySettings | None = None,
        teacher: TeacherSettings | None = None,
        extract: ExtractSettings | None = None,
        perf: PerfSettings | None = None,
        sampler: SamplerSettings | None = None,
        min_group_val: int = 5,
        label_smoothing: float = 0.0,
    ) -> None:
        """Raise `ConfigError` for values out of range."""
        super().__init__(label_smoothing=label_smoothing)
        choose("concepts", concepts, ("slots", "shuffled", "image"))
        at_least("min_group_val", min_group_val, 1)
        if artifact is not None and not classify:
            raise ConfigError(
                "method.artifact replaces stage 1, and method.classify=false skips stage 2, so there is nothing to do; "
                "set only one of them"
            )
        self.kind, self.artifact, self.classify = concepts, artifact, classify
        self.discover = settings(DiscoverSettings, discover)
        self.discovery_settings = DiscoverySettings(
            slots=settings(SlotSettings, slots),
            views=settings(ViewSettings, views),
            temperature=settings(TemperatureSettings, temperature),
            weights=settings(WeightSettings, weights),
            dictionary=settings(DictionarySettings, dictionary),
            teacher=settings(TeacherSettings, teacher),
            extract=settings(ExtractSettings, extract),
            perf=settings(PerfSettings, perf),
        )
        self.sampler = settings(SamplerSettings, sampler)
        self.surrogate_min_count = min_group_val
        self.found: Concepts | None = None
        """The concepts from stage 1 or the artifact."""

    def build(self, context: Context) -> None:
        """Make both networks, or with an artifact only the classifier.

        Raises `ConfigError` for a network without feature maps, and for an artifact of another data set.
        """
        self.context, self.learners = context, {}
        self.discovery = self._build_discovery(context) if self.artifact is None else None
        self.learners["network"] = context.new_learner(
            "network", epochs=context.epochs, steps_per_epoch=len(self._plain_loader())
        )
        if self.artifact is not None:
            needed = ["train", *(split for split in context.data.evaluation_splits if split == "val")]
            self._balance(self._checked(concept_files.load(Path(self.artifact), context.data, splits=needed)))
            announce(self.report)

    def _build_discovery(self, context: Context) -> Discovery:
        size = self.discover.batch_size or context.batch_size
        discovery = Discovery(self.discovery_settings, task=context.task, runtime=context.runtime, seed=context.seed)
        self.discovery_loader = context.data.loader(batch_size=size, views=("test",), purpose=PURPOSE, labelled=False)
        steps, epochs = len(self.discovery_loader), self.discover.epochs
        learner = context.new_learner(
            "discovery",
            epochs=epochs,
            steps_per_epoch=steps,
            wrap=discovery.wrap,
            optimizer=partial(torch.optim.Adam, lr=self.discover.lr, weight_decay=self.discover.weight_decay),
            scheduler=None,
            interval="step",
        )
        updates = epochs * -(-steps // learner.accumulate)
        warmup = round(self.discover.warmup * updates)
        if warmup:
            learner.scheduler = LinearLR(learner.optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        discovery.build(learner, updates=updates)
        self.learners["discovery"] = learner
        return discovery

    def stages(self) -> Sequence[Stage]:
        """Return one or both stages; the first one is not evaluated, since there is no classifier yet."""
        discover = Stage(DISCOVER, self.discover.epochs, evaluated=False, learners=("discovery",))
        classify = Stage(CLASSIFY, self.context.epochs, learners=("network",))
        return [*([] if self.discovery is None else [discover]), *([classify] if self.classify else [])]

    def _plain_loader(self, weights: Tensor | None = None) -> Loader:
        context = self.context
        return context.data.loader(batch_size=context.batch_size, views=("weak",), purpose="train", weights=weights)

    def steps_per_epoch(self, stage: Stage, epoch: int) -> int:
        """Return the number of batches of one pass, which balancing does not change."""
        return len(self.discovery_loader if stage.name == DISCOVER else self._plain_loader())

    def batches(self, stage: Stage, epoch: int, start: int) -> Iterator[Any]:
        """Yield unlabelled batches in stage 1, and batches of as many draws as there are training images in stage 2."""
        if stage.name == DISCOVER:
            return self.discovery_loader.epoch(epoch, start=start)
        return self._plain_loader(self.report.p).epoch(epoch, start=start)

    def train_step(self, item: Any, position: Position) -> Mapping[str, Tensor]:
        """Run a step of the stage; return the scalars of `Discovery.step`, or {"loss", "accuracy"} in stage 2."""
        if position.stage == CLASSIFY:
            return super().train_step(item, position)
        assert self.discovery is not None
        return self.discovery.step(item.images, item.index, epoch=position.epoch, total=item.total)

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """After stage 1 extract and report the concepts; in stage 2 report sampling statistics and ERM's metrics."""
        if stage.name == CLASSIFY:
            return {**super().end_epoch(stage, epoch), **draws(self.report, self.context.data)}
        if epoch + 1 < stage.epochs:
            return {}
        self._balance(self._discovered())
        announce(self.report)
        return {**diagnostics(self.used, self.context.data), **draws(self.report, self.context.data)}

    def _discovered(self) -> Concepts:
        assert self.discovery is not None
        data, kind = self.context.data, "image" if self.kind == "image" else "slots"
        splits = ("train", *data.evaluation_splits)
        found = self.discovery.extract(data, splits, identity={"concepts": kind, "discover": asdict(self.discover)})
        if kind == "image":
            clusters = clustered(self.discovery, found, data, splits)
            return self.context.runtime.gather(clusters)[0]  # on GPUs, ranks may differ in the last bits
        return found

    def _checked(self, concepts: Concepts) -> Concepts:
        """Return concepts loaded from a file. Raises ConfigError if they are of the wrong kind."""
        wanted, there = "image" if self.kind == "image" else "slots", concepts.identity.get("concepts")
        if there != wanted:
            raise ConfigError(
                f"method.artifact={self.artifact} contains concepts by {there}, but method.concepts={self.kind} needs "
                f"concepts by {wanted}; use a file of that kind"
            )
        return concepts

    def _balance(self, concepts: Concepts) -> None:
        """Use the concepts, or the control derived from them, for sampling and inferred groups."""
        self.found = concepts
        self.used = shuffled(concepts, seed=self.context.seed) if self.kind == "shuffled" else concepts
        data = self.context.data
        self.report: SamplerReport = probabilities(
            self.used.tables["train"],
            data.labels("train"),
            num_concepts=concepts.num_concepts,
            num_classes=data.task.num_classes,
            settings=self.sampler,
            area=self.used.area["train"],
            codes=concepts.codes,
        )

    def surrogate_groups(self, split: str) -> Tensor | None:
        """Return the concepts of each image, (n, N) int16; None before stage 2, and for a split without concepts."""
        return None if self.found is None else self.used.tables.get(split)

    def finish(self, folder: Path) -> dict[str, Path]:
        """Write the concept file, a description of the sampler (sampler.json) and figures into the run folder."""
        if self.found is None:  # a debugging run that ended in stage 1
            return {}
        concept_files.save(self.found, folder / FILE)
        discovery = None if self.kind == "image" else self.discovery
        return write_report(self.report, self.found, self.context.data, folder, discovery=discovery)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of stage 1 apart from its learner, and the concepts once they are known."""
        return {
            "discovery": None if self.discovery is None else self.discovery.state_dict(),
            "concepts": None if self.found is None else dict(vars(self.found)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        if self.discovery is not None:
            self.discovery.load_state_dict(state["discovery"])
        if state["concepts"] is not None:
            self._balance(Concepts(**state["concepts"]))
