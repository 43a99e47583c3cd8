"""The line about training labels that is printed before the first step."""

import numpy as np
import torch
from tests.data.toy_source import Toy

from robustlab.config.compose import compose
from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.engine.build_data import build_data
from robustlab.tracking.noise_line import noise_line


def line(*overrides: str) -> str:
    data = build_data(compose(["method=erm", *overrides]), Runtime(torch.device("cpu")))
    return noise_line(data.noise_record(), samples=len(data.train_indices))


def test_clean_labels_are_called_clean():
    assert line("noise=none") == "training labels: clean (noise=none)"


def test_the_true_rate_stands_beside_the_nominal_one_and_counts_what_is_trained_on():
    found = line("noise=symmetric", "noise.model.rate=0.5")
    assert found == ("training labels: noise=symmetric (nominal rate 50.0 %); 652 of 1,438 labels are wrong (45.3 %)")
    assert "of 60 labels are wrong" in line("noise=symmetric", "dataset.subset=60")
    assert "of 1,295 labels are wrong" in line("noise=symmetric", "dataset.val_fraction=0.1")


def test_labels_of_a_file_have_no_nominal_rate_and_are_counted_even_if_none_is_wrong(tmp_path):
    right = build_data(compose(["method=erm", "noise=none"]), Runtime(torch.device("cpu"))).assigned.numpy()
    wrong = right.copy()
    wrong[:3] = (wrong[:3] + 1) % 10
    for labels, count in ((right, "0"), (wrong, "3")):
        np.save(tmp_path / "labels.npy", labels)
        found = line("noise=file", f"noise.model.file={tmp_path / 'labels.npy'}")
        assert found.startswith(f"training labels: noise=file; {count} of 1,438 labels are wrong (0.")


def test_where_true_labels_are_not_known_it_says_so():
    data = Data(Toy(clean=False), seed=0, views={"weak": []})
    wanted = "training labels: noise=none; it is unknown how many of the 40 labels are wrong"
    assert noise_line(data.noise_record(), samples=len(data.train_indices)) == wanted
