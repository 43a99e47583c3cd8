"""Values of the recipes that a table's numbers hang on."""

import pytest
import torch
from omegaconf import OmegaConf

from robustlab.config.build import build
from robustlab.config.compose import compose, expand
from robustlab.config.hydra_session import conf_dir
from robustlab.core.runtime import Runtime
from robustlab.engine.learner import Learner
from robustlab.engine.lr_schedule import arguments


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


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "optimizer", "lr", "decay", "span", "every"),
    [
        ("cifar10_resnet18_sgd", 250, 128, "SGDW", 0.1, 5e-4, 85000, 5000),
        ("cifar10_resnet18_adamw", 250, 128, "AdamW", 5e-3, 5e-4, 85000, 5000),
        ("cifar10_vgg16_sgd", 80, 256, "SGDW", 0.1, 5e-4, 15625, 1000),
        ("cifar10_vgg16_adamw", 80, 256, "AdamW", 5e-3, 5e-4, 15625, 1000),
        ("imagenet_resnet50", 100, 256, "SGDW", 0.1, 1e-4, 150000, 5000),
    ],
)
def test_the_settings_of_demp(name, epochs, batch, optimizer, lr, decay, span, every):
    cfg = compose([f"experiment=demp/{name}"])
    method = cfg.method
    assert (cfg.trainer.epochs, cfg.trainer.batch_size) == (epochs, batch)
    assert cfg.optimizer._target_.endswith(f".{optimizer}")
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (lr, decay)
    assert (method.reg.kind, method.reg.target, method.reg.schedule) == ("l1", "scale_only", "one_cycle")
    assert (method.reg.span, method.surgery.every, method.noise.std) == (span, every, 5e-5)
    assert method.label_smoothing == (0.1 if "imagenet" in name else 0.0)


@pytest.mark.parametrize(
    ("name", "points", "lowest", "highest"),
    [
        ("cifar10_resnet18_sgd", 6, 0.01, 0.1),
        ("cifar10_resnet18_adamw", 25, 0.0, 0.15),
        ("cifar10_vgg16_sgd", 16, 0.0, 0.0125),
        ("cifar10_vgg16_adamw", 11, 0.0, 0.01),
    ],
)
def test_the_sweeps_of_demp(name, points, lowest, highest):
    text = (conf_dir() / "experiment" / "demp" / "sweep" / f"{name}.yaml").read_text()
    values = OmegaConf.create(text).hydra.sweeper.params["method.reg.peak"]
    peaks = [float(part.split("=")[1]) for (part,) in expand([f"method.reg.peak={values}"])]
    assert (len(peaks), peaks[0], peaks[-1]) == (points, lowest, highest)
    assert peaks == sorted(peaks)


def test_the_learning_rates_of_demp_on_imagenet():
    cfg = compose(["experiment=demp/imagenet_resnet50"])
    weight = torch.nn.Parameter(torch.zeros(1))
    learner = Learner(
        torch.nn.Linear(1, 1),
        runtime=Runtime(torch.device("cpu")),
        optimizer=lambda _: build(cfg.optimizer)([weight]),
        scheduler=build(arguments(cfg.scheduler.schedule, interval=cfg.scheduler.interval, updates=[5005] * 100)),
        interval=cfg.scheduler.interval,
    )
    wanted = {0: 1e-6, 12512: 0.05, 25025: 0.1, 150149: 0.1, 150150: 0.01, 350350: 1e-3, 450450: 1e-4, 500499: 1e-4}
    for update, rate in wanted.items():
        if update:
            learner.scheduler.step_update(update)  # type: ignore[union-attr]  what the learner does before this update
        assert learner.lr == pytest.approx(rate, rel=1e-3), update


CLASSIFIERS = {
    "waterbirds": (1e-4, 0.1, 300, 128),
    "waterbirds_paper_literal": (1e-4, 0.1, 300, 128),
    "waterbirds_erm": (1e-3, 1e-4, 300, 128),
    "waterbirds_jtt": (1e-5, 1.0, 300, 128),
    "waterbirds_dfr": (1e-3, 1e-3, 100, 32),
    "celeba": (1e-4, 0.1, 60, 128),
    "celeba_paper_literal": (1e-4, 0.1, 60, 128),
    "celeba_erm": (1e-4, 1e-4, 50, 128),
    "celeba_jtt": (1e-5, 0.1, 50, 128),
    "celeba_dfr": (1e-3, 1e-4, 50, 128),
}
"""Rate, decay, epochs and batch of the classifiers on Waterbirds and CelebA."""


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_of_spurious_correlations(name):
    cfg = compose([f"experiment=cobalt/{name}"])
    found = (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.trainer.epochs, cfg.trainer.batch_size)
    assert found == CLASSIFIERS[name]
    assert cfg.model.pretrained is True
    assert list(cfg.trainer.selection) == ["last", "avg", "ig", "hg"]
    if name.endswith("jtt"):
        settings = (cfg.method.identification.epochs, cfg.method.up_weight)
        assert settings == ((60, 100) if "waterbirds" in name else (1, 50))


@pytest.mark.parametrize(
    ("name", "epochs", "exponent"),
    [("waterbirds", 50, 0), ("waterbirds_paper_literal", 50, 2), ("celeba", 20, 0), ("celeba_paper_literal", 20, 1)],
)
def test_concept_discovery_on_photographs(name, epochs, exponent):
    method = compose([f"experiment=cobalt/{name}"]).method
    assert (method.discover.epochs, method.discover.lr, method.discover.weight_decay) == (epochs, 2e-4, 5e-4)
    assert (method.slots.count, method.slots.dim, method.dictionary.codes) == (4, 32, 8)
    assert tuple(method.temperature.values()) == (0.1, 0.07, 0.2)
    assert (method.teacher.momentum, method.dictionary.momentum, method.teacher.centre_momentum) == (0.99, 0.9, 0.9)
    assert (method.sampler.parametrisation, method.sampler.exponent) == ("class", exponent)


CROSSSPLIT = sorted(path.stem for path in (conf_dir() / "experiment" / "crosssplit").glob("[a-z]*.yaml"))


@pytest.mark.parametrize("name", CROSSSPLIT)
def test_networks_compute_in_float32_as_the_official_code_does_unless_asked(name):
    assert compose([f"experiment=crosssplit/{name}"]).trainer.precision == "fp32"
    fixed = name in ("official_code", "cifar10_sym50_cpu")
    on_gpu = compose([f"experiment=crosssplit/{name}", "trainer=gpu"])
    assert on_gpu.trainer.precision == ("fp32" if fixed else "bf16")


def test_float32_is_the_default():
    assert compose([]).trainer.precision == "fp32"
    assert compose(["trainer=gpu"]).trainer.precision == "bf16"
