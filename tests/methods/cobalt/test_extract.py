"""Naming concepts, and their file."""

import json

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.engine.checkpoint import SCHEMA_VERSION
from robustlab.methods.groups.cobalt import artifact
from robustlab.methods.groups.cobalt.discovery_settings import ExtractSettings
from tests.methods.cobalt.toy import Stripes, make_data, make_discovery, make_settings, train


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture(scope="module")
def discovery(data):
    trained = make_discovery(data)
    train(trained, data, epochs=2)
    return trained


@pytest.fixture(scope="module")
def concepts(data, discovery):
    return discovery.extract(data, ("train", "val", "test"), identity={"dataset": "stripes"})


def with_extract(discovery, **options):
    """The same discovery under other settings of the extraction."""
    other = make_discovery(make_data(), settings=make_settings(extract=ExtractSettings(**options)))
    other.load_state_dict(discovery.state_dict())
    return other


def test_tables(concepts, data):
    assert {split: len(table) for split, table in concepts.tables.items()} == {"train": 96, "val": 24, "test": 40}
    assert (concepts.num_concepts, concepts.num_slots) == (5, 3)
    for split, table in concepts.tables.items():
        assert table.dtype == torch.int16
        assert bool(((table >= -1) & (table < 5)).all())
        assert bool((table >= 0).any(dim=1).all()), "each image has a concept"
        area, margin = concepts.area[split], concepts.margin[split]
        assert area.dtype == margin.dtype == torch.float16
        torch.testing.assert_close(area.float().sum(dim=1), torch.ones(len(table)), atol=1e-3, rtol=0)
        assert torch.equal(area > 0, table >= 0)
        assert bool((margin[table < 0] == 0).all())
        assert bool(((margin >= 0) & (margin <= 4)).all())
    assert torch.equal(concepts.samples["train"], data.train_indices)


@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"storage": "streaming"}])
def test_a_second_pass_finds_the_same(discovery, concepts, options):
    data = make_data(**{name: value for name, value in options.items() if name == "storage"})
    other = with_extract(discovery, batch_size=options.get("batch_size", 32))
    again = other.extract(data, ("train", "val", "test"))
    for split, table in concepts.tables.items():
        assert torch.equal(again.tables[split], table)
        torch.testing.assert_close(again.margin[split], concepts.margin[split], atol=2e-3, rtol=1e-3)


@pytest.mark.slow
def test_workers_change_nothing(discovery, concepts):
    again = discovery.extract(make_data(storage="streaming", workers=2), ("train",))
    assert torch.equal(again.tables["train"], concepts.tables["train"])


def test_the_teacher_is_left_as_it_was(data, discovery):
    before = {name: value.clone() for name, value in discovery.teacher.state_dict().items()}
    assert discovery.teacher.training
    discovery.extract(data, ("test",))
    assert discovery.teacher.training
    assert all(torch.equal(value, before[name]) for name, value in discovery.teacher.state_dict().items())


def test_small_slots_are_dropped_but_never_the_largest(discovery, concepts, data):
    places = concepts.area["train"].float() * 16
    for least in (4, 17):
        table = with_extract(discovery, min_pixels=least).extract(data, ("train",)).tables["train"]
        largest = torch.arange(3) == places.argmax(dim=1, keepdim=True)
        kept = ((places >= least - 0.5) & (concepts.tables["train"] >= 0)) | largest
        assert torch.equal(table >= 0, kept)
        assert torch.equal(table[kept], concepts.tables["train"][kept])
    assert bool(((table >= 0).sum(dim=1) == 1).all())


def test_the_file_gives_back_what_was_saved(tmp_path, concepts, data):
    path = tmp_path / "run" / "concepts.pt"
    artifact.save(concepts, path)
    found = artifact.load(path, data, splits=("train", "val"))
    assert found.num_concepts == 5
    for part in ("tables", "area", "margin", "samples"):
        for split, column in getattr(concepts, part).items():
            assert torch.equal(getattr(found, part)[split], column)
    assert found.identity == concepts.identity
    assert found.identity["seed"] == 0
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["identity"]["dataset"] == "stripes"
    assert record["images"] == {"train": 96, "val": 24, "test": 40}
    assert sum(record["active_slots_of_each_concept"]["train"]) == int((concepts.tables["train"] >= 0).sum())
    assert [one.name for one in sorted(path.parent.iterdir())] == ["concepts.json", "concepts.pt"]


@pytest.mark.parametrize("source", [Stripes(train=95), Stripes(label_shift=1)], ids=["samples", "labels"])
def test_concepts_of_other_data_are_refused(tmp_path, concepts, source):
    artifact.save(concepts, tmp_path / "concepts.pt")
    with pytest.raises(ConfigError, match="other samples: the samples of the train split"):
        artifact.load(tmp_path / "concepts.pt", make_data(source=source))


def test_concepts_of_a_part_are_refused_for_the_whole(tmp_path, discovery, data):
    artifact.save(discovery.extract(make_data(subset=50), ("train",)), tmp_path / "concepts.pt")
    with pytest.raises(ConfigError, match=r"50 training samples, but this run trains on 96"):
        artifact.load(tmp_path / "concepts.pt", data)


def test_files_that_cannot_be_used_are_refused(tmp_path, concepts, data):
    path = tmp_path / "concepts.pt"
    with pytest.raises(ConfigError, match="no concept file"):
        artifact.load(path, data)
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="contains no concepts"):
        artifact.load(path, data)
    torch.save({"schema": SCHEMA_VERSION, "network": {}}, path)
    with pytest.raises(ConfigError, match="something other than concepts"):
        artifact.load(path, data)
    artifact.save(concepts, path)
    with pytest.raises(ConfigError, match="no concepts for the extra split"):
        artifact.load(path, data, splits=("train", "extra"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ConfigError, match="contains no concepts"):
        artifact.load(path, data)
