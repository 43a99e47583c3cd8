"""State that stage 1 updates without gradients: the dictionary of concepts and the centre of the teacher's logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from robustlab.core import rng
from robustlab.core.runtime import Runtime
from robustlab.methods.groups.cobalt.discovery_settings import DictionarySettings


class Dictionary:
    """K codes, each a direction of slot vectors shared across images, that is, a concept.

    - codes: (K, d) float32, unit length.
    - usage: moving average of each code's share of the slots times K, (K,) float32; 1 means uniform use.
    - updates: number of updates so far.
    """

    def __init__(self, settings: DictionarySettings, *, dim: int, seed: int, device: torch.device) -> None:
        """Start with random directions, a function of (seed, "dictionary"); see `begin`."""
        self.settings, self.seed = settings, seed
        drawn = torch.randn(settings.codes, dim, generator=rng.generator(rng.fold(seed, "dictionary")))
        self.codes = F.normalize(drawn, dim=1).to(device)
        self.usage = torch.ones(settings.codes, device=device)
        self.updates = 0

    def distances(self, vectors: Tensor) -> Tensor:
        """Return D, the squared distances to all codes, (..., K) float32 in [0, 4].

        - vectors: (..., d) float; only their directions matter.
        """
        return 2 - 2 * (F.normalize(vectors.float(), dim=-1) @ self.codes.T)

    def assign(self, vectors: Tensor) -> Tensor:
        """Return the nearest code of each vector, (...) int64."""
        return self.distances(vectors).argmin(dim=-1)

    @torch.no_grad()
    def update(self, vectors: Tensor, active: Tensor, *, total: int) -> Tensor:
        """Move each code towards the mean of the active vectors nearest to it; return the counts, (K,) float32.

        Then re-seed unused codes, if enabled. The rule is e[k] <- normalise(m e[k] + (1 - m) mean): the paper's formula
        has a sum where its text has a mean, and with a sum the length of a code would depend on how often it is hit.
        Codes without any vector stay.

        - vectors: (M, d) float32, unit length, the same on every rank.
        - active: (M,) bool.
        - total: number of updates in the whole stage.
        """
        settings = self.settings
        codes = torch.arange(settings.codes, device=vectors.device)
        members = ((self.assign(vectors)[:, None] == codes) & active[:, None]).to(vectors.dtype)
        counts = members.sum(dim=0)
        means = (members.T @ vectors) / counts.clamp(min=1)[:, None]
        moved = F.normalize(settings.momentum * self.codes + (1 - settings.momentum) * means, dim=1)
        self.codes = torch.where(counts[:, None] > 0, moved, self.codes)
        share = counts / counts.sum().clamp(min=1) * settings.codes
        self.usage = torch.lerp(share, self.usage, settings.usage_momentum(total))
        self.updates += 1
        if settings.reseed:
            self._reseed(vectors, active, self.usage < settings.reseed_below)
        return counts

    @torch.no_grad()
    def begin(self, vectors: Tensor, active: Tensor) -> None:
        """Before the first update, place the codes on distinct active vectors if `initial` says so; see `update`."""
        if self.settings.initial == "slots" and self.updates == 0:
            self._reseed(vectors, active, torch.ones_like(self.usage, dtype=torch.bool))

    def _reseed(self, vectors: Tensor, active: Tensor, dead: Tensor) -> None:
        """Place the `dead` codes, (K,) bool, on distinct active vectors, drawn by (seed, "reseed", updates)."""
        key = rng.fold(self.seed, "reseed", self.updates)
        draw = rng.uniform(key, torch.arange(len(vectors), device=vectors.device), 1)[:, 0]
        drawn = torch.where(active, draw, -1.0).topk(min(len(self.codes), len(vectors)))
        # With fewer vectors than codes, the remaining codes stay.
        spare = len(self.codes) - len(drawn.values)
        chosen = dead & F.pad(drawn.values >= 0, (0, spare))
        candidates = vectors[F.pad(drawn.indices, (0, spare))]
        self.codes = torch.where(chosen[:, None], candidates, self.codes)
        self.usage = torch.where(chosen, 1.0, self.usage)

    def state_dict(self) -> dict[str, Any]:
        """Return codes, usage and number of updates."""
        return {"codes": self.codes, "usage": self.usage, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.codes = state["codes"].to(self.codes)
        self.usage = state["usage"].to(self.usage)
        self.updates = int(state["updates"])


def perplexity(weights: Tensor) -> Tensor:
    """Return exp(entropy) of normalised weights, the effective number of codes in use, from 1 to K.

    - weights: (K,) float, non-negative; all zero gives 1.
    """
    share = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def update_centre(centre: Tensor, logits: tuple[Tensor, ...], *, momentum: float, runtime: Runtime) -> Tensor:
    """Return c <- m c + (1 - m) mean of the teacher's logits, (N,) float32.

    The mean is over images of all ranks, views and positions.

    - centre: c, (N,) float32.
    - logits: one tensor per view, (B, N, h, w) float32, not aligned.
    """
    sums = torch.stack([view.sum(dim=(0, 2, 3)) for view in logits]).sum(dim=0)
    places = sum(view.numel() // view.shape[1] for view in logits)
    totals = torch.cat([sums, sums.new_full((1,), places)])
    if runtime.world_size > 1:
        dist.all_reduce(totals)
    return torch.lerp(totals[:-1] / totals[-1], centre, momentum)
