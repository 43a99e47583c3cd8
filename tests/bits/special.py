"""Tiny runs beyond one per method: variants, accumulation, averages, schedules, noise, views, two processes."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bits import evidence as e
from tests.bits.runs import BY_METHOD, CROSSSPLIT, DIGITS, GROUPS, NETWORK, NOISY, SMALL, Run


def of(method: str, *overrides: str, proofs: tuple[e.Proof, ...] = (), unlike: Mapping[str, str] | None = None) -> Run:
    """Return the run of a method with more overrides, and proofs of its own."""
    return Run((f"method={method}", *BY_METHOD[method].overrides, *overrides), proofs, unlike or {})


_DEAD, _SCORED = e.removed("dead", after=0), e.removed("score")
_RESNET = ("model=resnet_small", "model.widths=[4,8]", "model.blocks=[1,1]")
_FOLDER = ("dataset=image_folder", "dataset.source.size=20", "model.stride=2", *SMALL, *NETWORK, *NOISY)
_PARQUET = ("dataset=cifar10_parquet", "model.stride=4", *SMALL, *NETWORK, *NOISY)

VARIANTS = {
    "erm_groups": Run(("method=erm", *GROUPS)),
    "groupdro_draws": of("groupdro", "method.robust=false"),
    "groupdro_adjusted": of(
        "groupdro", "method.adjustment=2.0", proofs=(e.uneven_q,), unlike={"groupdro": "adjusted losses"}
    ),
    "erm_cb_loss": of("erm_cb", "method.balance=loss", unlike={"erm_groups": "weighted losses"}),
    "jtt_during": of(
        "jtt",
        "method.identification.errors=during",
        proofs=(e.found_errors,),
        unlike={"jtt": "errors of the updates"},
    ),
    "cobalt_kept_codes": of("cobalt", "method.dictionary.reseed=false"),
    "cobalt_fitted": of(
        "cobalt",
        "method.sampler.kind=fitted",
        "method.dictionary.initial=random",
        proofs=(e.concepts_balanced,),
        unlike={"cobalt": "fitted draws, random codes"},
    ),
    "mixup": of("erm", "method.mixup_alpha=1.0", "method.label_smoothing=0.1", unlike={"erm": "mixed images"}),
    "crosssplit_simultaneous": of(
        "crosssplit",
        "method.turn_order=simultaneous",
        proofs=(e.both_turns,),
        unlike={"crosssplit": "network 2 learns from the former network 1"},
    ),
    "crosssplit_shares": of(
        "crosssplit",
        *("method.mixup.strong=0.5", "method.unlabelled.batch_ratio=1.0", "method.guess.source=both"),
        proofs=(e.both_turns,),
        unlike={"crosssplit": "half of the views weak"},
    ),
    "crosssplit_fused": of(
        "crosssplit",
        *(f"method.perf.{name}=true" for name in ("precompute_targets", "fuse_guess", "fuse_contrastive")),
        proofs=(e.both_turns,),
        unlike={"crosssplit": "fused passes"},
    ),
    "crosssplit_pair_flip": of(
        "crosssplit",
        "noise=pair_flip",
        proofs=(e.both_turns,),
        unlike={"crosssplit": "negative entropy in warm-up"},
    ),
    "demp_resnet_adamw": of(
        "demp",
        *(*_RESNET, "optimizer=adamw", "optimizer.lr=0.1"),
        *("trainer.epochs=4", "method.reg.peak=0.3", "method.reg.floor=2"),
        proofs=(_DEAD,),
    ),
    "demp_all_weights": of(
        "demp",
        *("method.reg.kind=l2", "method.reg.target=all", "method.reg.schedule=constant", "method.reg.peak=0.3"),
        *("method.noise.mask=all", "method.noise.schedule=cosine", "method.death.mode=sum", "method.death.eps=0.01"),
        proofs=(_DEAD,),
        unlike={"demp": "another penalty"},
    ),
    "slimming_dead": of(
        "slimming",
        *("method.surgery.enabled=true", "method.surgery.every=3", "method.death.mode=saturated_const"),
        proofs=(e.removed("score", after=0),),
    ),
    "early_snap_latest": of(
        "early_snap",
        *("method.latest=0.2", "method.surgery.enabled=true"),
        proofs=(e.removed("score", after=0, rounds=3),),
        unlike={"early_snap": "pruned at the deadline"},
    ),
    "magnitude_mlp": of(
        "magnitude",
        *("model=mlp", "model.widths=[16,16]", "method.target.parameters=0.6", "method.scope=global"),
        proofs=(e.removed("score", after=0),),
    ),
    "snap_resnet": of(
        "snap",
        *(*_RESNET, "method.target.flops=0.5", "method.surgery.residual=stage_shared"),
        proofs=(_SCORED,),
    ),
}
"""Settings of methods that are not the defaults of their files."""

TRAINING = {
    "accumulate_erm": of("erm", "trainer.accumulate=2", proofs=(e.two_steps_an_update,)),
    "accumulate_demp": of("demp", "trainer.accumulate=2", "trainer.epochs=6", proofs=(e.two_steps_an_update, _DEAD)),
    "accumulate_crosssplit": of("crosssplit", "trainer.accumulate=2", proofs=(e.more_steps_than_updates, e.both_turns)),
    "average_erm": of("erm", "trainer.ema_decay=0.8", proofs=(e.averaged,)),
    "average_crosssplit": of("crosssplit", "trainer.ema_decay=0.8", proofs=(e.averaged, e.both_turns)),
    "average_demp": of("demp", "trainer.ema_decay=0.8", proofs=(e.averaged, _DEAD)),
    "average_jtt": of("jtt", "trainer.ema_decay=0.8", proofs=(e.averaged, e.found_errors)),
    "average_cobalt": of("cobalt", "trainer.ema_decay=0.8", proofs=(e.averaged, e.concepts_balanced)),
    "average_dfr": of("dfr", "trainer.ema_decay=0.8", proofs=(e.averaged, e.retrained)),
    "rate_of_each_step": of("erm", "scheduler=onecycle", "trainer.clip_norm=0.5", proofs=(e.rate_of_each_step,)),
    "validation_split": of(
        "erm",
        *("dataset.val_fraction=0.25", "trainer.selection=[last,best_noisy_val,best_test]"),
        proofs=(e.selected_on_validation,),
    ),
    "instance_noise": Run(("method=erm", *DIGITS, "noise=instance"), (e.noisy_by_pixels,)),
    "asymmetric_noise": Run(
        (
            "method=elr",
            *_PARQUET,
            "noise=asymmetric_cifar10",
            "optimizer=sgdw",
            "scheduler=multistep",
            "scheduler.schedule.milestones=[1,2]",
        ),
        (e.targets_moved,),
    ),
    "autoaugment_cifar10": Run(("method=crosssplit", *_PARQUET, *CROSSSPLIT), (e.both_turns,)),
    "autoaugment_imagenet": Run(("method=crosssplit", *_FOLDER, *CROSSSPLIT), (e.both_turns,)),
    "streaming": Run(
        ("method=erm", *_FOLDER, "dataset.storage=streaming", "dataset.workers=1"),
        like={"resident": "images decoded by a worker"},
    ),
    "resident": Run(("method=erm", *_FOLDER)),
    "linear_probe": Run(("method=groupdro", *GROUPS, "features=frozen", "method.step=1.0"), (e.uneven_q,)),
}
"""The rest of training: updates, averages, schedules, selection, noise, views, inputs."""

_IN_TWO = (
    "co_teaching",
    "cobalt",
    "crosssplit",
    "demp",
    "dfr",
    "elr",
    "erm",
    "groupdro",
    "jtt",
    "rwg",
    "slimming",
    "snap",
)
TWO_PROCESSES = {
    f"two_{name}": Run(
        (f"method={name}", *BY_METHOD[name].overrides), (e.two_ranks, *BY_METHOD[name].proofs), processes=2
    )
    for name in _IN_TWO
}

RUNS = {
    **{
        name: Run((f"method={name}", *run.overrides), run.proofs, run.unlike, run.like)
        for name, run in BY_METHOD.items()
    },
    **VARIANTS,
    **TRAINING,
    **TWO_PROCESSES,
}
"""All tiny runs by their names."""
