"""ImageNet-9: training folders, the curated original as test, variants as splits of their own."""

from pathlib import Path

import pytest

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.run_data import Data
from robustlab.data.sources.imagenet9 import VARIANTS, ImageNet9
from tests.data.fixtures import picture, values

CLASSES = ("00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore", "05_insect",
           "06_musical instrument", "07_primate", "08_fish")  # fmt: skip
PARTS = ["in9l/train", "in9l/val", "original/train", "original/val"]
PARTS += [f"bg_challenge/{variant}/val" for variant in ("original", *VARIANTS)]


def images(root: Path) -> Path:
    for part, folder in enumerate(PARTS):
        for label, name in enumerate(CLASSES):
            picture(root / folder / name / "n01.JPEG", 10 * part + label)
    return root


@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_splits(tmp_path, storage):
    source = ImageNet9(str(images(tmp_path)), size=6, storage=storage)
    assert source.task.num_classes == 9
    assert source.task.num_attributes == 0
    assert source.splits == ("train", "val", "test", *VARIANTS)
    starts = {name: values(source.split(name).images)[0] // 10 for name in source.splits}
    assert [starts[name] for name in ("train", "val", "test", "mixed_same", "only_bg_t")] == [0, 1, 4, 5, 11]
    split = source.split("mixed_rand")
    assert split.labels.tolist() == list(range(9))
    assert split.attributes is None
    assert split.names is not None
    assert split.names[2] == "bg_challenge/mixed_rand/val/02_wheeled vehicle/n01.JPEG"
    original = ImageNet9(str(tmp_path), train_set="original", size=6)
    assert values(original.split("train").images)[0] == 20


def test_all_variants_are_evaluated_and_give_the_gap(tmp_path):
    source = ImageNet9(str(images(tmp_path)), variants=("mixed_same", "mixed_rand"), size=6)
    data = Data(source, seed=0)
    assert data.evaluation_splits == ("val", "test", "mixed_same", "mixed_rand")
    measured = {"test/accuracy": 0.964, "mixed_same/accuracy": 0.898, "mixed_rand/accuracy": 0.756}
    assert data.derived_metrics(measured) == pytest.approx({"test/bg_gap": 0.142})
    assert source.derived_metrics({"mixed_same/accuracy": 0.9}) == {}
    assert data.group_counts("test") is None


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"in9l/train does not exist; expected in9l/{train,val}"):
        ImageNet9(str(tmp_path / "nowhere")).split("train")
    with pytest.raises(ConfigError, match="no mixed; there is mixed_same"):
        ImageNet9(str(tmp_path), variants=("mixed",))
    with pytest.raises(ConfigError, match="must be in9l or original"):
        ImageNet9(str(tmp_path), train_set="in9")  # pyright: ignore[reportArgumentType]
    root = images(tmp_path)
    with pytest.raises(ConfigError, match="not 'no_fg'"):
        ImageNet9(str(root), variants=()).split("no_fg")
    (root / "in9l/train/08_fish").rename(root / "in9l/train/08_fisch")
    with pytest.raises(DataError, match=r"2 class folder\(s\) differ:\n  08_fisch\n  08_fish"):
        ImageNet9(str(root)).split("train")
