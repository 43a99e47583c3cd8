"""A tiny run of each file in conf/method, short and yet long enough to enter the method's special branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bits import evidence as e

CONF = Path(__file__).parents[2] / "conf" / "method"
METHODS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("[!_]*.yaml"))
"""Every file of conf/method that can stand behind `method=`."""


@dataclass(frozen=True)
class Run:
    """A command line, and the proofs that it exercises what it is meant to exercise.

    unlike, like: runs whose final weights must differ from this one's, or equal them to the bit, and what that shows.
    processes: how many share each batch.
    """

    overrides: tuple[str, ...]
    proofs: tuple[e.Proof, ...] = ()
    unlike: Mapping[str, str] = field(default_factory=dict)
    like: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    @property
    def controls(self) -> set[str]:
        """The runs it is compared with."""
        return {*self.unlike, *self.like}


_SHORT = (
    "trainer.epochs=3", "trainer.log_every=1", "optimizer.lr=0.05", "trainer.eval_batch_size=200",
    "diagnostics.memorisation.every=2",
)  # fmt: skip
SMALL = ("dataset.subset=120", "trainer.batch_size=20", *_SHORT)
NOISY = ("noise=symmetric", "noise.model.rate=0.4")
NETWORK = ("model.widths=[8,16]",)
DIGITS = ("dataset=digits", *SMALL, *NETWORK, *NOISY)
"""120 images of 8x8 pixels, a third of them with a wrong label: 18 updates."""
GROUPS = (
    "dataset=digits_bg/embedded", "dataset.source.train=240", "dataset.source.val=100", "dataset.source.test=150",
    "dataset.source.size=28", "dataset.source.correlation=0.8", "model.stride=2", "trainer.batch_size=40",
    *NETWORK, *_SHORT,
)  # fmt: skip
"""240 images of 28x28 pixels in four groups of very different sizes: 18 updates."""
CROSSSPLIT = (
    "trainer.epochs=4", "method.warmup.epochs=1", "method.loss.lambda_u=3", "method.mixup.alpha=1.0",
    "method.mixup.strong=1.0",
)  # fmt: skip
_COBALT = (
    *GROUPS, "method.discover.epochs=3", "method.slots.hidden=16", "method.slots.dim=8", "method.dictionary.codes=6",
    "method.dictionary.reseed_after=0.01", "method.dictionary.reseed_below=0.9", "method.sampler.rare_count=5",
    "method.min_group_val=1",
)  # fmt: skip
_DFR = (*GROUPS, "method.retrains=3", "method.strengths=[1.0,0.001]")  # the other leaves no weight: no close choice
_PRUNED = (*DIGITS, "method.death.num_samples=60")
_SCORED = (*_PRUNED, "method.scoring.batches=2", "method.scoring.batch_size=60")
_ROUNDS = (*_SCORED, "method.target.neurons=0.7", "method.rounds.steps=2")
_LATER = (*_ROUNDS, "method.prune_at=0.4")
_DEMP = (*_PRUNED, "method.surgery.every=4", "method.reg.peak=2.0", "method.noise.std=0.01")

_AT_ONCE, _LATE, _IN_ROUNDS = e.removed("score"), e.removed("score", after=0), e.removed("score", after=0, rounds=3)
_STATISTICS = "scores with other statistics"

BY_METHOD = {
    "co_teaching": Run((*DIGITS, "method.num_gradual=2"), (e.dropped_samples,)),
    "cobalt": Run(_COBALT, (e.concepts_balanced,), {"cobalt_kept_codes": "codes re-seeded"}),
    "cobalt/paper_literal": Run(_COBALT, (e.concepts_balanced,), {"cobalt": "draws by its own exponent"}),
    "cobalt_image": Run(_COBALT, (e.concepts_balanced,), {"cobalt": "concepts by k-means"}),
    "cobalt_shuffled": Run(_COBALT, (), {"cobalt": "concepts of other images"}),
    "crop": Run(_SCORED, (_AT_ONCE,), {"snap": "another criterion"}),
    "crop/refreshed": Run(_SCORED, (_AT_ONCE,), {"crop": _STATISTICS}),
    "crop_it": Run(_LATER, (_IN_ROUNDS,)),
    "crop_it/refreshed": Run(_LATER, (_IN_ROUNDS,), {"crop_it": _STATISTICS}),
    "crosssplit": Run((*DIGITS, *CROSSSPLIT), (e.both_turns,)),
    "crosssplit_official": Run((*DIGITS, *CROSSSPLIT), (e.both_turns,), {"crosssplit": "other semantics"}),
    "demp": Run(_DEMP, (e.removed("dead", after=0),), {"dense": "penalty, noise and removal"}),
    "dense": Run(_PRUNED, (e.nothing_removed,)),
    "dfr": Run(_DFR, (e.retrained,)),
    "dfr/train": Run(_DFR, (e.retrained,), {"dfr": "fitted on training images"}),
    "early_crop": Run(_ROUNDS, (_IN_ROUNDS,), {"early_snap": "another criterion"}),
    "early_snap": Run(_ROUNDS, (_IN_ROUNDS,)),
    "elr": Run(DIGITS, (e.targets_moved,), {"erm": "a penalty"}),
    "erm": Run(DIGITS, (e.memorised,)),
    "erm_cb": Run(GROUPS, (), {"erm_groups": "balanced draws"}),
    "group_norm": Run(_PRUNED, (_LATE,)),
    "groupdro": Run((*GROUPS, "method.step=0.1"), (e.uneven_q,), {"rwg": "a robust loss"}),
    "jtt": Run((*GROUPS, "method.up_weight=2"), (e.found_errors,)),
    "magnitude": Run(_PRUNED, (_LATE,), {"slimming": "another criterion"}),
    "random_pruning": Run(_PRUNED, (_AT_ONCE,)),
    "rwg": Run(GROUPS, (), {"erm_groups": "balanced draws"}, {"groupdro_draws": "GroupDRO without its loss"}),
    "slimming": Run((*_PRUNED, "method.strength=0.05"), (_LATE,)),
    "snap": Run(_SCORED, (_AT_ONCE,)),
    "snap/refreshed": Run(_SCORED, (_AT_ONCE,), {"snap": _STATISTICS}),
    "spectral_decoupling": Run((*GROUPS, "method.delay=3"), (), {"erm_groups": "a penalty"}),
    "subg": Run(GROUPS, (e.one_pass_over_the_smallest,)),
}
"""The overrides that each file of conf/method needs in addition to `method=<file>`."""
