import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.noise.human_labels import HumanLabels

CLEAN = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3)
WORSE = np.roll(CLEAN, 1)


def write(path: Path, content: object) -> str:
    """Write a file in the format of the published ones: a pickle of NumPy arrays in torch's archive."""
    torch.save(content, path)
    return str(path)


def read(file: str, key: str = "worse_label", clean: np.ndarray = CLEAN, **clean_key: str) -> torch.Tensor:
    generator = np.random.default_rng(0)
    model = HumanLabels(file=file, key=key, **clean_key)
    return model.apply(torch.from_numpy(clean), num_classes=10, generator=generator, images=None)


@pytest.fixture
def published(tmp_path: Path) -> str:
    content = {"clean_label": CLEAN, "worse_label": WORSE, "coarse": [int(label) for label in WORSE]}
    return write(tmp_path / "human.pt", content)


def test_labels_are_read_by_key(published: str) -> None:
    assert torch.equal(read(published), torch.from_numpy(WORSE))
    assert torch.equal(read(published, "coarse"), torch.from_numpy(WORSE))
    with pytest.raises(ConfigError, match="no entry 'worst_label'; it has clean_label, worse_label, coarse"):
        read(published, "worst_label")


def test_another_order_or_data_set_is_refused(published: str) -> None:
    swapped = CLEAN.copy()
    swapped[[4, 7]] = swapped[[7, 4]]
    with pytest.raises(ConfigError, match=r"differs .* in 2 of 30 samples, first in row 4 \(4, not 7\)"):
        read(published, clean=swapped)
    with pytest.raises(ConfigError, match="has 30 labels, but the training split has 20 samples"):
        read(published, clean=CLEAN[:20])


class Malicious:
    """A pickle that creates a file when it is loaded the careless way."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return Path.touch, (self.sentinel,)


@pytest.mark.parametrize("hidden_in", ["dictionary", "array", "legacy"])
def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path, hidden_in: str) -> None:
    sentinel, path = tmp_path / "touched", tmp_path / "human.pt"
    evil = Malicious(sentinel)
    if hidden_in == "legacy":
        path.write_bytes(pickle.dumps({"clean_label": CLEAN, "worse_label": evil}))
    else:
        content = evil if hidden_in == "dictionary" else np.array([evil], dtype=object)
        write(path, {"clean_label": CLEAN, "worse_label": content})
    with pytest.raises(DataError, match="contains more than arrays of numbers"):
        read(str(path))
    assert not sentinel.exists()
    torch.load(path, weights_only=False) if hidden_in != "legacy" else pickle.loads(path.read_bytes())
    assert sentinel.exists()  # the file was a real attack


def test_missing_and_damaged_files_are_reported(tmp_path: Path, published: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no label file .*absent\.pt; download it"):
        read(str(tmp_path / "absent.pt"))
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(Path(published).read_bytes()[:300])
    with pytest.raises(DataError, match="is damaged"):
        read(str(truncated))
    empty = tmp_path / "empty.pt"
    empty.touch()
    with pytest.raises(DataError, match="is damaged"):
        read(str(empty))
    with pytest.raises(DataError, match="contains a list, not a dictionary"):
        read(write(tmp_path / "list.pt", [1, 2]))
    with pytest.raises(DataError, match="one integer per sample"):
        read(write(tmp_path / "float.pt", {"clean_label": CLEAN, "worse_label": WORSE / 2}))


@pytest.mark.real_data
def test_published_counts_of_cifar10n(real_data: Path) -> None:
    file = str(real_data / "cifar10n" / "CIFAR-10_human.pt")
    clean = read_clean(file)
    counts = {
        key: int((read(file, key, clean) != torch.from_numpy(clean)).sum())
        for key in ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")
    }
    assert counts == {
        "aggre_label": 4505,
        "random_label1": 8617,
        "random_label2": 9061,
        "random_label3": 8820,
        "worse_label": 20104,
    }


def read_clean(file: str) -> np.ndarray:
    from robustlab.data.noise.human_labels import read_label_file

    return np.asarray(read_label_file(Path(file))["clean_label"])
