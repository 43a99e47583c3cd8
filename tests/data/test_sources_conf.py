"""Every file of conf/dataset/ composes, and its source, views and crops are made with the arguments that it names."""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from robustlab.config.compose import compose
from robustlab.config.hydra_session import conf_dir
from robustlab.core import rng
from robustlab.data.dataset import DataSource
from robustlab.data.transforms.transform import Pipeline

FOLDER = conf_dir() / "dataset"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
KEYS = {"name", "source", "val_fraction", "subset", "storage", "workers", "views", "decode"}
FILE_SHAPES = {"parquet", "image_folder", "group_folder"}  # only the files tell the size of the images


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Callable[..., DictConfig]:
    """Compose the group `dataset` of a choice, each once, in a folder without data or cache."""
    folder = tmp_path_factory.mktemp("empty")
    paths = (f"paths.data_dir={folder}", f"paths.cache_dir={folder / 'cache'}")
    return cache(lambda name, *overrides: compose([f"dataset={name}", *paths, *overrides]).dataset)


def test_every_data_set_has_a_file():
    known = {
        "digits",
        "cifar10",
        "cifar100",
        "mnist",
        "fashion_mnist",
        "svhn",
        "mini_webvision",
        "tiny_imagenet",
    } | FILE_SHAPES
    groups = {"waterbirds", "celeba", "metashift", "urbancars", "imagenet9", "digits_bg", "fashion_bg", "dominoes"}
    assert set(NAMES) >= known | groups | {"cmnist_irm", "cmnist_subpop", "cmnist_10", "cmnist_pairs"}


@pytest.mark.parametrize("name", NAMES)
def test_source_is_made_from_all_of_its_arguments_and_reads_nothing(name, dataset):
    cfg = dataset(name)
    made = get_class(cfg.source._target_)
    assert set(cfg) == KEYS | ({"on_error"} if made.can_skip else set())
    taken = set(inspect.signature(made).parameters)
    assert set(cfg.source) - {"_target_"} == taken
    source = instantiate(cfg.source)
    assert isinstance(source, DataSource)
    assert not list(Path(dataset("cifar10").source.root).iterdir())
    if "storage" in taken:
        assert source.storage == cfg.storage  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", NAMES)
def test_views_and_crops_work_on_images_of_the_data_set(name, dataset):
    cfg = dataset(name)
    size = cfg.source.get("size") or (64 if name in FILE_SHAPES else None)
    shape = (3, size, size) if size else instantiate(cfg.source).task.image_shape
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8, generator=rng.generator(0))
    pipelines = {view: Pipeline([instantiate(node) for node in nodes]) for view, nodes in cfg.views.items()}
    served = pipelines.get("test", Pipeline([]))(images, torch.empty((4, 0))).shape
    assert set(pipelines) - {"test"} == {"weak", "strong"}
    assert pipelines["strong"].draws > 0
    for pipeline in pipelines.values():
        augmented = pipeline(images, rng.uniform(1, torch.arange(4), pipeline.draws))
        assert augmented.shape == served
        assert augmented.dtype == torch.uint8
    assert (cfg.decode is None) == (cfg.storage == "resident")
    for node in (cfg.decode or {}).values():
        crop = instantiate(node)
        picture = torch.zeros((3, 330, 400), dtype=torch.uint8)
        assert crop(picture, torch.full((crop.draws,), 0.5)).shape == shape


def test_storage_is_set_in_one_place(dataset):
    cfg = dataset("image_folder", "dataset.storage=streaming")
    assert OmegaConf.to_container(cfg, resolve=True)["source"]["storage"] == "streaming"  # pyright: ignore
