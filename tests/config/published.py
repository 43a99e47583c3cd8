"""Settings of papers and official code, written out by hand without reading any YAML.

`TRAINING`: epochs, batch, optimizer, rate, decay and further keys of a setting, for every method without its own.
`VALUES`: what a method has of its own in a setting, keys of the configuration -> value. `SAYS`: where a run has to say
that a method has no values for the setting.
"""

from typing import Any

LABEL_NOISE = ("erm", "elr", "co_teaching", "crosssplit", "crosssplit_official")
PRUNING = (
    "demp", "dense", "random_pruning", "magnitude", "slimming", "snap", "snap/refreshed", "crop", "crop/refreshed",
    "crop_it", "crop_it/refreshed", "early_snap", "early_crop", "group_norm",
)  # fmt: skip
GROUPS = (
    "cobalt", "cobalt_image", "cobalt_shuffled", "cobalt/paper_literal", "erm", "erm_cb", "rwg", "subg", "groupdro",
    "jtt", "dfr", "dfr/train", "spectral_decoupling",
)  # fmt: skip
FAMILIES = {"crosssplit": LABEL_NOISE, "demp": PRUNING, "cobalt": GROUPS}
"""The methods that fit the experiments of each folder: those of the same task."""

_SETTINGS = {
    "crosssplit/cifar10_sym50_cpu": "cifar10_cpu", "crosssplit/cifar100": "cifar100", "crosssplit/cifar10": "cifar10",
    "crosssplit/official_code": "cifar10", "crosssplit/tiny_imagenet": "tiny_imagenet",
    "crosssplit/mini_webvision": "mini_webvision", "crosssplit/digits_sym50": "none",
    "cobalt/waterbirds": "waterbirds", "cobalt/celeba": "celeba", "cobalt/imagenet9": "imagenet9",
    "cobalt/digits_bg_tiny": "digits_bg_tiny", "cobalt/digits_bg": "digits_bg", "cobalt/digits_patch": "digits_patch",
    "cobalt/dominoes": "dominoes",
}  # fmt: skip


def setting_of(experiment: str) -> str:
    """Return the setting that an experiment stands for."""
    found = [start for start in _SETTINGS if experiment.startswith(start)]
    return _SETTINGS[max(found, key=len)] if found else experiment.removeprefix("demp/")


def training(epochs: int, batch: int, optimizer: str, lr: float, decay: float, **more: Any) -> dict[str, Any]:
    """Return the keys of a training; names of further keys are written with `__` for a dot."""
    keys = {"trainer.epochs": epochs, "trainer.batch_size": batch, "optimizer._target_": optimizer}
    keys |= {"optimizer.lr": lr, "optimizer.weight_decay": decay}
    return keys | {name.replace("__", "."): value for name, value in more.items()}


SGD, SGDW = "torch.optim.SGD", "timm.optim.SGDW"
ADAM, ADAMW = "torch.optim.Adam", "torch.optim.AdamW"
_COSINE = {"scheduler__schedule__T_max": "total", "scheduler__schedule__eta_min": 2e-3}

TRAINING: dict[str, dict[str, Any]] = {
    # CrossSplit's official code, defaults
    "cifar10": training(300, 256, SGD, 0.1, 5e-4, trainer__precision="fp32", **_COSINE),
    "cifar100": training(300, 256, SGD, 0.1, 5e-4, trainer__precision="fp32", **_COSINE),
    # UNICON's code; CrossSplit's own values are not known
    "tiny_imagenet": training(500, 64, SGD, 0.005, 5e-4, scheduler__schedule__milestones=[200, 400]),
    "mini_webvision": training(120, 24, SGD, 0.01, 1e-4, scheduler__schedule__milestones=[60]),
    # DemP authors' scripts; label smoothing belongs to the recipe, not to DemP
    "cifar10_resnet18_sgd": training(250, 128, SGDW, 0.1, 5e-4, method__label_smoothing=0.0),
    "cifar10_resnet18_adamw": training(250, 128, ADAMW, 5e-3, 5e-4, method__label_smoothing=0.0),
    "cifar10_vgg16_sgd": training(80, 256, SGDW, 0.1, 5e-4, method__label_smoothing=0.0),
    "cifar10_vgg16_adamw": training(80, 256, ADAMW, 5e-3, 5e-4, method__label_smoothing=0.0),
    "imagenet_resnet50": training(100, 256, SGDW, 0.1, 1e-4, method__label_smoothing=0.1),
    "imagenet_vit_b16": training(300, 4096, ADAMW, 3e-3, 0.3, method__label_smoothing=0.11),
    "mnist_mlp": training(67, 256, ADAM, 0.01, 0.0),
    # the strongly regularised corner of GroupDRO's and CoBalT's runs
    "waterbirds": training(300, 128, SGD, 1e-4, 0.1),
    "celeba": training(50, 128, SGD, 1e-4, 0.1),
    # ours
    "cifar10_cpu": {}, "digits": training(40, 64, SGD, 0.1, 5e-4), "digits_smoke": training(13, 64, SGD, 0.1, 5e-4),
    "none": training(60, 64, SGD, 0.05, 5e-4), "imagenet9": training(60, 128, SGD, 1e-4, 0.1),
    "digits_bg": training(10, 128, SGD, 0.05, 5e-4), "digits_bg_tiny": training(15, 64, SGD, 0.03, 5e-4),
    "dominoes": training(15, 128, SGD, 0.05, 5e-4), "digits_patch": training(10, 128, SGD, 0.05, 5e-4),
}  # fmt: skip


