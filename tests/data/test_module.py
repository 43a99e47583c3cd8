import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.noise.transitions import FixedLabels, Symmetric
from robustlab.data.partition import balanced_subset, stratified_share
from robustlab.data.run_data import Data
from tests.data.toy_source import Toy


def test_without_noise_assigned_labels_are_the_clean_ones() -> None:
    data = Data(Toy(), seed=0)
    assert data.clean is not None
    assert torch.equal(data.assigned, data.clean)
    assert data.true_noise_rate == 0.0
    assert data.noise_record()["model"] is None
    assert (data.num_train, len(data.train_indices), len(data.val_indices)) == (40, 40, 0)


def test_noise_follows_its_own_seed() -> None:
    def labels(seed: int, noise_seed: int | None = None) -> torch.Tensor:
        return Data(Toy(), seed=seed, noise=Symmetric(rate=0.5), noise_seed=noise_seed).assigned

    assert torch.equal(labels(0, 7), labels(1, 7))
    assert torch.equal(labels(0), labels(0))
    assert not torch.equal(labels(0), labels(1))


def test_true_rate_and_flags_are_counted_from_the_labels() -> None:
    data = Data(Toy(400), seed=0, noise=Symmetric(rate=0.5, inclusive=False), noise_name="symmetric_exclusive")
    assert data.is_noisy is not None
    assert data.clean is not None
    assert torch.equal(data.is_noisy, data.assigned != data.clean)
    assert data.true_noise_rate == 0.5
    record = data.noise_record()
    assert (record["name"], record["rate"], record["true_rate"], record["seed"]) == ("symmetric_exclusive", 0.5, 0.5, 0)
    assert record["hash"] != record["clean_hash"]


def test_noise_is_drawn_on_the_whole_split_before_the_subset() -> None:
    full, part = (Data(Toy(400), seed=0, noise=Symmetric(rate=0.5), subset=subset) for subset in (None, 100))
    assert torch.equal(full.assigned, part.assigned)
    assert part.num_train == 400
    assert part.clean is not None
    assert torch.bincount(part.clean[part.train_indices]).tolist() == [25] * 4


@settings(deadline=None)
@given(count=st.integers(4, 60), labels=st.lists(st.integers(0, 3), min_size=60, max_size=80))
def test_subsets_are_balanced_and_nested(count: int, labels: list[int]) -> None:
    given_labels = torch.tensor(labels)
    subset = balanced_subset(given_labels, count, num_classes=4)
    assert len(subset.unique()) == count
    sizes, available = (torch.bincount(values, minlength=4) for values in (given_labels[subset], given_labels))
    short = sizes < sizes.max() - 1
    assert torch.equal(sizes[short], available[short])  # smaller only where there are no more
    larger = balanced_subset(given_labels, min(count + 5, 60), num_classes=4)
    assert torch.isin(subset, larger).all()


@settings(deadline=None)
@given(fraction=st.floats(0, 0.9), labels=st.lists(st.integers(0, 3), min_size=20, max_size=80))
def test_the_validation_share_is_that_of_each_class(fraction: float, labels: list[int]) -> None:
    given_labels = torch.tensor(labels)
    held_out = stratified_share(given_labels, fraction) if fraction < 0.5 else stratified_share(given_labels, 0.25)
    share = fraction if fraction < 0.5 else 0.25
    for label in range(4):
        members = given_labels == label
        assert abs(int(held_out[members].sum()) - share * int(members.sum())) <= 0.5


def test_validation_keeps_the_noisy_labels_and_is_the_same_for_every_seed() -> None:
    data, other = (
        Data(Toy(200), seed=seed, noise=Symmetric(rate=0.5), noise_seed=0, val_fraction=0.2) for seed in (0, 1)
    )
    assert torch.equal(data.val_indices, other.val_indices)
    together = torch.cat([data.train_indices, data.val_indices])
    assert torch.equal(together.sort().values, torch.arange(200))
    assert 38 <= len(data.val_indices) <= 42
    batches = list(data.evaluation("val", 16).epoch(0))
    index = torch.cat([batch.index for batch in batches])
    assert torch.equal(index, data.val_indices)
    assert torch.equal(torch.cat([b.targets for b in batches if b.targets is not None]), data.assigned[index])
    assert data.is_noisy is not None
    assert data.is_noisy[data.val_indices].any()


def test_evaluation_serves_the_named_split() -> None:
    data = Data(Toy(40), seed=0, noise=Symmetric(rate=0.5), val_fraction=0.25)
    for split, expected in (("train", data.train_indices), ("val", data.val_indices), ("test", torch.arange(20))):
        assert torch.equal(torch.cat([b.index for b in data.evaluation(split, 7).epoch(0)]), expected)
    with pytest.raises(ConfigError, match=r"dataset\.val_fraction"):
        Data(Toy(), seed=0).evaluation("val", 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": 41}, r"dataset\.subset=41 must lie between"),
        ({"subset": 3}, r"dataset\.subset=3 must lie between"),
        ({"val_fraction": 1.0}, r"dataset\.val_fraction=1\.0 lies outside"),
        ({"val_fraction": -0.1}, r"dataset\.val_fraction=-0\.1 lies outside"),
        ({"val_fraction": 0.99}, "leaves nothing to train on"),
        ({"storage": "disk"}, r"dataset\.storage=disk"),
        ({"workers": -1}, r"dataset\.workers=-1"),
        ({"decode": {"train": None, "eval": None}}, r"dataset\.storage=streaming"),
        ({"decode": {"train": None}, "storage": "streaming"}, "entries train and eval"),
    ],
)
def test_contradictions_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Data(Toy(40), seed=0, **arguments)


def test_synthetic_noise_needs_clean_labels() -> None:
    assert Data(Toy(clean=False), seed=0).true_noise_rate is None
    with pytest.raises(ConfigError, match="known to be partly wrong"):
        Data(Toy(clean=False), seed=0, noise=Symmetric(rate=0.2), noise_name="symmetric")


def test_saved_labels_are_recognised_shared_and_checked(tmp_path) -> None:
    path = tmp_path / "run" / "labels.npz"
    data = Data(Toy(), seed=0, noise=Symmetric(rate=0.5))
    data.save_labels(path)
    data.check_saved_labels(path)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["assigned"].dtype == np.int64
        assert "Symmetric(rate=0.5, inclusive=True)" in str(archive["record"])
    shared = Data(Toy(), seed=9, noise=FixedLabels(file=str(path)))
    assert torch.equal(shared.assigned, data.assigned)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["labels.npz"]

    with pytest.raises(DataError, match=r"labels differ .* changed since the run started"):
        Data(Toy(), seed=1, noise=Symmetric(rate=0.5)).check_saved_labels(path)
    with pytest.raises(DataError, match="another data set"):
        Data(Toy(44), seed=0).check_saved_labels(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged"):
        data.check_saved_labels(path)


def test_images_of_another_size_than_announced_are_reported() -> None:
    class Wrong(Toy):
        def split(self, name: str):
            split = super().split(name)
            return type(split)(split.images[:, :1], split.labels)  # type: ignore[index]

    with pytest.raises(DataError, match=r"shape \(1, 8, 8\), but the data set announces uint8 \(3, 8, 8\)"):
        Data(Wrong(), seed=0)


def test_resident_storage_reads_lazy_images_once_and_for_all() -> None:
    lazy, eager = (Data(Toy(lazy=lazy), seed=0).evaluation("train", 40).epoch(0) for lazy in (True, False))
    assert torch.equal(next(lazy).images, next(eager).images)
