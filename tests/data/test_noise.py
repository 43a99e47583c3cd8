import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core import rng
from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import TaskSpec
from robustlab.data.noise.class_maps import (
    CIFAR10_CLASSES,
    CIFAR100_SUPERCLASSES,
    consecutive_successor,
    superclass_successor,
)
from robustlab.data.noise.human_labels import HumanLabels
from robustlab.data.noise.instance import InstanceDependent
from robustlab.data.noise.noise_model import NoiseModel
from robustlab.data.noise.transitions import AsymmetricCIFAR10, AsymmetricCIFAR100, FixedLabels, PairFlip, Symmetric
from robustlab.data.run_data import Data
from tests.data.toy_source import Lazy, Toy


def clean_labels(count: int, num_classes: int) -> torch.Tensor:
    return torch.randint(0, num_classes, (count,), generator=rng.generator(1))


def images(count: int, size: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=rng.generator(2))


def applied(model: NoiseModel, clean: torch.Tensor, num_classes: int, seed: int = 0, pictures=None) -> torch.Tensor:
    pictures = images(len(clean)) if pictures is None else pictures
    return model.apply(clean, num_classes=num_classes, generator=np.random.default_rng(seed), images=pictures)


MODELS = {
    "symmetric": (lambda rate: Symmetric(rate=rate), 10),
    "symmetric_exclusive": (lambda rate: Symmetric(rate=rate, inclusive=False), 10),
    "asymmetric_cifar10": (lambda rate: AsymmetricCIFAR10(rate=rate), 10),
    "asymmetric_cifar10_bernoulli": (lambda rate: AsymmetricCIFAR10(rate=rate, sampling="bernoulli"), 10),
    "asymmetric_cifar100": (lambda rate: AsymmetricCIFAR100(rate=rate), 100),
    "asymmetric_cifar100_consecutive5": (lambda rate: AsymmetricCIFAR100(rate=rate, grouping="consecutive5"), 100),
    "pair_flip": (lambda rate: PairFlip(rate=rate), 7),
    "instance": (lambda rate: InstanceDependent(rate=rate), 10),
    "instance_shared": (lambda rate: InstanceDependent(rate=rate, shared_w=True), 10),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_keeps_its_promises(name: str) -> None:
    make, num_classes = MODELS[name]
    clean = clean_labels(3000, num_classes)
    original = clean.clone()
    assert torch.equal(applied(make(0.0), clean, num_classes), clean)
    noisy = applied(make(0.4), clean, num_classes)
    assert noisy.dtype == torch.int64
    assert noisy.data_ptr() != clean.data_ptr()
    assert 0 <= int(noisy.min()) <= int(noisy.max()) < num_classes
    assert torch.equal(noisy, applied(make(0.4), clean, num_classes))
    assert not torch.equal(noisy, applied(make(0.4), clean, num_classes, seed=1))
    assert torch.equal(clean, original)
    assert "rate=0.4" in repr(make(0.4))
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match=r"outside \[0, 1\]"):
            make(rate)


@settings(deadline=None, max_examples=40)
@given(rate=st.floats(0, 1), count=st.integers(1, 200), num_classes=st.integers(2, 12))
def test_symmetric_exclusive_flips_an_exact_number_and_fixes_none(rate: float, count: int, num_classes: int) -> None:
    clean = clean_labels(count, num_classes)
    noisy = applied(Symmetric(rate=rate, inclusive=False), clean, num_classes)
    assert int((noisy != clean).sum()) == int(rate * count)


@pytest.mark.parametrize(("rate", "true_rate"), [(0.2, 0.18), (0.5, 0.45), (0.8, 0.72), (0.9, 0.81)])
def test_symmetric_inclusive_has_the_published_true_rate(rate: float, true_rate: float) -> None:
    clean = clean_labels(50_000, 10)
    wrong = (applied(Symmetric(rate=rate), clean, 10) != clean).double().mean().item()
    drawn = int(rate * 50_000)
    assert abs(wrong - true_rate) < 4 * math.sqrt(drawn * 0.1 * 0.9) / 50_000


