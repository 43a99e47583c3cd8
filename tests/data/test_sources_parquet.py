"""Parquet as on the Hub: layouts, detection of columns and classes, both storages, damage, and the real CIFAR-10."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import LazyImages
from robustlab.data.noise.human_labels import read_label_file
from robustlab.data.sources import parquet
from robustlab.data.sources.parquet import Parquet


def png(value: int, size: tuple[int, int] = (6, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: list[bytes | None], labels: list[int | None], **layout) -> None:
    """Write one shard; layout: image, label (column names), plain (bytes, not a struct), names (class names)."""
    cells = images if layout.get("plain") else [{"bytes": data, "path": None} for data in images]
    kind = pa.binary() if layout.get("plain") else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    label = layout.get("label", "label")
    table = pa.table({layout.get("image", "image"): pa.array(cells, kind), label: pa.array(labels, pa.int64())})
    if "names" in layout:
        features = {label: {"names": layout["names"], "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def birds(root: Path, **layout) -> Path:
    """Write 3 + 3 training images in two shards, the second written first, and 2 test images."""
    write(root / "data/train-00001-of-00002.parquet", [png(v) for v in (3, 4, 5)], [1, 0, 1], **layout)
    write(root / "data/train-00000-of-00002.parquet", [png(v) for v in (0, 1, 2)], [0, 1, 0], **layout)
    write(root / "data/test-00000-of-00001.parquet", [png(v) for v in (9, 8)], [1, 0], **layout)
    return root


def values(images: torch.Tensor | LazyImages) -> list[int]:
    if isinstance(images, torch.Tensor):
        return images[:, 0, 0, 0].tolist()
    return [int(images.decode(index)[0, 0, 0]) for index in range(len(images))]


@pytest.mark.parametrize("layout", [{}, {"plain": True}, {"image": "img", "label": "fine_label"}])
@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_layouts_of_the_hub(tmp_path, layout, storage):
    source = Parquet(str(birds(tmp_path / "birds", **layout)), storage=storage, cache_dir=str(tmp_path / "cache"))
    assert source.task.num_classes == 2
    assert source.task.image_shape == (3, 6, 6)
    train, test = source.split("train"), source.split("test")
    assert values(train.images) == [0, 1, 2, 3, 4, 5]
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert train.labels.dtype == torch.int64
    assert values(test.images) == [9, 8]


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    source = Parquet(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"no file matches \*\*/test-\*\.parquet"):
        source.split("test")


def test_class_names_come_from_the_schema(tmp_path):
    source = Parquet(str(birds(tmp_path, names=["owl", "wren", "kite"])))
    assert source.task.class_names == ("owl", "wren", "kite")
    with pytest.raises(DataError, match="no samples of class 2"):
        source.split("train")
    assert Parquet(str(tmp_path), num_classes=2).task.class_names == ()


def test_second_open_decodes_nothing_and_a_change_decodes_again(tmp_path, monkeypatch):
    root, cache = birds(tmp_path / "birds"), str(tmp_path / "cache")
    first = Parquet(str(root), size=6, cache_dir=cache).split("train").images
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "image_blocks", None)
        again = Parquet(str(root), size=6, cache_dir=cache).split("train").images
    assert isinstance(first, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert torch.equal(first, again)
    write(root / "data/train-00000-of-00002.parquet", [png(v) for v in (70, 71, 72)], [0, 1, 0])
    assert values(Parquet(str(root), size=6, cache_dir=cache).split("train").images) == [70, 71, 72, 3, 4, 5]


def test_streamed_images_travel_to_workers_by_name_and_survive_damage_of_the_cache(tmp_path):
    root, cache = birds(tmp_path / "birds"), tmp_path / "cache"
    source = Parquet(str(root), storage="streaming", cache_dir=str(cache))
    sent = pickle.dumps(source.split("train").images)
    assert len(sent) < 1000
    assert values(pickle.loads(sent)) == [0, 1, 2, 3, 4, 5]
    blob = next((cache / "parquet").glob("train-*.blob"))
    blob.write_bytes(blob.read_bytes()[:-1])
    assert values(source.split("train").images) == [0, 1, 2, 3, 4, 5]


def test_damaged_images_name_file_and_row(tmp_path):
    write(tmp_path / "train-0.parquet", [png(1), png(2)], [0, 1])
    write(tmp_path / "train-1.parquet", [b"text", png(3), None, png(4)[:40]], [0, 1, 0, 1])
    with pytest.raises(DataError) as caught:
        Parquet(str(tmp_path), cache_dir=str(tmp_path / "cache")).split("train")
    for part in ("3 damaged", "train-1.parquet row 0:", "train-1.parquet row 2:", "train-1.parquet row 3:"):
        assert part in str(caught.value)
    assert not list((tmp_path / "cache").glob("**/*.npy"))
    lazy = Parquet(str(tmp_path), storage="streaming", cache_dir=str(tmp_path / "cache")).split("train").images
    assert not isinstance(lazy, torch.Tensor)
    assert lazy.decode(3).shape == (3, 6, 6)
    with pytest.raises(DataError, match=r"train-1\.parquet row 2: no image bytes"):
        lazy.decode(4)


def test_sizes_must_agree_or_be_given(tmp_path):
    write(tmp_path / "train-0.parquet", [png(1), png(2, (8, 6))], [0, 1])
    with pytest.raises(ConfigError, match=r"row 1: 8x6"):
        Parquet(str(tmp_path)).split("train")
    images = Parquet(str(tmp_path), size=4).split("train").images
    assert isinstance(images, torch.Tensor)
    assert images.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image_column": "photo"}, ConfigError, "no column 'photo'; it has image, label; set dataset.source.image_"),
        ({"label_column": "class_id"}, ConfigError, "no column 'class_id'"),
        ({"label_column": "image"}, ConfigError, "not integer labels"),
        ({"num_classes": 1}, DataError, r"3 label\(s\) outside 0\.\.0, the first in row 1"),
        ({"train": "training-*.parquet"}, ConfigError, "it has data/test-00000-of-00001.parquet, data/train-00000"),
    ],
)
def test_wrong_settings_say_what_is_there(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        Parquet(str(birds(tmp_path)), **change).split("train")


def test_impossible_settings_are_refused_at_once():
    for change in ({"channels": 2}, {"size": 0}, {"storage": "cloud"}, {"mean": [0.5]}, {"storage": "streaming"}):
        with pytest.raises(ConfigError):
            Parquet("x", **change)  # pyright: ignore[reportArgumentType]


def test_missing_and_broken_shards(tmp_path):
    root = birds(tmp_path)
    (root / "data/train-00000-of-00002.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet: not a readable Parquet file"):
        Parquet(str(root)).split("train")
    (root / "data/train-00000-of-00002.parquet").unlink()
    with pytest.raises(ConfigError, match=r"1 shard\(s\) are missing:\n  train-00000-of-00002.parquet"):
        Parquet(str(root)).split("train")


def test_rows_without_label(tmp_path):
    write(tmp_path / "train-0.parquet", [png(1), png(2)], [0, None])
    with pytest.raises(DataError, match="row 1: no label"):
        Parquet(str(tmp_path)).split("train")


@pytest.mark.real_data
def test_cifar10(real_data, tmp_path, monkeypatch):
    def open_it() -> Parquet:
        return Parquet(str(real_data / "cifar10/plain_text"), num_classes=10, size=32, cache_dir=str(tmp_path))

    train, test = open_it().split("train"), open_it().split("test")
    assert isinstance(train.images, torch.Tensor)
    assert isinstance(test.images, torch.Tensor)
    assert train.images.shape == (50000, 3, 32, 32)
    assert test.images.shape == (10000, 3, 32, 32)
    human = read_label_file(real_data / "cifar10n/CIFAR-10_human.pt")
    assert np.array_equal(train.labels.numpy(), human["clean_label"])
    monkeypatch.setattr(parquet, "image_blocks", None)  # a second open may not decode
    again = open_it().split("train").images
    assert isinstance(again, torch.Tensor)
    assert torch.equal(again[::997], train.images[::997])
