"""Small runs of methods through the real data module, loaders and learners; no engine."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from robustlab.core import rng
from robustlab.core.runtime import Runtime
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.noise.transitions import Symmetric
from robustlab.data.run_data import Data
from robustlab.data.transforms.transform import Transform
from robustlab.engine.diagnostic import Diagnostic, clock_at
from robustlab.engine.learner import Learner
from robustlab.engine.method import Context, Method, Position
from robustlab.models.mlp import mlp

RUNTIME = Runtime(torch.device("cpu"))
GREY = 25.0
"""Grey levels per unit: inputs of about [-5, 5] become bytes around 128."""


class Gaussians(DataSource):
    """Classes with means ~ N(0, I) in `dim` dimensions and isotropic noise, as byte images [1, 1, dim]."""

    def __init__(self, *, train: int = 200, test: int = 100, classes: int = 5, dim: int = 16, sigma: float = 1.0):
        mean, std = (128 / 255,), (GREY / 255,)
        self.task = TaskSpec(classes, (1, 1, dim), mean, std)
        self.sizes, self.sigma = {"train": train, "test": test}, sigma

    def split(self, name: str) -> Split:
        classes, (_, _, dim) = self.task.num_classes, self.task.image_shape
        means = np.random.default_rng(0).normal(size=(classes, dim))
        draws = np.random.default_rng({"train": 1, "test": 2}[name])
        labels = np.arange(self.sizes[name]) % classes
        points = means[labels] + self.sigma * draws.normal(size=(len(labels), dim))
        pixels = np.clip(np.rint(128 + GREY * points), 0, 255).astype(np.uint8)
        return Split(torch.from_numpy(pixels)[:, None, None], torch.from_numpy(labels))


class Jitter(Transform):
    """Add normal noise of `sigma` units to every value."""

    def __init__(self, sigma: float, dim: int = 16):
        self.sigma, self.draws = sigma, dim

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        noise = torch.erfinv((2 * u - 1).clamp(-0.999999, 0.999999)) * 2**0.5 * self.sigma * GREY
        return (images + noise.view(len(images), 1, 1, -1)).round().clamp(0, 255).to(torch.uint8)


def make_data(*, noise: float = 0.5, seed: int = 0, views: dict[str, list[Transform]] | None = None, **options) -> Data:
    """Gaussians with symmetric noise; `options` go to `Gaussians`."""
    source = Gaussians(**options)
    dim = source.task.image_shape[-1]
    return Data(
        source,
        seed=seed,
        noise=Symmetric(rate=noise) if noise else None,
        noise_name="symmetric" if noise else "none",
        views={"weak": [Jitter(0.1, dim)], "strong": [Jitter(0.4, dim)]} if views is None else views,
    )


@dataclass
class Options:
    """What the learners of a test are made of."""

    lr: float = 0.05
    widths: tuple[int, ...] = (32,)
    proj_dim: int = 16
    cosine_to: float | None = None
    network: Callable[..., nn.Module] | None = None
    """In place of a perceptron."""
    learner: dict[str, Any] = field(default_factory=dict)


def make_context(data: Data, *, epochs: int, batch_size: int, seed: int = 0, options: Options | None = None) -> Context:
    chosen = options or Options()

    configured: Any = object()

    def new_learner(
        name: str,
        *,
        epochs: int,
        steps_per_epoch: int,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = configured,
        interval: str = "epoch",
    ) -> Learner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.fold(seed, "init", name))
            task = {"num_classes": data.task.num_classes, "image_shape": data.task.image_shape}
            if chosen.network is None:
                network = mlp(**task, proj_dim=chosen.proj_dim, widths=chosen.widths)
            else:
                network = chosen.network(**task)
            network = network if wrap is None else wrap(network)
        schedule = None if scheduler is configured else scheduler
        if scheduler is configured and chosen.cosine_to is not None:
            schedule = partial(CosineAnnealingLR, T_max=epochs, eta_min=chosen.cosine_to)
        return Learner(
            network,
            runtime=RUNTIME,
            optimizer=optimizer or partial(torch.optim.SGD, lr=chosen.lr, momentum=0.9, weight_decay=5e-4),
            scheduler=schedule,
            interval=interval,
            **chosen.learner,
        )

    return Context(data.task, data, RUNTIME, seed, epochs, batch_size, new_learner)


Watch = Callable[[Any, Position], None]


def positions(method: Method) -> list[tuple[Any, Position]]:
    """Every (stage, position) of a run, in order."""
    places, count = [], 0
    for stage in method.stages():
        for epoch in range(stage.epochs):
            for step in range(method.steps_per_epoch(stage, epoch)):
                places.append((stage, Position(stage.name, epoch, step, count)))
                count += 1
    return places


def run(
    method: Method,
    *,
    start: int = 0,
    stop: int | None = None,
    before: Watch | None = None,
    diagnostics: Sequence[Diagnostic] = (),
) -> list[dict[str, float]]:
    """Train like the engine from global step `start` to before `stop`; return the scalars of each epoch's end."""
    ends, count = [], 0
    for diagnostic in diagnostics:
        diagnostic.build(method, method.context)
    for number, stage in enumerate(method.stages()):
        for epoch in range(stage.epochs):
            steps = method.steps_per_epoch(stage, epoch)
            if count + steps <= start:
                count += steps
                continue
            first = max(start - count, 0)
            last: dict[str, float] = {}
            for step, item in enumerate(method.batches(stage, epoch, first), first):
                if stop is not None and count + step >= stop:
                    return ends
                position = Position(stage.name, epoch, step, count + step)
                if before is not None:
                    before(item, position)
                last = {name: float(value) for name, value in method.train_step(item, position).items()}
            assert step == steps - 1
            for learner in method.trained(stage).values():
                learner.end_epoch()
            ends.append({**last, **method.end_epoch(stage, epoch)})
            count += steps
            clock = clock_at(list(method.stages()), number, epoch=epoch, global_step=count)
            for diagnostic in diagnostics if clock is not None else ():
                if diagnostic.due(clock):
                    ends[-1] |= {name: float(value) for name, value in diagnostic.measure(clock).items()}  # type: ignore[arg-type]
    return ends