def test_symmetric_inclusive_draws_an_exact_number_of_samples() -> None:
    class Recorder(np.random.Generator):
        def integers(self, *args, **kwargs):
            sizes.append(kwargs["size"])
            return super().integers(*args, **kwargs)

    sizes: list[int] = []
    clean = clean_labels(1001, 10)
    Symmetric(rate=0.5).apply(clean, num_classes=10, generator=Recorder(np.random.PCG64(0)), images=None)
    assert sizes == [500]


def test_symmetric_labels_are_spread_evenly() -> None:
    clean = torch.zeros(90_000, dtype=torch.int64)
    exclusive = torch.bincount(applied(Symmetric(rate=1.0, inclusive=False), clean, 10), minlength=10)
    assert exclusive[0] == 0
    assert (exclusive[1:] - 10_000).abs().max() < 4 * math.sqrt(10_000)
    inclusive = torch.bincount(applied(Symmetric(rate=1.0), clean, 10), minlength=10)
    assert (inclusive - 9_000).abs().max() < 4 * math.sqrt(9_000)


@pytest.mark.parametrize("sampling", ["exact", "bernoulli"])
def test_asymmetric_cifar10_makes_only_the_five_transitions(sampling: str) -> None:
    clean = torch.arange(10).repeat_interleave(5000)
    noisy = applied(AsymmetricCIFAR10(rate=0.4, sampling=sampling), clean, 10)
    names = CIFAR10_CLASSES
    pairs = {(names[int(a)], names[int(b)]) for a, b in torch.stack([clean, noisy], 1).unique(dim=0) if a != b}
    assert pairs == {
        ("truck", "automobile"),
        ("bird", "airplane"),
        ("deer", "horse"),
        ("cat", "dog"),
        ("dog", "cat"),
    }
    wrong = (noisy != clean).double()
    assert wrong.mean().item() == pytest.approx(0.2, abs=0.01)
    assert wrong[clean == 3].mean().item() == pytest.approx(0.4, abs=0.03)


def test_cat_and_dog_flips_do_not_compound() -> None:
    clean = torch.tensor([3, 5, 9, 2, 4])
    assert applied(AsymmetricCIFAR10(rate=1.0), clean, 10).tolist() == [5, 3, 1, 0, 7]


def test_asymmetric_noise_is_refused_on_another_data_set() -> None:
    def task(classes: int, names: tuple[str, ...] = (), channels: int = 3) -> TaskSpec:
        return TaskSpec(classes, (channels, 32, 32), (0.5,) * channels, (0.2,) * channels, names)

    AsymmetricCIFAR10(rate=0.4).check(task(10, CIFAR10_CLASSES))
    AsymmetricCIFAR10(rate=0.4).check(task(10))
    AsymmetricCIFAR100(rate=0.4).check(task(100))
    for other in (task(100), task(10, tuple("0123456789")), task(10, channels=1), task(10, CIFAR10_CLASSES[::-1])):
        with pytest.raises(ConfigError, match="noise=asymmetric_cifar10 flips between classes of CIFAR-10"):
            AsymmetricCIFAR10(rate=0.4).check(other)
    with pytest.raises(ConfigError, match="noise=asymmetric_cifar100"):
        AsymmetricCIFAR100(rate=0.4).check(task(10))


def test_superclasses_partition_the_fine_classes() -> None:
    members = [index for group in CIFAR100_SUPERCLASSES.values() for index in group]
    assert sorted(members) == list(range(100))
    assert all(len(group) == 5 and list(group) == sorted(group) for group in CIFAR100_SUPERCLASSES.values())
    # known members by their alphabetical fine index: apple, baby, bicycle, lion, sweet pepper, worm
    names = {index: name for name, group in CIFAR100_SUPERCLASSES.items() for index in group}
    assert [names[index] for index in (0, 2, 8, 43, 83, 99)] == [
        "fruit and vegetables",
        "people",
        "vehicles 1",
        "large carnivores",
        "fruit and vegetables",
        "non-insect invertebrates",
    ]


