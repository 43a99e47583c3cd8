"""Runs of every method, small enough to be killed again and again."""

from collections.abc import Sequence
from pathlib import Path

from robustlab.data.sources.digits import Digits
from tests.data.grouped_source import Grouped, WithValidation
from tests.methods.grouped import parity

METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml"))
"""Every file of conf/method, so that a new method is killed, too."""

SMALL = [
    "dataset.source._target_=tests.faults.subjects.GroupedDigits", "dataset.subset=120", "noise=symmetric",
    "noise.model.rate=0.4", "model.widths=[8,16]", "model.norm=batch", "trainer.batch_size=20", "trainer.epochs=3",
    "trainer.log_every=2", "trainer.checkpoint.every_steps=3", "optimizer.lr=0.05", "trainer.eval_batch_size=200",
]  # fmt: skip
_COBALT = [
    "method.discover.epochs=2",
    "method.slots.hidden=16",
    "method.slots.dim=8",
    "method.dictionary.reseed_after=0.2",
]
_PRUNED = ["method.death.num_samples=60"]
SHORT = {
    "crosssplit": ["method.warmup.epochs=1"],
    "crosssplit_official": ["method.warmup.epochs=1"],
    "demp": ["method.surgery.every=4", "method.reg.peak=2.0", "method.noise.std=0.01", *_PRUNED],
    "dense": _PRUNED,
    "group_norm": _PRUNED,
    "slimming": _PRUNED,
    "cobalt": _COBALT,
    "cobalt_image": _COBALT,
    "cobalt_shuffled": _COBALT,
    "dfr": ["method.retrains=2", "method.strengths=[1.0,0.1]"],
    "jtt": ["method.up_weight=2"],
}
"""What makes a method short, or lets it do in a few steps what takes it long."""


class GroupedDigits(Grouped):
    """Digits with a validation split of their own and a parity that mostly agrees with the label."""

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(WithValidation(Digits(mean=mean, std=std)), parity, names=("even", "odd"))


def arguments(method: str, outputs: Path, *more: str) -> list[str]:
    """Return the command line of a small run of a method, which does about 20 steps and 8 saves."""
    return [f"method={method}", *SMALL, *SHORT.get(method, ()), *more, f"paths.output_dir={outputs}"]
