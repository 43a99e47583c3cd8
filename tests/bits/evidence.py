"""Proofs that a tiny run entered its special branch, each from what the run wrote."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tests.bits.outcome import Outcome

Proof = Callable[[Outcome], str]
"""Reads a run and returns a sentence. Raises AssertionError."""


def trained(run: Outcome) -> str:
    """A loss was logged, and stayed finite."""
    losses = [float(value) for values in run.metrics(r"train/(epoch_)?loss").values() for value in values]
    assert losses, "no loss was logged"
    assert all(map(math.isfinite, losses)), losses
    return f"{run.results['steps']} steps"


def removed(*reasons: str, after: int = -1, rounds: int = 1) -> Proof:
    """Prove that units were removed for these reasons, only after update `after`, in at least `rounds` rounds."""

    def proof(run: Outcome) -> str:
        events = [one for one in run.events if one["reason"] in reasons and one["removed"] > 0]
        assert len(events) >= rounds, f"{len(events)} removals for {reasons}, {rounds} wanted: {run.events}"
        times = sorted({one["t"] for one in events})
        assert times[0] > after, f"units were removed before updates {times}"
        count = sum(one["removed"] for one in events)
        return f"{count} units removed in {len(events)} rounds, before updates {', '.join(map(str, times))}"

    return proof


def nothing_removed(run: Outcome) -> str:
    """Units are watched, and stay."""
    assert [one["reason"] for one in run.events] == ["start"], run.events
    assert run.series("pruning/live/conv1"), "live units were not counted"
    return "live units counted, none removed"


def both_turns(run: Outcome) -> str:
    """CrossSplit trained each network in its turn after warm-up."""
    warmup = max(row["step"] for row in run.rows if row["stage"] == "warmup")
    after = run.results["steps"] - warmup
    accumulated = run.results["steps"] / sum(run.updates(f"network{n}") for n in (1, 2))
    own = [accumulated * run.updates(f"network{number}") - warmup / 2 for number in (1, 2)]
    assert after > 0
    assert min(own) > 0, f"{own} steps after a warm-up of {warmup}"
    assert min(map(max, (run.series("train/loss_labelled"), run.series("train/loss_unlabelled")))) > 0
    assert run.series("diagnostics/lambda_u")[-1] > 0
    return f"{after} steps after a warm-up of {warmup}, {own[0]:g} of network 1 and {own[1]:g} of network 2"


def targets_moved(run: Outcome) -> str:
    """ELR's targets are distributions over the classes that move with the predictions."""
    targets = run.state("targets")[0]
    seen = targets.abs().sum(dim=1) > 0
    assert 0 < int(seen.sum()) <= len(targets)
    assert float(targets[seen].std(dim=1).max()) > 0.01, "the targets are even"
    assert min(run.series("train/loss_penalty")) < 0
    return f"targets of {int(seen.sum())} samples moved"


def uneven_q(run: Outcome) -> str:
    """GroupDRO's weights left the uniform ones."""
    values = [series[-1] for series in run.metrics(r"q/.+").values()]
    assert len(values) > 1, "no q was logged"
    assert max(values) - min(values) > 0.01, values
    return f"q from {min(values):.3f} to {max(values):.3f}"


def dropped_samples(run: Outcome) -> str:
    """Co-teaching left out part of each batch: at least one of 20 images."""
    share = run.series("diagnostics/forget_share")[-1]
    assert share > 0.05, share
    return f"{100 * share:.0f} % of each batch left out"


def found_errors(run: Outcome) -> str:
    """JTT's first network made some errors, and the second stage is longer because of them."""
    errors, share = run.series("jtt/errors")[-1], run.series("jtt/error_share")[-1]
    assert errors >= 1, "no errors"
    assert share < 1, "nothing but errors"
    steps = {
        stage: len([row for row in run.rows if row["stage"] == stage and row["split"] == "train"])
        for stage in ("identify", "train")
    }
    assert steps["train"] > steps["identify"] > 0, steps
    return f"{errors:.0f} errors ({100 * share:.0f} %), {steps['train']} steps of stage 2"


