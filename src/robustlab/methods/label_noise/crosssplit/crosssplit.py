"""CrossSplit: two networks, each trained on the labels of one half, softened by the other network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

from torch import Tensor, nn

from robustlab.core.console import percent, say, warn
from robustlab.core.errors import ConfigError
from robustlab.engine.inference import eval_logits
from robustlab.engine.method import Context, Method, Position, Stage
from robustlab.engine.method import settings as group
from robustlab.engine.shared_batch import weighted
from robustlab.methods.label_noise.crosssplit import crosssplit_settings as s
from robustlab.methods.label_noise.crosssplit.halves import Turn, TurnItem, split_halves
from robustlab.methods.label_noise.crosssplit.label_record import Record, stall
from robustlab.methods.label_noise.crosssplit.objective import warmup_loss
from robustlab.methods.label_noise.crosssplit.split_step import SplitStep
from robustlab.methods.label_noise.crosssplit.timeline import Schedule


class CrossSplit(Method):
    """CrossSplit (Kim, Baratin, Zhang, Lacoste-Julien, ICML 2023).

    Targets come from the networks themselves, as in the paper, which uses no weight average: with `trainer.ema_decay`
    both networks train as without it, and their averages predict.

    - split, ..., perf: groups of hyperparameters, see `settings`.
    - steps_per_epoch: steps of each network's turn after warm-up; None for one pass over its half.
    - turn_order: "sequential" (network 2 learns from this epoch's network 1) or "simultaneous" (both learn from the
      peer as it was at the start of the epoch).
    - proj_dim: width of the projection head for the contrastive loss.
    """

    def __init__(
        self,
        *,
        split: s.SplitSettings | None = None,
        warmup: s.WarmupSettings | None = None,
        labelled: s.LabelledSettings | None = None,
        unlabelled: s.UnlabelledSettings | None = None,
        jsd: s.JsdSettings | None = None,
        gamma: s.GammaSettings | None = None,
        guess: s.GuessSettings | None = None,
        correct: s.CorrectSettings | None = None,
        mixup: s.MixupSettings | None = None,
        loss: s.LossSettings | None = None,
        perf: s.PerfSettings | None = None,
        steps_per_epoch: int | None = None,
        turn_order: Literal["sequential", "simultaneous"] = "sequential",
        proj_dim: int = 128,
    ) -> None:
        """Raise `ConfigError` for values that are out of range or contradict each other."""
        s.at_least("proj_dim", proj_dim, 1)
        self.projection_dim = proj_dim
        self.settings = s.Settings(
            split=group(s.SplitSettings, split),
            warmup=group(s.WarmupSettings, warmup),
            labelled=group(s.LabelledSettings, labelled),
            unlabelled=group(s.UnlabelledSettings, unlabelled),
            jsd=group(s.JsdSettings, jsd),
            gamma=group(s.GammaSettings, gamma),
            guess=group(s.GuessSettings, guess),
            correct=group(s.CorrectSettings, correct),
            mixup=group(s.MixupSettings, mixup),
            loss=group(s.LossSettings, loss),
            perf=group(s.PerfSettings, perf),
            steps_per_epoch=steps_per_epoch,
            turn_order=turn_order,
        )

    def build(self, context: Context) -> None:
        """Split the data, make the loaders of both turns and the two networks. Raises `ConfigError`."""
        fixed = self.settings.warmup.epochs
        if isinstance(fixed, int) and fixed >= context.epochs:
            raise ConfigError(
                f"method.warmup.epochs={fixed} uses up all of trainer.epochs={context.epochs}; lower the first or "
                f"raise the second"
            )
        self.context = context
        data = context.data
        labels = data.assigned[data.train_indices]
        first, second = split_halves(data.train_indices, labels, seed=context.seed, settings=self.settings.split)
        self.halves = (first, second)
        options: dict[str, Any] = {
            "data": data,
            "batch_size": context.batch_size,
            "settings": self.settings,
            "runtime": context.runtime,
        }
        self.turns = {1: Turn(1, own=first, other=second, **options), 2: Turn(2, own=second, other=first, **options)}
        self.schedule = self._schedule(context)
        warmup = self.schedule.warmup
        self.learners = {}
        for number, turn in self.turns.items():
            steps = [len(turn.warmup)] * warmup + [turn.steps] * (context.epochs - warmup)
            self.learners[f"network{number}"] = context.new_learner(
                f"network{number}", epochs=context.epochs, steps_per_epoch=steps
            )
        self.record = Record(data.num_train, context.task.num_classes, context.runtime.device)
        self.step = SplitStep(self.settings, self.schedule, context=context, turns=self.turns, record=self.record)
        self.entropy_weight = self._entropy_weight()
        simultaneous = self.settings.turn_order == "simultaneous"
        self.frozen = deepcopy(self.learners["network1"].network) if simultaneous else None

    def _schedule(self, context: Context) -> Schedule:
        """Return the schedule, and print it if parts of it follow from the length of the run."""
        turn = self.turns[1]
        found = Schedule.of(self.settings, epochs=context.epochs, steps=turn.steps)
        if self.settings.follows_the_run:
            before, after = found.warmup * len(turn.warmup), (context.epochs - found.warmup) * turn.steps
            labels = "all labels" if turn.warmup_data == "full" else "each network's own half"
            say(
                f"CrossSplit, adapted to the length of this run: {found.warmup} warm-up epochs on {labels} ({before:,} "
                f"updates per network, then {after:,}), "
                f"delta {found.delta:.3g} epochs, lambda_u {found.lambda_u:.3g}, MixUp alpha {found.alpha:.3g}, "
                f"{percent(found.strong)} strong views"
            )
        return found

    def _entropy_weight(self) -> float:
        """Return c of equation (9); "auto" is 0.1 for noise declared as asymmetric, else 0 (official code)."""
        wanted = self.settings.warmup.neg_entropy
        if wanted != "auto":
            return float(wanted)
        asymmetric = self.context.data.noise_record()["asymmetric"]
        if asymmetric is None:
            warn(
                "it is not known whether the noise in these labels is asymmetric, and the warm-up assumes that it is "
                "not; if it is, set noise.model.asymmetric=true (noise=file) or method.warmup.neg_entropy=0.1"
            )
        return 0.1 if asymmetric else 0.0

    def stages(self) -> Sequence[Stage]:
        """Return the stages "warmup" and "ssl" (cross-split semi-supervised training)."""
        warmup = self.schedule.warmup
        return [Stage("warmup", warmup), Stage("ssl", self.context.epochs - warmup)]

    def _age(self, stage: str, epoch: int) -> int:
        """Return t, the epoch counted from the start of warm-up."""
        return epoch if stage == "warmup" else self.schedule.warmup + epoch

    def _lengths(self, stage: Stage) -> dict[int, int]:
        warmup = stage.name == "warmup"
        return {number: len(turn.warmup) if warmup else turn.steps for number, turn in self.turns.items()}

    def steps_per_epoch(self, stage: Stage, epoch: int) -> int:
        """Return the total number of steps of both turns."""
        return sum(self._lengths(stage).values())

    def batches(self, stage: Stage, epoch: int, start: int) -> Iterator[TurnItem]:
        """Yield the steps of network 1's turn, then those of network 2's."""
        age = self._age(stage.name, epoch)
        for number, length in self._lengths(stage).items():
            turn = self.turns[number]
            if start < length:
                serve = turn.warmup_items if stage.name == "warmup" else turn.items
                yield from serve(age, start=start)
            start = max(start - length, 0)

    def train_step(self, item: TurnItem, position: Position) -> Mapping[str, Tensor]:
        """Train the network whose turn it is; the peer's weights and statistics stay as they are."""
        learner = self.learners[f"network{item.turn}"]
        if position.stage == "warmup":
            scalars = self._warmup_losses(item, learner.network)
        else:
            if item.step == 0 and item.turn == 1 and self.frozen is not None:
                self.frozen.load_state_dict(learner.network.state_dict())
            networks = {"network": learner.network, "peer": self._peer(item.turn)}
            if item.step == 0:
                self.step.begin_turn(item.turn, **networks)
            scalars = self.step.losses(item, self._age(position.stage, position.epoch), **networks)
        learner.step(scalars["loss"])
        if item.step == item.steps - 1:
            learner.flush()  # the other network learns from this one next, so no gradient may be pending
        return {name: value.detach() for name, value in scalars.items()}

    def _warmup_losses(self, item: TurnItem, network: nn.Module) -> dict[str, Tensor]:
        assert item.labelled.targets is not None
        network.train()
        with self.context.runtime.autocast():
            logits = network(item.labelled.images)
        loss = warmup_loss(logits, item.labelled.targets, entropy_weight=self.entropy_weight)
        return weighted({"loss": loss}, item.labelled, runtime=self.context.runtime)

    def _peer(self, turn: int) -> nn.Module:
        if turn == 1:
            return self.learners["network2"].network
        return self.learners["network1"].network if self.frozen is None else self.frozen

    def end_epoch(self, stage: Stage, epoch: int) -> dict[str, float]:
        """Return what happened to the labels, after warm-up."""
        age = self._age(stage.name, epoch)
        data, runtime = self.context.data, self.context.runtime
        metrics: dict[str, float] = {}
        if stage.name == "ssl":
            gamma = self.step.gamma(age)
            metrics |= {"diagnostics/gamma": gamma, "diagnostics/lambda_u": self.step.lambda_u(age + 1)}
            metrics |= self.record.metrics(data, gamma=gamma, runtime=runtime)
        return metrics

    def label_owners(self) -> dict[str, Tensor]:
        """Return the half of each network."""
        return {f"network{number}": half for number, half in enumerate(self.halves, 1)}

    def remarks(self, final: Mapping[str, float], stage_ends: Mapping[str, Mapping[str, float]]) -> list[str]:
        """Return a warning if accuracy has fallen since the end of warm-up."""
        return stall(final, stage_ends)

    def predict(self, images: Tensor) -> Tensor:
        """Return the sum of both networks' logits, (B, C) float32."""
        return self.predictions(images)[""]

    def predictions(self, images: Tensor) -> dict[str, Tensor]:
        """Return "" (the sum of logits), "network1" and "network2"."""
        runtime = self.context.runtime
        first, second = (eval_logits(learner, images, runtime=runtime) for learner in self.learners.values())
        return {"": first + second, "network1": first, "network2": second}

    def state_dict(self) -> dict[str, Any]:
        """Return the extrema of both turns, the epoch's diagnostics so far, and the frozen peer if there is one."""
        return {
            "record": self.record.state_dict(),
            "frozen": None if self.frozen is None else self.frozen.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.record.load_state_dict(state["record"])
        if self.frozen is not None:
            self.frozen.load_state_dict(state["frozen"])