def _crosssplit(warmup: int, alpha: float = 4.0, lambda_u: float = 30.0) -> dict[str, Any]:
    keys = {"method.warmup.epochs": warmup, "method.mixup.alpha": alpha, "method.loss.lambda_u": lambda_u}
    keys |= {"method.mixup.strong": 1.0, "method.gamma.delta": 10}
    return keys | {"method.loss.lambda_c": 0.025, "method.loss.tau": 0.05, "method.loss.ramp_epochs": 16}


_AUTO = {
    f"method.{key}": "auto"
    for key in ("warmup.epochs", "warmup.data", "gamma.delta", "mixup.alpha", "mixup.strong", "loss.lambda_u")
}


def _official(warmup: int) -> dict[str, Any]:
    keys = {"trainer.epochs": 301, "trainer.precision": "fp32", "scheduler.schedule.T_max": 300}
    return _crosssplit(warmup) | keys | {"method.split.disjoint": False, "method.warmup.data": "full"}


def _elr(strength: float, momentum: float) -> dict[str, Any]:
    return {"method.strength": strength, "method.momentum": momentum}


def _demp(peak: float, span: float, every: int) -> dict[str, Any]:
    return {"method.reg.peak": peak, "method.reg.span": span, "method.surgery.every": every}


def _small(epochs: int, codes: int) -> dict[str, Any]:
    keys = {"method.discover.epochs": epochs, "method.discover.lr": 1e-3, "method.discover.weight_decay": 1e-5}
    return keys | {"method.dictionary.codes": codes, "method.slots.hidden": 96, "method.teacher.schedule": "cosine"}


def _fit(lr: float, decay: float, epochs: int, batch: int = 128) -> dict[str, Any]:
    return training(epochs, batch, SGD, lr, decay)


def _discover(epochs: int, exponent: float = 0.0) -> dict[str, Any]:
    keys = {"method.discover.epochs": epochs, "method.discover.lr": 2e-4, "method.discover.weight_decay": 5e-4}
    return keys | {"method.dictionary.codes": 8, "method.sampler.exponent": exponent}


def _jtt(epochs: int, up: int) -> dict[str, Any]:
    return {"method.identification.epochs": epochs, "method.up_weight": up}


