"""The line announcing the baseline run (`compare`)."""

import pytest

from robustlab.config.baseline import compose_baseline
from robustlab.config.compose import compose
from robustlab.engine.run import compared_line

SETTING = ["experiment=crosssplit/cifar100_sym50", "compare=erm"]


@pytest.mark.parametrize(
    ("overrides", "differs"),
    [
        (["method=elr", "compare=erm"], ""),
        (["method=elr", "compare=erm", "trainer.epochs=3", "optimizer.lr=0.3"], ""),  # both runs have these
        ([*SETTING, "method=elr"], ""),
        ([*SETTING, "method=crosssplit_official"], ", except for its own training settings"),  # 301 epochs
    ],
)
def test_the_run_to_compare_with_is_announced_with_what_differs_beside_the_method(overrides, differs):
    cfg = compose(overrides)
    other, _ = compose_baseline(compose, cfg, overrides)
    wanted = f"Now running erm with the same settings{differs}, for comparison (compare=null turns this off)"
    assert compared_line(cfg, other) == wanted
