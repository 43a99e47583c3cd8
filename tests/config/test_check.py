"""The check finds all that is wrong, says it once, and lets right configurations through."""

import pytest
from omegaconf import OmegaConf

from robustlab.config.check import check, inspect, problems
from robustlab.config.compose import compose
from robustlab.config.rules import refuse_unwritable
from robustlab.core.errors import ConfigError, RunFolderError


def found(*overrides: str) -> list[str]:
    return problems(compose(overrides))


def test_the_default_is_right():
    assert found() == []


def test_all_errors_at_once_each_named():
    wrong = ["seed=abc", "optimizer.lr=fast", "+trainer.epoch=3", "+method.temprature=1", "noise.model.rate=x"]
    assert sorted(found(*wrong)) == [
        "method.temprature: CrossSplit has no argument 'temprature'; did you mean 'method.guess.temperature'?",
        "noise.model.rate: expected a number >= 0 and <= 1, got 'x'",
        "optimizer.lr: expected a number > 0 or null, got 'fast'",
        "seed: expected a whole number >= 0 and < 9223372036854775808, got 'abc'",
        "trainer.epoch: trainer has no key 'epoch'; did you mean 'epochs'?",
    ]
    with pytest.raises(ConfigError, match=r"^5 problems in the configuration:(\n  - [^\n]+){5}$"):
        check(compose(wrong))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=", "seed: expected a whole number >= 0"),
        ("seed=-1", "seed: expected a whole number >= 0"),
        ("seed=1.5", "seed: expected a whole number >= 0"),
        ("seed=1e400", "seed: expected a whole number >= 0"),
        ("seed=true", "seed: expected a whole number >= 0"),
        ("seed=null", "seed: expected a whole number >= 0"),
        ("seed=9223372036854775808", "seed: expected a whole number"),
        ("seed=???", "seed: required but not set"),
        ("optimizer.lr=-1", "optimizer.lr: expected a number > 0 or null, got -1"),
        ("optimizer.lr=nan", "optimizer.lr: expected a number > 0 or null, got nan"),
        ("optimizer.lr=inf", "optimizer.lr: expected a finite number, got inf"),
        ("optimizer.momentum=1", "optimizer.momentum: expected a number >= 0 and < 1 or null, got 1"),
        ("optimizer.nesterov=1", "optimizer.nesterov: expected true or false, got 1"),
        ("optimizer._partial_=false", "optimizer._partial_: expected true, got false"),
        ("+optimizer.params=[1]", "optimizer.params: set by the run itself"),
        ("+model.num_classes=3", "model.num_classes: set by the run itself"),
        ("trainer.epochs=0", "trainer.epochs: expected a whole number >= 1, got 0"),
        ("trainer.epochs=1e2", "trainer.epochs: expected a whole number >= 1, got 100.0"),
        ("trainer.epochs='3'", "trainer.epochs: expected a whole number >= 1, got '3' (text)"),
        ("trainer.device=cdua", "trainer.device: expected auto, cpu, cuda"),
        (
            "trainer.precision=fp61",
            "trainer.precision: expected one of auto, fp32, bf16, fp16, got 'fp61'; did you mean",
        ),
        ("trainer.channels_last=1", "trainer.channels_last: expected one of auto, true, false, got 1"),
        ("trainer.selection=[last,best]", "trainer.selection[1]: expected one of last"),
        ("trainer.selection=last", "trainer.selection: expected a list"),
        ("trainer.selection=[]", "trainer.selection: empty"),
        (
            "trainer.checkpoint=5",
            "trainer.checkpoint: expected a group with the keys every_seconds, every_steps, got 5",
        ),
        ("trainer.ema_decay=1", "trainer.ema_decay: expected a number > 0 and < 1"),
        ("dataset.val_fraction=1", "dataset.val_fraction: expected a number >= 0 and < 1"),
        ("dataset.storage=ram", "dataset.storage: expected one of resident, streaming"),
        ("dataset.source=digits", "dataset.source: expected a group with a _target_, got 'digits'"),
        ("dataset.views=null", "dataset.views: expected a group of keys"),
        ("dataset.views.weak=[1]", "dataset.views.weak[0]: expected a group with a _target_"),
        (
            "+dataset.views.weak.0.paddin=1",
            "dataset.views.weak[0].paddin: PadCrop has no argument 'paddin'; did you mean",
        ),
        ("scheduler.interval=batch", "scheduler.interval: expected one of epoch, step"),
        (
            "scheduler.schedule.T_max=total_epoch",
            "scheduler.schedule.T_max: expected a whole number, got 'total_epoch'",
        ),
        (
            "diagnostics.memorisation.every=often",
            "diagnostics.memorisation.every: expected a whole number >= 0, got 'often'",
        ),
        (
            "+method.warmup.epoch=3",
            "method.warmup.epoch: WarmupSettings has no argument 'epoch'; did you mean 'epochs'?",
        ),
        ("method._target_=robustlab.methods.erm.ERN", "method._target_: module 'robustlab.methods.erm' has no 'ERN'"),
        ("method._target_=3", "method._target_: expected"),
        (
            "optimizer._target_=torch.optim.SDG",
            "optimizer._target_: module 'torch.optim' has no 'SDG'; did you mean 'SGD'?",
        ),
        ("+lr=0.1", "lr: the configuration has no key 'lr'; did you mean 'optimizer.lr'?"),
        ("+sede=1", "sede: the configuration has no key 'sede'; did you mean 'seed'?"),
        ("~trainer.epochs", "trainer.epochs: missing, trainer needs it"),
        ("~noise", "noise: missing"),
        ("name=${nothing}", "name: Interpolation key 'nothing' not found"),
        ("tags=[1]", "tags[0]: expected a word, got 1"),
        ("tracker.wandb.mode=on", "tracker.wandb.mode: expected one of auto, online, offline, disabled"),
        ("paths.output_dir=''", "paths.output_dir: expected a path"),
        ('paths.output_dir="a\nb"', "paths.output_dir: expected a path, not empty and without control characters"),
        ("compare=crossplit", "compare: there is no method 'crossplit'; did you mean 'crosssplit'?"),
        ("trainer.selection=[best_noisy_val]", "trainer.selection: best_noisy_val needs a validation split"),
        ("method.warmup.epochs=60", "method.warmup.epochs: 60 warm-up epochs use up all of trainer.epochs=60"),
        ("noise=cifar10n", "noise=cifar10n is defined on the classes of cifar10, not on dataset=digits"),
        ("noise=asymmetric_cifar100", "noise=asymmetric_cifar100 is defined on the classes of cifar100"),
        ("paths.run_dir=../x", "paths.run_dir: ../x is not inside paths.output_dir=outputs"),
        ("paths.run_dir=outputs", "paths.run_dir: outputs is not inside"),
        ("paths.run_dir=outputs/../../x", "paths.run_dir: outputs/../../x is not inside"),
    ],
)
def test_one_thing_wrong_gives_one_message(override: str, expected: str):
    messages = found(override)
    assert len(messages) == 1, messages
    assert messages[0].startswith(expected)


