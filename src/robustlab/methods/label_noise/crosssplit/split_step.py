"""The training step after warm-up: guess, correct, mix and weight the losses of a batch, equations (1) to (8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustlab.core import rng
from robustlab.data.dataset import Batch
from robustlab.data.transforms import augment
from robustlab.engine.method import Context
from robustlab.engine.shared_batch import own_rows, whole, whole_parts
from robustlab.methods.label_noise.crosssplit import objective as losses
from robustlab.methods.label_noise.crosssplit import targets
from robustlab.methods.label_noise.crosssplit.crosssplit_settings import Settings
from robustlab.methods.label_noise.crosssplit.halves import Turn, TurnItem
from robustlab.methods.label_noise.crosssplit.label_record import Record
from robustlab.methods.label_noise.crosssplit.peer import half_probabilities, measure_extrema, probabilities
from robustlab.methods.label_noise.crosssplit.timeline import Schedule, gamma_at, ramp


class SplitStep:
    """Computes the loss of a step for `network`, given the frozen `peer`, without changing the weights of either.

    Its methods share these arguments:

    - age: t, the epoch counted from the start of warm-up.
    """

    def __init__(
        self,
        settings: Settings,
        schedule: Schedule,
        *,
        context: Context,
        turns: Mapping[int, Turn],
        record: Record,
    ) -> None:
        self.settings, self.schedule = settings, schedule
        self.runtime, self.seed = context.runtime, context.seed
        self.size = (context.data.num_train, context.task.num_classes)
        self.turns, self.record = turns, record
        self._precomputed: tuple[tuple[int, int, int], Tensor] | None = None

    def gamma(self, age: int) -> float:
        """Return gamma of an epoch, equation (10)."""
        gamma, schedule = self.settings.gamma, self.schedule
        return gamma_at(age, warmup=schedule.warmup, values=gamma.values, until=gamma.until, delta=schedule.delta)

    def lambda_u(self, time: float) -> float:
        """Return the weight of the unlabelled loss at `time` = age + step / steps, equation (8)."""
        schedule = self.schedule
        return schedule.lambda_u * ramp(time, warmup=schedule.warmup, epochs=self.settings.loss.ramp_epochs)

    def begin_turn(self, turn: int, *, network: nn.Module, peer: nn.Module) -> None:
        """Measure the class-wise extrema, equation (5), which are used for the whole turn."""
        if turn == 1:
            self.record.clear()
        jsd = self.settings.jsd
        if jsd.normalize:
            extrema = measure_extrema(
                self._corrector(network, peer),
                self.turns[turn].extrema.epoch(0),
                num_classes=self.size[1],
                runtime=self.runtime,
                train_mode=jsd.extrema_bn == "as_is" and turn == 2,
            )
            self.record.set_extrema(turn, extrema)

    def losses(self, item: TurnItem, age: int, *, network: nn.Module, peer: nn.Module) -> dict[str, Tensor]:
        """Return "loss" and its terms for the global batch, the same on every rank.

        Forwards run in the order of the official code, which affects BatchNorm statistics.
        """
        labelled, unlabelled = item.labelled, item.unlabelled
        scalars: dict[str, Tensor] = {}
        guessed = None if unlabelled is None else self.guess(unlabelled, item.turn, network=network, peer=peer)
        corrected = self.correct(item, age, network=network, peer=peer)
        wanted, batches = [corrected, corrected], [labelled, labelled]
        network.train()
        if unlabelled is not None and guessed is not None:
            if self.settings.loss.lambda_c > 0:
                scalars["contrastive"] = self._contrast(network, unlabelled)
            wanted += [guessed, guessed]
            batches += [unlabelled, unlabelled]
        images, mixed = self._mix(self._inputs(batches, item, age), wanted, batches, (item.turn, age, item.step))
        with self.runtime.autocast():
            logits = whole_parts(network(images), batches, runtime=self.runtime)
        rows = 2 * labelled.total
        scalars["labelled"] = losses.soft_cross_entropy(logits[:rows], mixed[:rows])
        scalars["prior"] = losses.uniform_prior(logits)
        if unlabelled is not None:
            scalars["unlabelled"] = losses.squared_error(logits[rows:], mixed[rows:])
        return self._total(scalars, self.lambda_u(age + item.step / item.steps))

    def guess(self, batch: Batch, turn: int, *, network: nn.Module, peer: nn.Module) -> Tensor:
        """Return the targets g of unlabelled samples, (U, C) float, from their two weak views."""
        settings, weak = self.settings.guess, batch.views[:2]
        network.train(settings.bn == "train")
        with torch.no_grad(), self.runtime.autocast():
            if self.settings.perf.fuse_guess:
                logits = [*network(torch.cat(weak)).chunk(2)]
            else:
                logits = [network(view) for view in weak]
            if settings.source == "both":
                logits += peer.eval()(torch.cat(weak)).chunk(2)
        guessed = targets.guess(*logits, temperature=settings.temperature)
        self.record.guessed(turn, batch.index, guessed)
        return guessed

    def correct(self, item: TurnItem, age: int, *, network: nn.Module, peer: nn.Module) -> Tensor:
        """Return the targets h of labelled samples, (B, C) float: labels softened by the peer's predictions."""
        settings, batch = self.settings.correct, item.labelled
        assert batch.targets is not None
        if self.settings.perf.precompute_targets:
            predicted = self._half_probabilities(item, age, peer)[batch.index]
        else:
            corrector = self._corrector(network, peer).eval()
            predicted = probabilities(corrector, batch.views[: settings.views], runtime=self.runtime)
        correction = targets.correct(
            predicted,
            batch.targets,
            self.record.extrema(item.turn) if self.settings.jsd.normalize else None,
            gamma=self.gamma(age),
            temperature=settings.temperature,
            hard=settings.hard,
            eps=self.settings.jsd.eps,
        )
        self.record.corrected(item.turn, batch.index, correction, predicted)
        return correction.targets

    def _corrector(self, network: nn.Module, peer: nn.Module) -> nn.Module:
        return peer if self.settings.correct.source == "peer" else network

    def _half_probabilities(self, item: TurnItem, age: int, peer: nn.Module) -> Tensor:
        """Return the peer's predictions for the whole half, (N, C), computed once per pass over it.

        They are not part of the state: the peer is frozen and the views are a function of the pass, so a resumed run
        recomputes the same values.
        """
        turn = self.turns[item.turn]
        cycle = item.step // len(turn.labelled)
        wanted = (item.turn, age, cycle)
        if self._precomputed is None or self._precomputed[0] != wanted:
            steps = len(turn.corrected)
            batches = turn.corrected.epoch(age, start=cycle * steps, steps=(cycle + 1) * steps)
            views = self.settings.correct.views
            table = half_probabilities(peer, batches, views=views, size=self.size, runtime=self.runtime)
            self._precomputed = wanted, table
        return self._precomputed[1]

    def _contrast(self, network: nn.Module, batch: Batch) -> Tensor:
        strong = batch.views[2:]
        with self.runtime.autocast():
            if self.settings.perf.fuse_contrastive:
                first, second = network(torch.cat([*strong]), project=True)[0].chunk(2)
            else:
                first, second = (network(view, project=True)[0] for view in strong)
        first, second = (whole(one, batch.total, runtime=self.runtime) for one in (first, second))
        return losses.nt_xent(first, second, temperature=self.settings.loss.tau)

    def _inputs(self, batches: Sequence[Batch], item: TurnItem, age: int) -> Tensor:
        """Return the images to mix, two views of each batch: strong views, or randomly weak ones."""
        strong = torch.cat([batch.views[2 + place % 2] for place, batch in enumerate(batches)])
        if self.schedule.strong >= 1:
            return strong
        rows = sum(batch.total for batch in batches)
        draws = torch.rand(rows, generator=rng.generator(rng.fold(self.seed, "strong", item.turn, age, item.step)))
        own = own_rows(batches, runtime=self.runtime)
        chosen = (draws if own is None else draws[own]) < self.schedule.strong
        weak = torch.cat([batch.views[place % 2] for place, batch in enumerate(batches)])
        return torch.where(chosen.to(weak.device, non_blocking=True)[:, None, None, None], strong, weak)

    def _mix(
        self, inputs: Tensor, wanted: Sequence[Tensor], batches: Sequence[Batch], key: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor]:
        """Mix all rows, labelled and unlabelled, with one lambda and one permutation, equation (7).

        Returns this rank's mixed images and the mixed targets of all rows.

        - inputs, wanted: this rank's images and targets.
        - batches: the batches that they come from.
        """
        images, mixed, _ = augment.mixup(
            whole_parts(inputs, batches, runtime=self.runtime),
            whole_parts(torch.cat([*wanted]), batches, runtime=self.runtime),
            alpha=self.schedule.alpha,
            generator=rng.generator(rng.fold(self.seed, "mixup", *key)),
            at_least_half=True,
            own=own_rows(batches, runtime=self.runtime),
        )
        return images, mixed

    def _total(self, terms: Mapping[str, Tensor], lambda_u: float) -> dict[str, Tensor]:
        """Return "loss", equation (8), each raw term as "loss_<name>" and each weighted term as "weighted_<name>"."""
        loss = self.settings.loss
        weights = {"labelled": 1.0, "unlabelled": lambda_u, "contrastive": loss.lambda_c, "prior": loss.prior}
        scalars = {f"loss_{name}": term for name, term in terms.items()}
        scalars |= {f"weighted_{name}": weights[name] * term for name, term in terms.items()}
        # A weight of 0 skips the term, so that not even a NaN in it can reach the gradient.
        scalars["loss"] = torch.stack([weights[name] * term for name, term in terms.items() if weights[name] > 0]).sum()
        return scalars