def retrained(run: Outcome) -> str:
    """DFR refitted the last layer, with some coefficients equal to 0."""
    fits = [row for row in run.rows if row["stage"] == "reweight" and row["split"] == "train"]
    used, samples = run.series("dfr/weights_used")[-1], run.series("dfr/samples")[-1]
    assert len(fits) >= 2, "fewer than two fits"
    assert run.series("dfr/strength")[-1] == 1, "the strength that leaves no weight was chosen"
    assert 0 < used < 1, f"{used} of the coefficients are not 0"
    return f"{len(fits)} fits on {samples:.0f} samples, {100 * used:.0f} % of the coefficients not 0"


def one_pass_over_the_smallest(run: Outcome) -> str:
    """SUBG's epochs are one pass over as many images of each group as the smallest has."""
    counts = _group_counts(run)
    kept, size = len(counts) * min(counts), run.results["steps"] / run.results["epochs"]
    batch = 40
    assert size == -(-kept // batch) < -(-sum(counts) // batch), (counts, size)
    return f"{kept} of {sum(counts)} images, the smallest group has {min(counts)}"


def _group_counts(run: Outcome) -> list[int]:
    import json

    groups = run.results.get("groups") or json.loads((run.folder / "task.json").read_text()).get("groups")
    assert groups, "no counts of groups"
    return [*groups["counts"]["train"].values()]


def concepts_balanced(run: Outcome) -> str:
    """Both stages of CoBalT ran, and its draws bring the labels within concepts closer to uniform."""
    sizes, before, after = (
        run.series(f"sampler/{name}")[-1] for name in ("effective_size", "variation_before", "variation")
    )
    assert after < before, f"labels vary by {before} before and {after} after balancing"
    stages = {row["stage"] for row in run.rows}
    assert len(stages) == 2, f"stages {stages}"
    return f"draws worth {sizes:.0f} images, labels within concepts {before:.2f} -> {after:.2f} from uniform"


def averaged(run: Outcome) -> str:
    """An average of the weights was kept, and is not the weights."""
    averages = {name: value for name, value in run.weights.items() if "/ema/" in name}
    assert averages, "no average in the checkpoint"
    pairs = {name: name.replace("/ema/module.", "/network/") for name in averages}
    moved = [
        name for name, own in pairs.items() if own in run.weights and not torch.equal(averages[name], run.weights[own])
    ]
    assert moved, "the average is the weights themselves"
    return f"{len(moved)} averaged tensors"


def two_ranks(run: Outcome) -> str:
    """The checkpoint holds the state of two processes."""
    assert len(run.checkpoint["ranks"]) == 2
    return "two processes"


def rate_of_each_step(run: Outcome) -> str:
    """The learning rate changed from step to step."""
    rates = next(iter(run.metrics(r"train/lr/.+").values()))
    assert len(set(rates[:5])) == 5, rates
    return f"{len(set(rates))} learning rates in {len(rates)} steps"


def two_steps_an_update(run: Outcome) -> str:
    """Each update of the optimizer took two steps."""
    updates, steps = sum(run.updates(name) for name in run.checkpoint["learners"]), run.results["steps"]
    assert steps == 2 * updates, (steps, updates)
    return f"{steps} steps in {updates} updates"


def more_steps_than_updates(run: Outcome) -> str:
    """Updates took two steps each, but for those at the end of a turn, which take what is left."""
    updates, steps = sum(run.updates(name) for name in run.checkpoint["learners"]), run.results["steps"]
    assert steps / 2 <= updates < steps, (steps, updates)
    return f"{steps} steps in {updates} updates"


def memorised(run: Outcome) -> str:
    """Memorised labels were counted during the run and at its end, and some were found."""
    values = run.series("diagnostics/memorised")
    assert len(values) == 2, values
    assert values[-1] > 0, values
    return f"{100 * values[-1]:.0f} % of {run.results['noise']['num_wrong']} wrong labels memorised"


def noisy_by_pixels(run: Outcome) -> str:
    """Labels are wrong by noise that depends on the image."""
    noise = run.results["noise"]
    assert noise["name"] == "instance", noise
    assert noise["num_wrong"] > 0, noise
    return f"{noise['num_wrong']} labels wrong by the pixels"


def selected_on_validation(run: Outcome) -> str:
    """A validation split was measured in every epoch, and a rule chose by it."""
    values, chosen = run.series("val/accuracy"), run.results["selection"]["best_noisy_val"]
    assert len(values) == run.results["epochs"], values
    assert chosen["val/accuracy"] == max(values), (chosen, values)
    return f"epoch {chosen['epoch'] + 1} selected by val/accuracy"
