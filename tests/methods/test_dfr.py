import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robustlab.core import rng
from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.data.told_groups import split_groups
from robustlab.methods.erm import ERM
from robustlab.methods.groups import dfr
from robustlab.methods.groups.dfr import ABSENT, DFR, features, logistic_regression
from robustlab.methods.groups.reweighting import balanced_choice
from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.methods.harness import RUNTIME, Options, assert_equal, make_context, make_data, run, snapshot


def built(method, *, ema: bool = False):
    data = Data(Grouped(ThreeWay(140), biased), seed=0, views={"weak": []})
    options = Options(widths=(6,), learner={"ema_decay": 0.5} if ema else {})
    method.build(make_context(data, epochs=1, batch_size=20, options=options))
    return method


def l1(strength: float) -> LogisticRegression:
    return LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", random_state=0, max_iter=1000)


def test_two_classes_get_the_regressions_logits():
    draws = np.random.default_rng(0)
    inputs, labels = draws.normal(size=(60, 4)), draws.integers(0, 2, 60)
    found = logistic_regression(
        torch.from_numpy(inputs), torch.from_numpy(labels), num_classes=2, strength=0.3, seed=0
    ).numpy()
    wanted = l1(0.3).fit(inputs, labels)
    margin = inputs @ (found[1, :-1] - found[0, :-1]) + found[1, -1] - found[0, -1]
    np.testing.assert_allclose(margin, wanted.decision_function(inputs), atol=1e-9)
    assert (found[0] == -found[1]).all()


def test_of_more_classes_each_is_told_from_the_rest():
    draws = np.random.default_rng(0)
    inputs, labels = draws.normal(size=(60, 4)), draws.choice([0, 1, 3], 60)
    found = logistic_regression(
        torch.from_numpy(inputs), torch.from_numpy(labels), num_classes=4, strength=1.0, seed=0
    ).numpy()
    wanted = l1(1.0).fit(inputs, labels == 3)
    np.testing.assert_allclose(inputs @ found[3, :-1] + found[3, -1], wanted.decision_function(inputs), atol=1e-9)
    assert found[2].tolist() == [0, 0, 0, 0, ABSENT]


@pytest.mark.parametrize("ema", [False, True])
def test_the_network_predicts_as_the_mean_of_regressions_on_standardised_features(ema):
    method, plain = built(DFR(retrains=3, strengths=(0.5,)), ema=ema), built(ERM(), ema=ema)
    run(method)
    run(plain)
    data, learner = method.context.data, plain.learners["network"]  # the same network before its last layer was fitted
    read = {
        split: features(learner, next(data.evaluation(split, 200).epoch(0)).images, runtime=RUNTIME).numpy()
        for split in ("train", "val", "test")
    }
    labels, stage = data.labels("val"), method.stages()[1]
    draws = list(method.batches(stage, 0, 0))
    assert len({tuple(places.tolist()) for places in draws}) == len(draws) == 3
    margins = []
    for places in draws:
        groups = split_groups(data, "val", method)[places]
        assert torch.bincount(groups).unique().numel() == 1
        scaler = StandardScaler().fit(read["train"])
        model = make_pipeline(scaler, l1(0.5).fit(scaler.transform(read["val"][places]), labels[places]))
        margins.append(model.decision_function(read["test"]))
    logits = method.predict(next(data.evaluation("test", 200).epoch(0)).images)
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), np.mean(margins, axis=0), atol=2e-3)
    kept = snapshot(method)["learners"]["network"]["network"]
    before = snapshot(plain)["learners"]["network"]["network"]
    assert_equal(*({name: one[name] for name in one if "classifier" not in name} for one in (kept, before)))


@pytest.mark.parametrize(("split", "fits"), [("val", 20), ("train", 10)])
def test_both_versions(split, fits):
    method = built(DFR(split=split, strengths=(1.0, 0.1)))
    ends = run(method)
    assert method.fitted == fits
    assert ends[-1]["dfr/strength"] in (1.0, 0.1)
    counts = method.context.data.group_counts(split)
    assert counts is not None
    assert ends[-1]["dfr/samples"] == 4 * counts.min()
    assert [stage.evaluated for stage in method.stages()] == [False, True]


@pytest.mark.parametrize("split", ["val", "train"])
def test_the_strength_with_the_best_worst_group_is_chosen(split):
    """A penalty that leaves no weight predicts one class, which is the worst possible for the groups of the other."""
    method = built(DFR(split=split, strengths=(1e-6, 1.0, 1e-5), retrains=1))
    run(method)
    assert method.strength == 1.0
    assert (method.sum[:, :-1] != 0).any()
    same = built(DFR(split=split, strengths=(1e-5, 1e-6), retrains=1))
    assert run(same)[-1]["dfr/weights_used"] == 0
    assert same.strength == 1e-5  # of equal ones the first


@pytest.mark.parametrize("split", ["val", "train"])
def test_strengths_are_scored_with_the_scaler_of_the_official_code(split, monkeypatch):
    """For "val" it is fitted on the balanced half that the classifier is fitted on, for "train" on all of the split."""
    strengths = (1.0, 0.3, 0.1, 0.03)
    method = built(DFR(split=split, strengths=strengths, retrains=1))
    run(method, stop=method.steps_per_epoch(method.stages()[0], 0))
    method.strength = None
    scores, score = [], dfr._worst_group
    monkeypatch.setattr(dfr, "_worst_group", lambda *given: scores.append(score(*given)) or scores[-1])
    method._prepare()
    data, learner = method.context.data, method.learners["network"]
    read = {
        name: features(learner, next(data.evaluation(name, 200).epoch(0)).images, runtime=RUNTIME).numpy()
        for name in ("train", "val")
    }
    labels, groups = {n: data.labels(n) for n in read}, {n: split_groups(data, n, method) for n in read}
    key = rng.fold(method.context.seed, "dfr strength")
    scored, half = torch.arange(len(labels["val"])), torch.arange(len(labels[split]))
    if split == "val":
        scored, half = rng.permutation(rng.fold(key, "halves"), len(half)).tensor_split([len(half) // 2])
    fitted = half[balanced_choice(groups[split][half], key=key)]
    scaler = StandardScaler().fit(read["train"] if split == "train" else read["val"][fitted])
    wanted = []
    for strength in strengths:
        model = l1(strength).fit(scaler.transform(read[split][fitted]), labels[split][fitted])
        right = torch.from_numpy(model.predict(scaler.transform(read["val"][scored]))) == labels["val"][scored]
        own = groups["val"][scored]
        wanted.append(min(right[own == group].double().mean().item() for group in own.unique()))
    assert scores == pytest.approx(wanted)
    assert len(set(wanted)) > 1
    assert method.strength == strengths[wanted.index(max(wanted))]


def test_groups_of_the_validation_split_are_needed():
    method = DFR()
    with pytest.raises(ConfigError, match="no validation split"):
        method.build(make_context(make_data(), epochs=1, batch_size=16))


@pytest.mark.parametrize("options", [{"split": "test"}, {"retrains": 0}, {"strengths": (0.0,)}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.{next(iter(options))}"):
        DFR(**options)
