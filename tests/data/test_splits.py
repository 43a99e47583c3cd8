"""Every data source gives exactly the splits that it lists, and a run measures all of them but the training split."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

import robustlab.data.sources
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import DataSource
from robustlab.data.run_data import Data
from robustlab.data.sources.celeba import CelebA
from robustlab.data.sources.cmnist_10 import CMNIST10
from robustlab.data.sources.cmnist_irm import CMNISTIrm
from robustlab.data.sources.cmnist_pairs import CMNISTPairs
from robustlab.data.sources.cmnist_subpop import CMNISTSubpop
from robustlab.data.sources.digits import Digits
from robustlab.data.sources.dominoes import Dominoes
from robustlab.data.sources.group_files import GroupFolder
from robustlab.data.sources.image_folder import ImageFolder
from robustlab.data.sources.imagenet9 import VARIANTS, ImageNet9
from robustlab.data.sources.metashift import MetaShift
from robustlab.data.sources.parquet import Parquet
from robustlab.data.sources.textured_digits import TexturedDigits
from robustlab.data.sources.tiny_imagenet import TinyImageNet
from robustlab.data.sources.torchvision_sets import Torchvision
from robustlab.data.sources.urbancars import UrbanCars
from robustlab.data.sources.waterbirds import Waterbirds
from robustlab.data.sources.webvision import MiniWebVision
from tests.data import test_sources_folders as folders
from tests.data import test_sources_parquet as parquet
from tests.data.fixtures import digits_npz, picture
from tests.data.test_celeba import faces
from tests.data.test_group_files import folder as group_folder
from tests.data.test_imagenet9 import images as imagenet9
from tests.data.test_metashift import animals
from tests.data.test_sources_torchvision import GREY, mnist
from tests.data.test_urbancars import cars
from tests.data.test_waterbirds import birds

Make = Callable[[Path], DataSource]
THREE = ("train", "val", "test")


def digits(root: Path) -> str:
    digits_npz(root / "mnist/mnist_12k.npz", train=6000, test=1000)
    return str(root)


def torchvision(root: Path) -> DataSource:
    mnist(root, "MNIST")
    return Torchvision("mnist", root=str(root), download=False, **GREY)


def dominoes(root: Path) -> DataSource:
    parquet.write(
        root / "cifar/train-0.parquet", [parquet.png(1, (32, 32))] * 100, [i % 10 for i in range(100)], names=["c"] * 10
    )
    parquet.write(root / "cifar/test-0.parquet", [parquet.png(1, (32, 32))] * 40, [i % 10 for i in range(40)])
    digits_npz(root / "mnist/mnist_12k.npz", train=100, test=40)
    return Dominoes(
        images="mnist_npz", root=str(root), cifar="parquet", cifar_root=str(root / "cifar"), train=None, val=6
    )


def shards(root: Path, validation: bool) -> DataSource:
    parquet.birds(root)
    if validation:
        parquet.write(root / "data/validation-00000-of-00001.parquet", [parquet.png(7)] * 2, [0, 1])
    return Parquet(str(root))


def image_folder(root: Path, *more: str, **settings) -> DataSource:
    folders.folder(root, "val")
    for name in more:
        picture(root / name / "a/1.png", 1)
        picture(root / name / "b/1.png", 2)
    return ImageFolder(str(root), **settings)


def webvision(root: Path, imagenet: bool) -> DataSource:
    folders.webvision(root / "webvision")
    for label in (0, 1):
        picture(root / f"ilsvrc/{label}/a.JPEG", label)
    extra = str(root / "ilsvrc") if imagenet else None
    return MiniWebVision(str(root / "webvision"), imagenet_root=extra, num_classes=2, size=6)


SOURCES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "digits": (lambda root: Digits(), ("train", "test")),
    "torchvision": (torchvision, ("train", "test")),
    "parquet": (lambda root: shards(root, validation=False), ("train", "test")),
    "parquet with validation shards": (lambda root: shards(root, validation=True), THREE),
    "image folder": (image_folder, ("train", "test")),
    "image folder with both": (lambda root: image_folder(root, "test"), THREE),
    "image folder with both, val left out": (
        lambda root: image_folder(root, "test", val_folder=None),
        ("train", "test"),
    ),
    "tiny imagenet": (
        lambda root: TinyImageNet(str(folders.tiny(root)), num_classes=2, size=6),
        ("train", "test"),
    ),
    "webvision": (lambda root: webvision(root, imagenet=False), ("train", "test")),
    "webvision with imagenet": (lambda root: webvision(root, imagenet=True), ("train", "test", "imagenet")),
    "imagenet9": (lambda root: ImageNet9(str(imagenet9(root)), size=6), (*THREE, *VARIANTS)),
    "imagenet9 of one variant": (
        lambda root: ImageNet9(str(imagenet9(root)), variants=("no_fg",), size=6),
        (*THREE, "no_fg"),
    ),
    "group folder": (lambda root: GroupFolder(str(group_folder(root))), THREE),
    "celeba": (lambda root: CelebA(str(faces(root, "kaggle")), size=4), THREE),
    "waterbirds": (lambda root: Waterbirds(str(birds(root)), size=8), THREE),
    "metashift": (lambda root: MetaShift(str(animals(root)), size=4), THREE),
    "urbancars": (lambda root: UrbanCars(str(cars(root)), size=6), THREE),
    "cmnist irm": (lambda root: CMNISTIrm(root=digits(root)), ("train", "test")),
    "cmnist irm as in forks": (lambda root: CMNISTIrm(root=digits(root), protocol="forks"), THREE),
    "cmnist subpop": (lambda root: CMNISTSubpop(root=digits(root)), THREE),
    "cmnist 10": (lambda root: CMNIST10(root=digits(root)), ("train", "test")),
    "cmnist pairs": (lambda root: CMNISTPairs(root=digits(root)), THREE),
    "textured digits": (lambda root: TexturedDigits(root=digits(root), train=300, val=60, test=80), THREE),
    "dominoes": (dominoes, THREE),
}
"""For each source, and each setting that changes its splits: how to make a small one, and what it has then."""
ALL_NAMES = sorted({name for _, splits in SOURCES.values() for name in splits} | {"extra", "valid", "unlabelled"})


def test_the_table_has_every_source(tmp_path):
    found: set[type] = set()
    for module in pkgutil.iter_modules(robustlab.data.sources.__path__):
        members = vars(importlib.import_module(f"robustlab.data.sources.{module.name}")).values()
        found |= {one for one in members if inspect.isclass(one) and issubclass(one, DataSource)}
    leaves = {one for one in found if not any(other is not one and issubclass(other, one) for other in found)}
    made = {type(make(tmp_path / str(place))).__name__ for place, (make, _) in enumerate(SOURCES.values())}
    assert made == {one.__name__ for one in leaves}


@pytest.mark.parametrize("case", SOURCES)
def test_all_that_a_source_can_give_is_measured(case, tmp_path):
    make, expected = SOURCES[case]
    source = make(tmp_path)
    given = []
    for name in ALL_NAMES:
        try:
            source.split(name)
        except ConfigError:
            continue
        given.append(name)
    assert sorted(given) == sorted(expected)
    assert tuple(source.splits) == expected
    assert sorted(Data(source, seed=0).evaluation_splits) == sorted(set(expected) - {"train"})


def test_a_run_measures_the_share_of_the_training_split_beside_them(tmp_path):
    data = Data(webvision(tmp_path, imagenet=True), seed=0)
    assert data.evaluation_splits == ("test", "imagenet")
    assert [len(data.labels(name)) for name in data.evaluation_splits] == [2, 2]


def test_a_validation_folder_that_is_named_must_be_there(tmp_path):
    source = image_folder(tmp_path, "test", val_folder="holdout")
    with pytest.raises(ConfigError, match=r"holdout does not exist; expected the val split there"):
        source.split("val")
