"""Values of the recipes that a table's numbers hang on."""

import pytest

from robustlab.config.compose import compose


def test_the_released_codes_profile():
    cfg = compose(["experiment=crosssplit/official_code"])
    method = cfg.method
    assert (method.split.disjoint, method.warmup.data) == (False, "full")
    assert (method.jsd.extrema_scope, method.jsd.extrema_bn) == ("full", "as_is")
    assert (cfg.trainer.epochs, cfg.scheduler.schedule.T_max) == (301, 300)
    assert (cfg.optimizer.lr, cfg.scheduler.schedule.eta_min) == (0.1, 2e-3)


@pytest.mark.parametrize(("dataset", "warmup"), [("cifar10", 10), ("cifar100", 30)])
def test_the_papers_grid(dataset, warmup):
    for setting, rate in (("sym20", 0.2), ("sym90", 0.9), ("asym10", 0.1), ("asym40", 0.4)):
        cfg = compose([f"experiment=crosssplit/{dataset}_{setting}"])
        assert cfg.noise.model.rate == rate
        assert cfg.noise.name.startswith("symmetric" if setting.startswith("sym") else f"asymmetric_{dataset}")
        assert cfg.method.warmup.epochs == warmup
        assert cfg.method.split.disjoint is True
        assert (cfg.method.loss.lambda_u, cfg.method.loss.lambda_c, cfg.method.loss.tau) == (30, 0.025, 0.05)
        assert (cfg.trainer.epochs, cfg.trainer.batch_size) == (300, 256)
        optimizer = cfg.optimizer
        assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.1, 0.9, 5e-4)
        assert cfg.model.name == "preact_resnet18"
