"""Record CrossSplit's label correction over an epoch: per sample on the device, read once at the end of the epoch.

Only these diagnostics use clean labels; the rest of the method does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from robustlab.core.console import percent
from robustlab.methods.label_noise.crosssplit.targets import ClassExtrema, Correction, mixing_weight

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
    from robustlab.data.run_data import Data

PER_CLASS = 20
"""Maximum number of classes whose extrema are logged individually; more would give hundreds of curves."""

PER_SAMPLE = ("divergence", "soft", "peer", "guess")

STALL = 0.01
"""Drop in accuracy since warm-up, as a fraction, above which a run counts as stalled."""


class Record:
    """Per-sample records of an epoch. Row k - 1 of each tensor belongs to turn k; -1 for samples that were not seen.

    - divergence: JSDn, (2, N) float32.
    - soft, peer, guess: class of the corrected label, of the peer's prediction and of the guess, (2, N) int32.
    - low, high: extrema of the turns, (2, C) float32.
    """

    def __init__(self, num_samples: int, num_classes: int, device: torch.device) -> None:
        self.values = {
            "divergence": torch.full((2, num_samples), -1.0, device=device),
            "soft": torch.full((2, num_samples), -1, dtype=torch.int32, device=device),
            "peer": torch.full((2, num_samples), -1, dtype=torch.int32, device=device),
            "guess": torch.full((2, num_samples), -1, dtype=torch.int32, device=device),
            "low": torch.full((2, num_classes), float("inf"), device=device),
            "high": torch.full((2, num_classes), -float("inf"), device=device),
        }

    def clear(self) -> None:
        """Reset the per-sample entries; called at the start of an epoch's first turn."""
        for name in PER_SAMPLE:
            self.values[name].fill_(-1)

    def set_extrema(self, turn: int, extrema: ClassExtrema) -> None:
        """Store the extrema of a turn, which all its steps need."""
        self.values["low"][turn - 1] = extrema.low
        self.values["high"][turn - 1] = extrema.high

    def extrema(self, turn: int) -> ClassExtrema:
        """Return the extrema of a turn."""
        return ClassExtrema(self.values["low"][turn - 1], self.values["high"][turn - 1])

    def corrected(self, turn: int, index: Tensor, correction: Correction, predicted: Tensor) -> None:
        """Record the correction of a labelled batch.

        - index: sample indices, (B,) int64.
        - predicted: the peer's probabilities, (B, C).
        """
        self.values["divergence"][turn - 1, index] = correction.divergence
        self.values["soft"][turn - 1, index] = correction.targets.argmax(dim=1).int()
        self.values["peer"][turn - 1, index] = predicted.argmax(dim=1).int()

    def guessed(self, turn: int, index: Tensor, targets: Tensor) -> None:
        """Record the guesses of an unlabelled batch.

        - index: sample indices, (U,) int64.
        - targets: (U, C) float.
        """
        self.values["guess"][turn - 1, index] = targets.argmax(dim=1).int()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors."""
        return dict(self.values)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that `state_dict` returned."""
        for name, value in self.values.items():
            if name in state:  # checkpoints of earlier versions lack the peer's predictions, a mere diagnostic
                value.copy_(state[name])

    def _on_host(self, runtime: Runtime) -> dict[str, Tensor]:
        """Return copies on the CPU that combine the entries of all ranks."""
        values = {name: value.clone() for name, value in self.values.items()}
        if runtime.world_size > 1:
            for name in PER_SAMPLE:
                dist.all_reduce(values[name], op=dist.ReduceOp.MAX)
        return {name: value.cpu() for name, value in values.items()}

    def metrics(self, data: Data, *, gamma: float, runtime: Runtime) -> dict[str, float]:
        """Return the "diagnostics/..." scalars of the epoch; some of them need clean labels."""
        values = self._on_host(runtime)
        metrics = _extrema_metrics(values["low"], values["high"])
        divergence = values["divergence"]
        served = divergence >= 0
        if not served.any():
            return metrics
        beta = mixing_weight(divergence, gamma)
        metrics["diagnostics/beta"] = beta[served].double().mean().item()
        if data.clean is None:
            return metrics
        clean = data.clean.expand_as(divergence)
        wrong = served & (data.assigned != data.clean)
        right = served & ~wrong
        soft_right, guessed = values["soft"] == clean, values["guess"] >= 0
        shares = {
            "beta_wrong": (beta, wrong),
            "beta_right": (beta, right),
            "soft_label_accuracy": (soft_right, served),
            "soft_label_corrected": (soft_right, wrong),
            "soft_label_kept": (soft_right, right),
            "peer_accuracy": (values["peer"] == clean, served),
            "guess_accuracy": (values["guess"] == clean, guessed),
        }
        for name, (value, among) in shares.items():
            if among.any():
                metrics[f"diagnostics/{name}"] = value[among].double().mean().item()
        if wrong.any() and right.any():
            from torchmetrics.functional.classification import (
                binary_auroc,
            )  # slow to import, so not before the first step

            auc = binary_auroc(divergence[served], wrong[served].int(), validate_args=False)
            metrics["diagnostics/divergence_auc"] = float(auc)
        return metrics


def _extrema_metrics(low: Tensor, high: Tensor) -> dict[str, float]:
    """Return mean, minimum and maximum of Jmin and Jmax over turns and classes with samples.

    With up to `PER_CLASS` classes, also each value: "extrema/network1/class0_min", for the labels in network 1's turn.
    """
    metrics: dict[str, float] = {}
    if low.shape[1] <= PER_CLASS:
        for name, values in (("min", low), ("max", high)):
            for turn, row in enumerate(values.tolist(), 1):
                metrics |= {f"extrema/network{turn}/class{k}_{name}": v for k, v in enumerate(row) if math.isfinite(v)}
    for name, values in (("jsd_min", low), ("jsd_max", high)):
        known = values[values.isfinite()].double()
        if len(known):
            summary = {"mean": known.mean(), "least": known.min(), "greatest": known.max()}
            metrics |= {f"diagnostics/{name}_{key}": value.item() for key, value in summary.items()}
    return metrics


def stall(final: Mapping[str, float], stage_ends: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a warning if accuracy ends below its value after warm-up, else nothing.

    The networks then learn from their own mistakes: guesses feed guesses.

    - final, stage_ends: see `Method.remarks`.
    """
    metric = "test/accuracy" if "test/accuracy" in final else "val/accuracy"
    before, now = stage_ends.get("warmup", {}).get(metric), stage_ends.get("ssl", {}).get(metric)
    if before is None or now is None or not now < before - STALL:
        return []
    text = f"{metric} fell from {percent(before)} at the end of warm-up to {percent(now)}"
    named = {"guess": "guesses for unlabelled images", "peer": "the peer's predictions", "soft_label": "soft labels"}
    shares = {words: final.get(f"diagnostics/{name}_accuracy") for name, words in named.items()}
    known = [f"{words} {percent(share)}" for words, share in shares.items() if share is not None]
    if known:
        text += f" (correct at the end: {', '.join(known)})"
    return [
        f"{text}: the networks learn from their own mistakes. Warm up longer (method.warmup.epochs), give guesses less "
        "weight (method.loss.lambda_u) or make the inputs easier (method.mixup.alpha, method.mixup.strong): set them "
        "to auto or to lower values; see docs/methods/label-noise.md"
    ]