def test_cifar100_flips_to_the_cyclic_successor() -> None:
    clean = torch.arange(100).repeat_interleave(200)
    groups = {index: group for group in CIFAR100_SUPERCLASSES.values() for index in group}
    noisy = applied(AsymmetricCIFAR100(rate=0.4), clean, 100)
    wrong = noisy != clean
    assert wrong.double().mean().item() == pytest.approx(0.4, abs=0.02)
    for before, after in zip(clean[wrong].tolist(), noisy[wrong].tolist(), strict=True):
        group = groups[before]
        assert after == group[(group.index(before) + 1) % 5]

    block = applied(AsymmetricCIFAR100(rate=0.4, grouping="consecutive5"), clean, 100)
    wrong = block != clean
    assert torch.equal(block[wrong], (clean // 5 * 5 + (clean + 1) % 5)[wrong])


def test_consecutive_blocks_leave_the_superclass_in_94_of_100_classes() -> None:
    superclass = torch.empty(100, dtype=torch.int64)
    for number, group in enumerate(CIFAR100_SUPERCLASSES.values()):
        superclass[list(group)] = number
    assert int((superclass != superclass[consecutive_successor()]).sum()) == 94
    assert torch.equal(superclass, superclass[superclass_successor()])
    for successor in (consecutive_successor(), superclass_successor()):
        assert torch.equal(successor.sort().values, torch.arange(100))
        assert bool((successor != torch.arange(100)).all())


@pytest.mark.parametrize("num_classes", [2, 7, 200])
def test_pair_flip_goes_to_the_next_class(num_classes: int) -> None:
    clean = clean_labels(4000, num_classes)
    assert torch.equal(applied(PairFlip(rate=1.0), clean, num_classes), (clean + 1) % num_classes)
    exact = applied(PairFlip(rate=0.3, sampling="exact"), clean, num_classes)
    assert int((exact != clean).sum()) == 1200


@pytest.mark.parametrize("shared_w", [False, True])
@pytest.mark.parametrize("rate", [0.2, 0.4])
def test_instance_noise_has_the_rate_asked_for(rate: float, shared_w: bool) -> None:
    clean = clean_labels(20_000, 10)
    noisy = applied(InstanceDependent(rate=rate, shared_w=shared_w), clean, 10)
    assert (noisy != clean).double().mean().item() == pytest.approx(rate, abs=0.02)


def test_instance_noise_depends_on_the_image() -> None:
    pictures = torch.stack([images(2, 16)[number % 2] for number in range(400)])
    clean = torch.zeros(400, dtype=torch.int64)
    usual: list[tuple[int, int]] = []
    for seed in range(8):
        noisy = applied(InstanceDependent(rate=0.9, std=0.01), clean, 10, seed, pictures)
        first, second = noisy[::2], noisy[1::2]
        targets = [int(part[part != 0].mode().values) for part in (first, second)]
        shares = [
            float((part == target).double().mean()) for part, target in zip((first, second), targets, strict=True)
        ]
        assert min(shares) > 0.45  # one wrong class has most of the probability
        usual.append((targets[0], targets[1]))
    assert any(one != other for one, other in usual)


def test_instance_noise_reads_lazy_images_of_one_size() -> None:
    clean, pictures = clean_labels(600, 5), images(600)
    model = InstanceDependent(rate=0.4)
    assert torch.equal(applied(model, clean, 5, pictures=Lazy(pictures)), applied(model, clean, 5, pictures=pictures))

    class Ragged(Lazy):
        def decode(self, index: int) -> torch.Tensor:
            return self.images[index][:, : 3 + index % 2]

    with pytest.raises(ConfigError, match="images of one size"):
        applied(model, clean, 5, pictures=Ragged(pictures))
    with pytest.raises(ConfigError, match="there are none"):
        model.apply(clean, num_classes=5, generator=np.random.default_rng(0), images=None)


def test_instance_noise_does_not_depend_on_the_threads() -> None:
    clean, pictures = clean_labels(2000, 10), images(2000, 16)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(applied(InstanceDependent(rate=0.4), clean, 10, pictures=pictures))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AsymmetricCIFAR10(rate=0.4, sampling="all"), "sampling=all"),
        (lambda: AsymmetricCIFAR100(rate=0.4, grouping="five"), "grouping=five"),
        (lambda: InstanceDependent(rate=0.4, std=0.0), r"std=0\.0"),
    ],
)
def test_wrong_settings_are_named(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("model", "asymmetric"),
    [
        (Symmetric(rate=0.2), False),
        (AsymmetricCIFAR10(rate=0.2), True),
        (AsymmetricCIFAR100(rate=0.2), True),
        (PairFlip(rate=0.2), True),
        (InstanceDependent(rate=0.2), False),
        (HumanLabels(file="none.pt", key="worse_label"), False),
        (FixedLabels(file="none.npz"), None),
        (FixedLabels(file="none.npz", asymmetric=True), True),
    ],
)
def test_models_declare_whether_they_are_asymmetric(model, asymmetric) -> None:
    assert model.asymmetric is asymmetric


