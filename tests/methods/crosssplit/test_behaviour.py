"""CrossSplit works: ten Gaussian classes, half of the labels (or more) redrawn, against cross-entropy."""

import pytest

from robustlab.diagnostics.memorisation import Memorisation
from robustlab.engine.method import Method
from robustlab.methods.erm import ERM
from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit
from tests.methods.harness import Options, accuracy, make_context, make_data, run

OPTIONS = Options(lr=0.05, widths=(96, 96), proj_dim=64, cosine_to=1e-3)


def trained(method: Method, *, noise: float, seed: int) -> tuple[Method, dict[str, float]]:
    data = make_data(noise=noise, seed=seed, train=2000, test=4000, classes=10, dim=32, sigma=1.5)
    method.build(make_context(data, epochs=20, batch_size=128, seed=seed, options=OPTIONS))
    return method, run(method, diagnostics=[Memorisation()])[-1]


def crosssplit() -> CrossSplit:
    return CrossSplit(warmup={"epochs": 4}, gamma={"delta": 2}, proj_dim=64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("noise", "seed"),
    [(0.5, 0), pytest.param(0.5, 1, marks=pytest.mark.slow), pytest.param(0.8, 0, marks=pytest.mark.slow)],
)
def test_crosssplit_is_far_ahead_of_cross_entropy(noise, seed):
    plain, _ = trained(ERM(), noise=noise, seed=seed)
    split, last = trained(crosssplit(), noise=noise, seed=seed)
    assert accuracy(split) >= accuracy(plain) + 0.15
    assert last["diagnostics/beta_wrong"] - last["diagnostics/beta_right"] > 0.4
    assert last["diagnostics/divergence_auc"] > 0.9
    assert last["diagnostics/soft_label_accuracy"] > 0.85
    assert last["diagnostics/memorised_other"] < 0.1