COBALT = ("cobalt", "cobalt_image", "cobalt_shuffled")
VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": {"crosssplit": _crosssplit(10), "crosssplit_official": _official(10), "elr": _elr(3, 0.7)},
    "cifar100": {"crosssplit": _crosssplit(30), "crosssplit_official": _official(30), "elr": _elr(7, 0.9)},
    "tiny_imagenet": {name: _crosssplit(15, 0.5, 50.0) for name in ("crosssplit", "crosssplit_official")},
    "mini_webvision": {
        "elr": _elr(3, 0.7), **{name: _crosssplit(2, 0.5, 0.0) for name in ("crosssplit", "crosssplit_official")}
    },
    "cifar10_cpu": {"crosssplit": _AUTO, "crosssplit_official": _crosssplit(10), "demp": _demp(0.01, 0.5, 50)},
    "none": {"crosssplit": _AUTO, "crosssplit_official": _crosssplit(10), "elr": _elr(3, 0.7)},
    "cifar10_resnet18_sgd": {"demp": _demp(0.03, 85000, 5000), "slimming": {"method.strength": 1e-5}},
    "cifar10_resnet18_adamw": {"demp": _demp(0.01, 85000, 5000), "slimming": {"method.strength": 1e-5}},
    "cifar10_vgg16_sgd": {"demp": _demp(0.005, 15625, 1000), "slimming": {"method.strength": 1e-4}},
    "cifar10_vgg16_adamw": {"demp": _demp(0.001, 15625, 1000), "slimming": {"method.strength": 1e-4}},
    "imagenet_resnet50": {"demp": _demp(3e-4, 150000, 5000)},
    "imagenet_vit_b16": {"demp": {"method.reg.peak": 1e-3, "method.surgery.every": 5000}},
    "mnist_mlp": {"demp": _demp(1e-3, 0.8, 1000) | {"method.reg.kind": "l2", "method.noise.std": 0.0}},
    "digits": {"demp": _demp(0.07, 0.5, 50)},
    "digits_smoke": {"demp": {"method.reg.peak": 0.05, "method.surgery.every": 50, "method.noise.mask": "all"}},
    "waterbirds": {
        **{name: _discover(50) | _fit(1e-4, 0.1, 300) for name in COBALT},
        "cobalt/paper_literal": _discover(50, 2.0) | _fit(1e-4, 0.1, 300),
        "erm": _fit(1e-3, 1e-4, 300), "erm_cb": _fit(1e-3, 1e-4, 300),
        **{name: _fit(1e-4, 0.1, 300) for name in ("groupdro", "rwg", "subg")},
        "jtt": _fit(1e-5, 1.0, 300) | _jtt(60, 100),
        "dfr": _fit(1e-3, 1e-3, 100, 32), "dfr/train": _fit(1e-3, 1e-3, 100, 32),
        "spectral_decoupling": training(300, 128, ADAM, 1e-4, 0.0),
    },
    "celeba": {
        **{name: _discover(20) | _fit(1e-4, 0.1, 60) for name in COBALT},
        "cobalt/paper_literal": _discover(20, 1.0) | _fit(1e-4, 0.1, 60),
        "erm": _fit(1e-4, 1e-4, 50), "erm_cb": _fit(1e-4, 1e-4, 50),
        **{name: _fit(1e-4, 0.01, 50) for name in ("groupdro", "rwg", "subg")},
        "jtt": _fit(1e-5, 0.1, 50) | _jtt(1, 50),
        "dfr": _fit(1e-3, 1e-4, 50), "dfr/train": _fit(1e-3, 1e-4, 50),
        "spectral_decoupling": training(50, 128, ADAM, 1e-5, 0.0, method__coefficient=0.1),
    },
    "imagenet9": {name: _discover(20) for name in COBALT},
    "digits_bg": {name: _small(8, 8) for name in COBALT},
    "digits_bg_tiny": {name: _small(8, 6) for name in COBALT},
    "dominoes": {name: _small(8, 64) for name in COBALT},
    "digits_patch": {name: _small(8, 32) | {"method.slots.count": 8} for name in COBALT},
}  # fmt: skip
for _name in ("imagenet9", "digits_bg", "digits_bg_tiny", "digits_patch", "dominoes"):
    VALUES[_name]["spectral_decoupling"] = {"optimizer.weight_decay": 0.0}  # the penalty takes its place, on any data
    VALUES[_name]["jtt"] = _jtt(1, 50)

ASYMMETRIC_CIFAR10 = {"elr": _elr(1, 0.9)}
"""What takes the place of `VALUES["cifar10"]` with asymmetric noise."""

SAYS: dict[str, set[str]] = {
    "none": {"crosssplit_official", "elr"},
    "tiny_imagenet": {"elr"}, "cifar10_cpu": {"crosssplit_official", "elr", "slimming"},
    **{name: {"slimming"} for name in ("imagenet_resnet50", "imagenet_vit_b16", "mnist_mlp", "digits", "digits_smoke")},
    "waterbirds": {"spectral_decoupling"},
    **{
        name: {"groupdro", "jtt", "dfr", "dfr/train", "spectral_decoupling"}
        for name in ("imagenet9", "digits_bg", "digits_bg_tiny", "digits_patch", "dominoes")
    },
}  # fmt: skip