def test_contradictions():
    assert found("trainer.precision=fp16", "trainer.device=cpu") == [
        "trainer.precision: fp16 does not train on the CPU; use fp32 or bf16, or another trainer.device"
    ]
    assert found("trainer.precision=fp16", "trainer.device=cuda") == []
    (message,) = found("features=frozen", "method=cobalt", "dataset=digits_bg", "noise=none")
    assert "stage 1 of CoBalT needs images" in message
    assert found("features=frozen", "method=cobalt", "dataset=digits_bg", "noise=none", "method.artifact=c.pt") == []
    assert found("trainer.selection=[best_noisy_val]", "dataset.val_fraction=0.1") == []
    assert found("noise=cifar10n", "dataset=cifar10") == []
    assert found("method.warmup.epochs=60", "trainer.epochs=61") == []


PRUNING = [
    "magnitude",
    "random_pruning",
    "slimming",
    "snap",
    "crop",
    "crop_it",
    "early_snap",
    "early_crop",
    "group_norm",
]


@pytest.mark.parametrize("method", PRUNING)
def test_methods_that_prune_once_take_one_target_by_three_measures(method):
    assert found(f"method={method}", "method.target.flops=0.8") == []
    (message,) = found(f"method={method}", "method.target.flops=0.8", "method.target.neurons=0.5")
    assert message.startswith("method.target: neurons=0.5 and flops=0.8 name 2 targets; give exactly one of")
    (message,) = found(f"method={method}", "method.target.parameters=1.0")
    assert message.startswith("method.target.parameters: expected a number >= 0 and < 1")
    (message,) = found(f"method={method}", "+method.target_neuron_sparsity=0.3")
    assert message.endswith("write method.target.neurons=0.3 instead")


