"""Both stages of CoBalT on small striped images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.engine.method import Position
from robustlab.methods.erm import ERM
from robustlab.methods.groups.cobalt.artifact import load
from robustlab.methods.groups.cobalt.cobalt import FILE, CoBalT
from robustlab.methods.groups.cobalt.outcome import oracle
from robustlab.models.small_cnn import small_cnn
from tests.methods.cobalt.toy import Stripes, make_data
from tests.methods.harness import Options, assert_equal, make_context, restore, run, snapshot

FIRST = 24
"""Steps of stage 1: 96 images, four epochs in batches of 16."""
SETTINGS: dict[str, Any] = {
    "discover": {"epochs": 4, "batch_size": 16, "lr": 5e-3},
    "views": {"scale": [0.3, 1.0], "jitter": [0.0, 0.0, 0.0, 0.0], "grey": 0.0},
    "slots": {"count": 3, "dim": 8, "hidden": 16},
    "dictionary": {"codes": 5},
    "sampler": {"rare_count": 3},
    "extract": {"batch_size": 40},
}


def grouped(**options: Any) -> Data:
    return make_data(source=Stripes(**options), views={"weak": []})


def built(data: Data | None = None, **settings: Any) -> CoBalT:
    method = CoBalT(**{**SETTINGS, **settings})
    network = partial(small_cnn, widths=(8, 16), strides=(2, 2))
    options = Options(network=network, lr=0.02, cosine_to=1e-3)
    method.build(make_context(data or grouped(), epochs=2, batch_size=32, options=options))
    return method


def state_of(method: CoBalT, learner: str) -> dict[str, Any]:
    return snapshot(method)["learners"][learner]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[CoBalT, Path, list[dict[str, float]]]:
    """A run to its end, the folder with what it left, and the scalars of its epochs."""
    method = built()
    ends = run(method)
    folder = tmp_path_factory.mktemp("run")
    method.finish(folder)
    return method, folder, ends


def test_nothing_is_evaluated_before_the_classifier():
    stages = built().stages()
    assert [(stage.name, stage.epochs, stage.evaluated) for stage in stages] == [
        ("discover", 4, False),
        ("classify", 2, True),
    ]


def test_each_stage_runs_alone(finished, tmp_path):
    _, folder, _ = finished
    first = built(classify=False)
    assert [stage.name for stage in first.stages()] == ["discover"]
    ends = run(first)
    assert (len(ends), ends[-1]["sampler/eta"]) == (4, 0)
    assert len(first.finish(tmp_path)) == len(list(folder.glob("figures/*.png"))) == 4
    data = first.context.data
    assert_equal(load(tmp_path / FILE, data).tables, load(folder / FILE, data).tables)
    assert [stage.name for stage in built(artifact=str(tmp_path / FILE)).stages()] == ["classify"]
    with pytest.raises(ConfigError, match="there is nothing to do"):
        built(artifact=str(tmp_path / FILE), classify=False)


def test_stage_1_serves_no_labels_and_does_not_depend_on_them():
    method, other = built(), built(grouped(label_shift=1))
    stage = method.stages()[0]
    batches = list(method.batches(stage, 0, 0))
    assert all(batch.targets is None for batch in batches)
    assert len(batches) == method.steps_per_epoch(stage, 0) == 6
    assert not torch.equal(method.context.data.assigned, other.context.data.assigned)
    for one in (method, other):
        run(one, stop=FIRST)
    assert_equal(state_of(method, "discovery"), state_of(other, "discovery"))
    assert_equal(snapshot(method)["method"], snapshot(other)["method"])  # teacher, dictionary, concepts


def test_stage_2_draws_as_the_concepts_say():
    method = built()
    run(method, stop=FIRST)
    stage = method.stages()[1]
    epochs = 60
    drawn = torch.cat([batch.index for epoch in range(epochs) for batch in method.batches(stage, epoch, 0)])
    assert len(drawn) == epochs * 96
    shares = torch.bincount(drawn, minlength=96) / len(drawn)
    deviation = (method.report.p * (1 - method.report.p) / len(drawn)).sqrt()
    assert ((shares - method.report.p).abs() < 5 * deviation).all()
    assert method.report.largest > 1.5  # else all would be drawn alike


def test_the_classifier_starts_anew_as_that_of_erm(finished):
    method, erm = built(), ERM()
    network = partial(small_cnn, widths=(8, 16), strides=(2, 2))
    erm.build(make_context(grouped(), epochs=2, batch_size=32, options=Options(network=network)))
    run(method, stop=FIRST)
    assert method.learners["network"].updates == method.learners["network"].epochs == 0
    assert_equal(state_of(method, "network")["network"], snapshot(erm)["learners"]["network"]["network"])
    done = finished[0].learners
    assert {name: (one.epochs, one.updates) for name, one in done.items()} == {"network": (2, 6), "discovery": (4, 24)}


@pytest.mark.parametrize("stop", [7, FIRST - 1, FIRST, FIRST + 4])
def test_a_run_goes_on_to_the_same_bits_from_any_stage(finished, stop):
    first, second = built(), built()
    run(first, stop=stop)
    restore(second, snapshot(first))
    run(second, start=stop)
    assert_equal(snapshot(second), snapshot(finished[0]))
    assert second.found is not None
    assert second.found.identity == finished[0].found.identity  # type: ignore[union-attr]


def test_what_is_reported(finished):
    method, _, ends = finished
    assert len(ends) == 6
    assert not any(name.startswith(("concepts/", "sampler/")) for end in ends[:3] for name in end)
    assert ends[3]["concepts/concepts_used"] >= 2
    assert 0 <= ends[3]["concepts/attribute_contrast"] <= 1
    assert [end["sampler/eta"] for end in ends[3:]] == [0, 0, 0]
    assert ends[5]["sampler/effective_size"] == method.report.effective_size < 96
    assert ends[5]["sampler/variation"] == float(method.report.variation[method.report.kept].max())
    assert ends[5]["sampler/rare_groups"] > ends[5]["sampler/rare_groups_before"] > 0  # of the attributes, known here


def test_concepts_are_the_inferred_groups_of_each_split(finished):
    method = finished[0]
    assert built().surrogate_groups("val") is None
    for split, size in (("train", 96), ("val", 24), ("test", 40)):
        table = method.surrogate_groups(split)
        assert table is not None
        assert table.shape == (size, 3)
        assert (table >= 0).any(dim=1).all()
    assert method.surrogate_groups("mixed_rand") is None
    assert built(min_group_val=7).surrogate_min_count == 7


def test_what_a_run_leaves_in_its_folder(finished):
    method, folder, _ = finished
    assert load(folder / FILE, method.context.data).num_concepts == 5
    record = json.loads((folder / "sampler.json").read_text())
    assert record["eta"] == 0
    assert record["rare_groups"] == oracle(method.report, method.context.data)["rare_groups"]
    assert len(record["images_of_each_concept_and_label"]) == 5
    assert {path.name for path in folder.rglob("*.png")} == {"slots.png", "concepts.png", "table.png", "sampling.png"}


def test_a_run_that_ended_in_stage_1_leaves_nothing(tmp_path):
    method = built()
    run(method, stop=2)
    assert method.finish(tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_stage_2_from_a_file_is_that_of_the_run_which_wrote_it(finished, capsys):
    whole, folder, _ = finished
    method = built(artifact=str(folder / FILE))
    assert [stage.name for stage in method.stages()] == ["classify"]
    assert set(method.learners) == {"network"}
    assert "CoBalT balances" in capsys.readouterr().err
    assert torch.equal(method.report.p, whole.report.p)
    run(method)
    assert_equal(state_of(method, "network"), state_of(whole, "network"))
    assert method.surrogate_groups("val") is not None
    (folder / "again").mkdir()
    assert set(method.finish(folder / "again")) == {"concepts/table", "concepts/sampling"}


def test_a_file_of_other_data_or_of_another_kind_is_refused(finished):
    path = str(finished[1] / FILE)
    with pytest.raises(ConfigError, match="belongs to other samples"):
        built(grouped(label_shift=1), artifact=path)
    with pytest.raises(ConfigError, match=r"contains concepts by slots, but method.concepts=image needs"):
        built(artifact=path, concepts="image")
    with pytest.raises(ConfigError, match="there is no concept file"):
        built(artifact=path + ".not")


def test_other_settings_of_the_sampler_are_tried_on_the_same_concepts(finished):
    path = str(finished[1] / FILE)
    method = built(artifact=path, sampler={"parametrisation": "image", "exponent": 3.0, "rare_count": 3})
    assert method.end_epoch(method.stages()[0], 0)["sampler/eta"] == 2.0
    assert not torch.equal(method.report.p, finished[0].report.p)


def test_fitted_draws(finished, capsys):
    method = built(artifact=str(finished[1] / FILE), sampler={"kind": "fitted", "rare_count": 3})
    assert "fitted to all of them" in capsys.readouterr().err
    values = method.end_epoch(method.stages()[0], 0)
    assert "sampler/eta" not in values
    assert values["sampler/variation"] <= 1e-3 < values["sampler/variation_before"]
    assert finished[0].report.metrics()["variation"] > 2e-3  # Algorithm 1 balances one concept at a time
    run(method)


def test_attributes_are_for_reading_only(finished):
    data, unknown = grouped(), grouped(attributes=False)
    assert unknown.attributes("train") is None
    one, other = built(data), built(unknown)
    for method in (one, other):
        run(method, stop=FIRST)
    assert torch.equal(one.report.p, other.report.p)
    assert oracle(one.report, data)
    assert oracle(other.report, unknown) == {}


def test_shuffled_concepts_are_those_of_other_images(finished):
    whole, folder, _ = finished
    method = built(artifact=str(folder / FILE), concepts="shuffled")
    assert method.found is not None
    assert torch.equal(method.found.tables["train"], whole.found.tables["train"])  # type: ignore[union-attr]
    for split in ("train", "val", "test"):
        own, other = whole.surrogate_groups(split), method.surrogate_groups(split)
        assert own is not None
        assert other is not None
        assert not torch.equal(own, other)
        assert sorted(own.tolist()) == sorted(other.tolist())
    assert method.report.table.sum() == whole.report.table.sum()


def test_clusters_of_images_are_one_concept_each(tmp_path):
    method = built(concepts="image")
    ends = run(method)
    table = method.surrogate_groups("train")
    assert table is not None
    assert table.shape == (96, 1)
    assert ends[3]["concepts/concepts_per_image"] == 1
    assert ends[3]["concepts/concepts_used"] == 5
    assert set(method.finish(tmp_path)) == {"concepts/table", "concepts/sampling"}
    again = built(concepts="image", artifact=str(tmp_path / FILE))
    assert torch.equal(again.report.p, method.report.p)


def test_the_learning_rate_of_stage_1():
    method = built(discover={"epochs": 2, "batch_size": 32, "lr": 2e-3, "warmup": 0.5})
    rates = []
    stage, learner = method.stages()[0], method.learners["discovery"]
    for epoch in range(2):
        for step, batch in enumerate(method.batches(stage, epoch, 0)):
            rates.append(learner.lr)
            method.train_step(batch, Position("discover", epoch, step, 0))
        learner.end_epoch()
    assert rates == pytest.approx([2e-3 * share for share in (0.25, 0.5, 0.75, 1, 1, 1)])


def test_one_concept_alone_is_warned_of(capsys):
    method = built(discover={"epochs": 1, "batch_size": 48, "lr": 1e-6})  # too short for any
    run(method, stop=2)
    assert int(method.report.kept.sum()) == 1
    assert "warning: there is only one concept" in capsys.readouterr().err
    assert method.report.effective_size == pytest.approx(96)  # classes are in balance


def test_a_network_without_feature_maps_is_refused():
    method = CoBalT(**SETTINGS)
    with pytest.raises(ConfigError, match="no feature maps"):
        method.build(make_context(grouped(), epochs=1, batch_size=16))


@pytest.mark.parametrize(
    "settings",
    [
        {"concepts": "random"},
        {"discover": {"epochs": 0}},
        {"discover": {"lr": 0.0}},
        {"discover": {"warmup": 1.5}},
        {"discover": {"batch_size": 1}},
        {"min_group_val": 0},
    ],
)
def test_values_out_of_range(settings):
    group, value = next(iter(settings.items()))
    key = f"{group}.{next(iter(value))}" if isinstance(value, dict) else group
    with pytest.raises(ConfigError, match=f"method.{key}"):
        CoBalT(**settings)