@pytest.mark.parametrize("model", [None, Symmetric(rate=0.4), PairFlip(rate=0.4)])
def test_a_file_of_labels_says_what_its_noise_declared(tmp_path, model) -> None:
    def through_file(data: Data, name: str, **settings) -> Data:
        data.save_labels(tmp_path / name)
        return Data(Toy(), seed=5, noise=FixedLabels(file=str(tmp_path / name), **settings), noise_name="file")

    first = Data(Toy(), seed=0, noise=model, noise_name="mine")
    declared = isinstance(model, PairFlip)
    assert first.noise_record()["asymmetric"] is declared
    second = through_file(first, "first.npz")
    assert second.noise_record()["asymmetric"] is declared
    assert through_file(second, "second.npz").noise_record()["asymmetric"] is declared  # and so on
    other = through_file(first, "third.npz", asymmetric=not declared)
    assert other.noise_record()["asymmetric"] is not declared
    np.save(tmp_path / "plain.npy", first.assigned.numpy())
    plain = Data(Toy(), seed=0, noise=FixedLabels(file=str(tmp_path / "plain.npy")))
    assert plain.noise_record()["asymmetric"] is None


def test_fixed_labels_come_from_a_file_without_pickle(tmp_path) -> None:
    clean, wanted = clean_labels(30, 4), clean_labels(30, 4).flip(0)

    def read(file, **key) -> torch.Tensor:
        return applied(FixedLabels(file=str(file), **key), clean, 4)

    np.save(tmp_path / "plain.npy", wanted.numpy().astype(np.uint8))
    np.savez(tmp_path / "named.npz", mine=wanted.numpy())
    assert torch.equal(read(tmp_path / "plain.npy"), wanted)
    assert torch.equal(read(tmp_path / "named.npz", key="mine"), wanted)
    with pytest.raises(ConfigError, match="no entry 'assigned'; it has mine"):
        read(tmp_path / "named.npz")
    with pytest.raises(ConfigError, match="there is no label file"):
        read(tmp_path / "absent.npy")
    np.save(tmp_path / "short.npy", wanted.numpy()[:5])
    with pytest.raises(ConfigError, match="has 5 labels, the training split has 30 samples"):
        read(tmp_path / "short.npy")
    np.save(tmp_path / "float.npy", wanted.numpy() / 2)
    with pytest.raises(DataError, match="one-dimensional array of integers"):
        read(tmp_path / "float.npy")
    (tmp_path / "text.npy").write_text("no numbers")
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "text.npy")

    sentinel = tmp_path / "touched"

    class Malicious:
        def __reduce__(self):
            return sentinel.touch, ()

    np.save(tmp_path / "evil.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    sentinel.unlink(missing_ok=True)
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "evil.npy")
    assert not sentinel.exists()
