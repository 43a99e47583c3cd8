"""P7: microseconds that a training loop adds to each step of a tiny network over a bare PyTorch loop, one CPU thread.

Every variant takes the same batches, network, SGD and cross-entropy. Ours runs with everything on: stop flag, meter,
JSON lines every 20 steps, progress; Lightning logs the loss to its CSV logger.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.timing import interleave, middle, row
from robustlab.core.runtime import Runtime
from robustlab.core.signals import StopFlag
from robustlab.data.dataset import Batch, TaskSpec
from robustlab.engine.checkpoint import Checkpoints
from robustlab.engine.learner import Learner
from robustlab.engine.loop import fit
from robustlab.engine.method import Context, Position
from robustlab.engine.session import Session
from robustlab.engine.trainer_settings import LoopSettings
from robustlab.methods.erm import ERM
from robustlab.tracking.progress import Progress
from robustlab.tracking.trackers import Trackers

STEPS = 500


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS, 64, 1, 8, 8, generator=generator)
    targets = torch.randint(10, (STEPS, 64), generator=generator)
    return [Batch(torch.arange(64), y, (x,), 64) for x, y in zip(images, targets, strict=True)]


def _bare(batches: list[Batch]) -> None:
    network = _network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for batch in batches:
        assert batch.targets is not None
        loss = F.cross_entropy(network(batch.images), batch.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class _Fixed(ERM):
    """Cross-entropy on batches made beforehand."""

    fixed: list[Batch]

    def build(self, context: Context) -> None:
        self.context = context
        self.learners = {"network": context.new_learner("network")}

    def steps_per_epoch(self, stage: object, epoch: int) -> int:
        return len(self.fixed)

    def batches(self, stage: object, epoch: int, start: int):
        return iter(self.fixed[start:])

    def end_epoch(self, stage: object, epoch: int) -> dict[str, Any]:
        return {}

    def loss(self, batch: Batch, position: Position) -> dict[str, Tensor]:
        assert batch.targets is not None
        return {"loss": F.cross_entropy(self.learners["network"](batch.images), batch.targets)}


class _NoEvaluation:
    """A data set without a split to evaluate, so that only training is timed."""

    evaluation_splits = ()
    true_noise_rate = None

    def derived_metrics(self, measured: object) -> dict[str, float]:
        return {}


def _ours(batches: list[Batch], folder: Path) -> None:
    runtime = Runtime(torch.device("cpu"))
    sgd = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    method = _Fixed()
    method.fixed = batches
    task = TaskSpec(10, (1, 8, 8), (0.0,), (1.0,))
    data: Any = _NoEvaluation()
    make: Callable[..., Learner] = lambda name: Learner(_network(), runtime=runtime, optimizer=sgd)  # noqa: E731
    method.build(Context(task, data, runtime, seed=0, epochs=1, batch_size=64, new_learner=make))
    with (
        StopFlag() as stop,
        Progress({"mode": "lines"}, total_epochs=2, console=Console(file=io.StringIO())) as progress,
    ):
        fit(
            Session(
                method=method,
                data=data,
                runtime=runtime,
                trackers=Trackers(folder),
                progress=progress,
                checkpoints=Checkpoints(folder / "checkpoints"),
                settings=LoopSettings(selection=()),
                stop=stop,
                identity={},
            )
        )


def _fabric(batches: list[Batch]) -> None:
    from lightning.fabric import Fabric  # pyright: ignore[reportMissingImports]

    fabric = Fabric(accelerator="cpu", devices=1)
    network = _network()
    wrapped, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9))
    for batch in batches:
        assert batch.targets is not None
        fabric.backward(F.cross_entropy(wrapped(batch.images), batch.targets))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _accelerate(batches: list[Batch]) -> None:
    from accelerate import Accelerator  # pyright: ignore[reportMissingImports]

    accelerator = Accelerator(cpu=True)
    network = _network()
    wrapped, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9))
    for batch in batches:
        with accelerator.accumulate(wrapped):
            assert batch.targets is not None
            accelerator.backward(F.cross_entropy(wrapped(batch.images), batch.targets))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _lightning(batches: list[Batch], folder: Path) -> None:
    import lightning  # pyright: ignore[reportMissingImports]
    from lightning.pytorch.loggers import CSVLogger  # pyright: ignore[reportMissingImports]

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = _network()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss = F.cross_entropy(self.network(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=CSVLogger(folder), log_every_n_steps=20, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    pairs: Any = [(batch.images, batch.targets) for batch in batches]
    trainer.fit(Module(), DataLoader(pairs, batch_size=None))


def run(*, quick: bool = False) -> list[dict[str, Any]]:
    """Return one row per trainer that is installed."""
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    batches = _batches()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants: dict[str, Callable[[], object]] = {
            "bare": lambda: _bare(batches),
            "robustlab": lambda: _ours(batches, folder),
        }
        if importlib.util.find_spec("lightning"):
            variants["Fabric"] = lambda: _fabric(batches)
            variants["Lightning"] = lambda: _lightning(batches, folder)
        if importlib.util.find_spec("accelerate"):
            variants["accelerate"] = lambda: _accelerate(batches)
        seconds = interleave(variants, rounds=3 if quick else 7)
    base = statistics.median(seconds["bare"]) / STEPS * 1e6
    for name in list(variants)[1:]:
        added = [(a - b) / STEPS * 1e6 for a, b in zip(seconds[name], seconds["bare"], strict=True)]
        goal = "<= 100" if name == "robustlab" else "for comparison"
        note = f"bare step {base:.0f} us, set-up included, {STEPS} steps"
        rows.append(row(f"{name}: added per step", middle(added), goal=goal, unit="us", note=note))
    return rows