def test_the_floor_of_a_penalty_fits_its_surgery():
    assert found("method=demp", "method.reg.floor=2", "method.surgery.min_width=2") == []
    (message,) = found("method=demp", "method.reg.floor=2", "method.surgery.min_width=3")
    assert message.startswith("method.reg.floor: 2 is below method.surgery.min_width=3")
    (message,) = found("method=demp", "method.reg.floor=2", "method.surgery.enabled=false")
    assert message.startswith("method.reg.floor: counts live units")
    assert found("method=demp", "method.reg.floor=0")[0].startswith("method.reg.floor: expected a whole number >= 1")


def test_words_for_totals_stand_only_in_schedules():
    assert found("scheduler=onecycle") == []
    assert found("trainer.epochs=total_epochs")[0].startswith("trainer.epochs: expected a whole number")


def test_missing_arguments_of_a_schedule_are_named_though_it_is_partial():
    assert found("~scheduler.schedule.T_max") == [
        "scheduler.schedule.T_max: missing, CosineAnnealingLR needs it; expected a whole number"
    ]


def test_output_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    settings, messages = inspect(compose([f"paths.output_dir={tmp_path}/file"]))
    assert messages == []
    with pytest.raises(RunFolderError, match=f"{tmp_path}/file is a file, not a folder; choose another place"):
        refuse_unwritable(settings)
    assert found(f"paths.output_dir={tmp_path}/{'x' * 300}")[0].startswith("paths.run_dir: a name in it exceeds")
    (tmp_path / "outside").symlink_to("/")
    cfg = [f"paths.output_dir={tmp_path}/o", f"paths.run_dir={tmp_path}/outside/x"]
    assert "is not inside" in found(*cfg)[0]
    assert found(f"paths.output_dir={tmp_path}/new/deep", "seed=1") == []
    assert {path.name for path in tmp_path.iterdir()} == {"file", "outside"}


def test_references_do_not_repeat_an_error():
    assert [message.partition(":")[0] for message in found("seed=x")] == ["seed"]


def leaves(node, where=""):
    for key, value in node.items():
        name = f"{where}.{key}" if where else key
        if isinstance(value, dict):
            yield from leaves(value, name)
        elif key != "_target_":
            yield name, value


@pytest.mark.parametrize("wrong", [{"nonsense": 1}, "a-word"])
def test_every_leaf_refuses_a_value_of_another_kind(wrong):
    """Fuzz: a group in the place of any leaf is wrong, and so is a word for a number or a switch."""
    cfg = compose()
    changed = []
    for name, value in leaves(OmegaConf.to_container(cfg, resolve=True)):
        if isinstance(wrong, dict) or isinstance(value, int | float):
            OmegaConf.update(cfg, name, wrong, merge=False, force_add=True)
            changed.append(name)
    named = {message.partition(": ")[0] for message in problems(cfg)}
    assert len(changed) > 50
    assert [name for name in changed if not named & {name, f"{name}.nonsense"}] == []


def test_further_arguments_of_a_library_may_be_anything():
    assert problems(compose(["model=timm", "+model.options={img_size: 32, act_layer: gelu}"])) == []
    assert problems(compose(["model=timm", "model.options=3"])) != []


@pytest.mark.parametrize("old", ["reseed_every=20", "usage_momentum=0.99"])
def test_what_replaces_a_setting_that_meant_something_else_is_named(old):
    (message,) = found("method=cobalt", f"+method.dictionary.{old}")
    assert message.endswith("write method.dictionary.reseed_after, a share of stage 1's updates (default 0.2)")
    (message,) = found("method=cobalt", "method.dictionary.reseed_after=20")
    assert message == "method.dictionary.reseed_after: expected a number > 0 and <= 1, got 20"
