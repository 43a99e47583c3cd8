"""UrbanCars: eight folders, three ways to name the shortcut, the benchmark's gaps."""

from itertools import product
from pathlib import Path

import pytest

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.sources.group_tables import count
from robustlab.data.sources.urbancars import UrbanCars
from tests.data.fixtures import picture, values

KINDS = ("urban", "country")
FOLDERS = {
    "train": "bg-0.95_co_occur_obj-0.95/train",
    "val": "bg-0.5_co_occur_obj-0.5/val",
    "test": "bg-0.5_co_occur_obj-0.5/test",
}


def cars(root: Path) -> Path:
    for split, folder in FOLDERS.items():
        for value, (obj, bg, co) in enumerate(product(KINDS, repeat=3)):
            cell = root / folder / f"obj-{obj}_bg-{bg}_co_occur_obj-{co}"
            for number in range(1 + value if split == "train" else 1):
                picture(cell / f"{number:03d}.jpg", value)
                picture(cell / f"{number:03d}_mask.png", 200)
    return root


@pytest.mark.parametrize(
    ("group_label", "attributes"),
    [("bg", [0, 0, 1, 1] * 2), ("co_occur_obj", [0, 1] * 4), ("both", [0, 1, 2, 3] * 2)],
)
def test_groups_by_folder(tmp_path, group_label, attributes):
    source = UrbanCars(str(cars(tmp_path)), group_label=group_label, size=6)
    val = source.split("val")
    assert values(val.images) == list(range(8))  # without the masks
    assert val.labels.tolist() == [0] * 4 + [1] * 4
    assert val.attributes is not None
    assert val.attributes.tolist() == attributes
    assert source.task.num_groups == (8 if group_label == "both" else 4)
    assert len(source.split("train").labels) == 36


def test_published_counts(tmp_path):
    """3,610, 190, 190 and 10 images of a class where both shortcuts agree, one does, or none."""
    both = UrbanCars(str(tmp_path)).expected
    assert both["train"] == ((3610, 190, 190, 10), (10, 190, 190, 3610))
    assert both["test"] == ((125,) * 4,) * 2
    assert UrbanCars(str(tmp_path), group_label="bg").expected["train"] == ((3800, 200), (200, 3800))
    assert UrbanCars(str(tmp_path), group_label="co_occur_obj").expected["val"] == ((250, 250),) * 2
    source = UrbanCars(str(cars(tmp_path)), size=6)
    assert count(source.split("train"), source.task) == ((1, 2, 3, 4), (5, 6, 7, 8))


def test_gaps(tmp_path):
    source = UrbanCars(str(tmp_path))
    agree = {"both": 0.99, "bg": 0.8, "co": 0.9, "none": 0.5}  # accuracy where these shortcuts agree with the car
    measured = {}
    for (y, car), (b, bg), (c, co) in product(enumerate(KINDS), repeat=3):
        kind = "both" if b == c == y else "bg" if b == y else "co" if c == y else "none"
        # the classes differ by 0.1: their mean counts
        measured[f"test/group/{car}-{bg}_bg_{co}_obj"] = agree[kind] + (0.05 if y else -0.05)
    derived = source.derived_metrics(measured)
    within = 0.9025 * 0.99 + 0.0475 * 0.8 + 0.0475 * 0.9 + 0.0025 * 0.5
    assert derived == pytest.approx(
        {
            "test/id_accuracy": within,
            "test/bg_gap": 0.9 - within,
            "test/co_occur_obj_gap": 0.8 - within,
            "test/both_gap": 0.5 - within,
        }
    )
    measured.popitem()
    assert source.derived_metrics(measured) == {}


def test_metric_names_are_those_of_the_groups(tmp_path):
    source = UrbanCars(str(cars(tmp_path)), size=6)
    measured = {f"val/group/{name}": 1.0 for name in source.task.group_names}
    assert source.derived_metrics(measured)["val/id_accuracy"] == pytest.approx(1.0)
    plain = UrbanCars(str(tmp_path), group_label="bg", size=6)
    assert plain.derived_metrics({f"val/group/{name}": 1.0 for name in plain.task.group_names}) == {}


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match=r"bg-0\.95_co_occur_obj-0\.95/train does not exist; expected urbancars"):
        UrbanCars(str(tmp_path / "nowhere")).split("train")
    with pytest.raises(ConfigError, match="must be bg, co_occur_obj or both, not 'object'"):
        UrbanCars(str(tmp_path), group_label="object")  # pyright: ignore[reportArgumentType]
    root = cars(tmp_path)
    cell = f"{FOLDERS['val']}/obj-urban_bg-urban_co_occur_obj-country"
    (root / cell / "000.jpg").unlink()
    with pytest.raises(DataError, match=r"1 folder\(s\) without an image:\n  bg-0\.5"):
        UrbanCars(str(root)).split("train")
    (root / cell / "000_mask.png").unlink()
    (root / cell).rmdir()
    with pytest.raises(ConfigError, match="co_occur_obj-country does not exist"):
        UrbanCars(str(root)).split("train")