def snapshot(method: Method) -> dict[str, Any]:
    """All state of a run, through a file that only plain types pass."""
    state = {"method": method.state_dict(), "learners": {k: v.state_dict() for k, v in method.learners.items()}}
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def restore(method: Method, state: dict[str, Any]) -> None:
    for name, learner in method.learners.items():
        learner.load_state_dict(state["learners"][name])
    method.load_state_dict(state["method"])


def flat(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a nested state by path."""
    if isinstance(state, Tensor):
        return {prefix: state.detach().clone()}
    parts: Sequence[tuple[Any, Any]] = ()
    if isinstance(state, dict):
        parts = list(state.items())
    elif isinstance(state, list | tuple):
        parts = list(enumerate(state))
    return {
        path: value
        for name, part in parts
        for path, value in flat(part, f"{prefix}/{name}" if prefix else str(name)).items()
    }


def assert_equal(first: Any, second: Any) -> None:
    """The same tensors, to the bit."""
    a, b = flat(first), flat(second)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def accuracy(method: Method, name: str = "", split: str = "test") -> float:
    """Share of right predictions, of what `predictions` calls `name`."""
    right = count = 0
    for batch in method.context.data.evaluation(split, 500).epoch(0):
        assert batch.targets is not None
        right += int((method.predictions(batch.images)[name].argmax(dim=1) == batch.targets).sum())
        count += len(batch)
    return right / count


def without_labels_of(data: Data, indices: Tensor, value: int) -> None:
    """Poison the labels that loaders of `data` serve for `indices`."""
    data._parts.labels["train"][indices] = value
