"""The dictionary of concepts and the centre of the teacher's logits: what training updates without gradients."""

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
    """K codes, each a direction of slot vectors shared across images: a concept.

    codes: unit length, float32 [K, d]. usage: moving average of each code's share of the slots times K, so that 1 is
    even use, float32 [K]. updates: how often it was updated.
    """

    def __init__(self, settings: DictionarySettings, *, dim: int, seed: int, device: torch.device) -> None:
        """Begin with random directions, a function of (seed, "dictionary"); see `begin`."""
        self.settings, self.seed = settings, seed
        drawn = torch.randn(settings.codes, dim, generator=rng.generator(rng.fold(seed, "dictionary")))
        self.codes = F.normalize(drawn, dim=1).to(device)
        self.usage = torch.ones(settings.codes, device=device)
        self.updates = 0

    def distances(self, vectors: Tensor) -> Tensor:
        """Return D, the squared distances of unit vectors: float32 [..., K] in [0, 4] for vectors float [..., d]."""
        return 2 - 2 * (F.normalize(vectors.float(), dim=-1) @ self.codes.T)

    def assign(self, vectors: Tensor) -> Tensor:
        """Return the nearest code of each vector: int64 [...]."""
        return self.distances(vectors).argmin(dim=-1)

    @torch.no_grad()
    def update(self, vectors: Tensor, active: Tensor, *, total: int) -> Tensor:
        """Move each code towards the mean of the active vectors next to it; return the counts, float32 [K].

        Then, where that is asked for, put codes that nothing uses on other vectors.

        e[k] <- normalise(m e[k] + (1 - m) mean): the paper's formula has a sum where its text has a mean, and with a
        sum the length of a code would depend on how often it is hit. Codes without a vector stay. vectors: unit length,
        float32 [M, d], the same on every rank; active: bool [M]. total: updates of the whole stage.
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
        """Before the first update, put the codes on distinct active vectors where `initial` says so; see `update`."""
        if self.settings.initial == "slots" and self.updates == 0:
            self._reseed(vectors, active, torch.ones_like(self.usage, dtype=torch.bool))

    def _reseed(self, vectors: Tensor, active: Tensor, dead: Tensor) -> None:
        """Put the `dead` codes, bool [K], on distinct active vectors, drawn by (seed, "reseed", updates)."""
        key = rng.fold(self.seed, "reseed", self.updates)
        draw = rng.uniform(key, torch.arange(len(vectors), device=vectors.device), 1)[:, 0]
        drawn = torch.where(active, draw, -1.0).topk(min(len(self.codes), len(vectors)))
        # Fewer vectors than codes: codes without one of their own stay.
        spare = len(self.codes) - len(drawn.values)
        chosen = dead & F.pad(drawn.values >= 0, (0, spare))
        candidates = vectors[F.pad(drawn.indices, (0, spare))]
        self.codes = torch.where(chosen[:, None], candidates, self.codes)
        self.usage = torch.where(chosen, 1.0, self.usage)

    def state_dict(self) -> dict[str, Any]:
        """Return codes, usage and updates."""
        return {"codes": self.codes, "usage": self.usage, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.codes = state["codes"].to(self.codes)
        self.usage = state["usage"].to(self.usage)
        self.updates = int(state["updates"])


def perplexity(weights: Tensor) -> Tensor:
    """Return exp(entropy) of weights float [K]: how many codes are in use, from 1 to K; 1 where all are 0."""
    share = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def update_centre(centre: Tensor, logits: tuple[Tensor, ...], *, momentum: float, runtime: Runtime) -> Tensor:
    """Return c <- m c + (1 - m) mean of the teacher's logits over images of all ranks, views and places: float32 [N].

    logits: of each view, float32 [B, N, h, w], not aligned.
    """
    sums = torch.stack([view.sum(dim=(0, 2, 3)) for view in logits]).sum(dim=0)
    places = sum(view.numel() // view.shape[1] for view in logits)
    totals = torch.cat([sums, sums.new_full((1,), places)])
    if runtime.world_size > 1:
        dist.all_reduce(totals)
    return torch.lerp(totals[:-1] / totals[-1], centre, momentum)
