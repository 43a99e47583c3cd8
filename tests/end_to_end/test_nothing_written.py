"""A command that cannot work leaves nothing behind: no outputs, no run folder, no cache, no W&B run, no data folder."""

from pathlib import Path

import pytest

from robustlab.train import main

SHORT = ["trainer.max_steps=1", "trainer.threads=1"]

REFUSED = {
    # method
    "groups for a method": (["method=groupdro"], "method=groupdro needs groups, which dataset=digits does not provide"),
    "groups for DFR": (["method=dfr"], "method=dfr needs groups"),
    "groups for reweighting": (["method=rwg"], "method=rwg needs groups"),
    "groups for a comparison": (["method=erm", "compare=groupdro"], "compare=groupdro (compare=null leaves it out): "),
    "label smoothing": (["method=erm", "method.label_smoothing=2"], "label_smoothing"),
    "warm-up": (["method=crosssplit", "method.warmup.epochs=1", "trainer.epochs=1"], "use up all of trainer.epochs=1"),
    "batch of half the data": (["method=crosssplit", "trainer.epochs=12", "trainer.batch_size=900"], "lower"),
    "pruning target": (["method=random_pruning", "method.target_neuron_sparsity=0.999"], "target_neuron_sparsity"),
    "pruning a network without units": (
        ["method=demp", "model=torchvision", "model.architecture=squeezenet1_1"], "train: "
    ),
    "CoBalT without its artifact": (["method=cobalt", "method.artifact=nowhere/concepts.pt"], "nowhere/concepts.pt"),
    "folded constants": (
        ["method=demp", "method.surgery.fold_constants=true", "method.death.mode=sum"],
        "method.surgery.fold_constants=true",
    ),
    # data
    "data that is not there": (["dataset=cifar10", "dataset.source.download=false"], "put cifar-10-python.tar.gz"),
    "folder of images": (["dataset=image_folder"], "image_folder"),
    "Parquet files": (["dataset=cifar10_parquet"], "cifar10"),
    "table of groups": (["dataset=waterbirds", "method=groupdro"], "waterbird_complete95_forest2water2"),
    "groups of data that is not there": (["dataset=celeba", "method=groupdro"], "celeba"),
    "too large a subset": (["dataset.subset=100000"], "subset"),
    "validation beside one's own": (["dataset=digits_bg/embedded", "dataset.val_fraction=0.1"], "validation split"),
    "mean of another length": (["dataset.source.mean=[0.1,0.2,0.3]"], "dataset.source.mean: expected 1 number(s)"),
    "std of another length": (["dataset.source.std=[0.1,0.2]"], "dataset.source.std: expected 1 number(s)"),
    "std of zero": (["dataset.source.std=[0.0]"], "dataset.source.std"),
    "decode without workers": (
        ["dataset.decode={train: {_target_: robustlab.data.transforms.decode.ResizeCenterCrop, resize: 8, size: 8}, "
         "eval: {_target_: robustlab.data.transforms.decode.ResizeCenterCrop, resize: 8, size: 8}}"],
        "dataset.storage=streaming",
    ),
    "random test view": (
        ["+dataset.views.test=[{_target_: robustlab.data.transforms.augment.Flip, probability: 0.5}]"],
        "dataset.views.test must give the same images every time",
    ),
    "crop larger than the image": (
        ["+dataset.views.test=[{_target_: robustlab.data.transforms.resample.CenterCrop, size: 64}]"],
        "train: ",
    ),
    # noise
    "file of labels": (["noise=file", "noise.model.file=nowhere.npz"], "nowhere.npz"),
    "noise of other classes": (["noise=cifar10n"], "defined on the classes of cifar10"),
    "noise on noisy labels": (["dataset=cmnist_irm", "noise=symmetric"], "train: "),
    "rate out of range": (["noise=symmetric", "noise.model.rate=1.5"], "noise.model.rate"),
    # model
    "model of another image size": (["method=erm", "model=vit_b16"], "train: "),
    "model unknown to timm": (["model=timm", "model.architecture=no_such_model"], "no_such_model"),
    "model unknown to torchvision": (["model=torchvision", "model.architecture=no_such_model"], "no_such_model"),
    "weights for features": (["features=frozen", "features.weights=nowhere.safetensors"], "nowhere.safetensors"),
    # optimizer, scheduler, trainer
    "Nesterov without momentum": (["optimizer.nesterov=true", "optimizer.momentum=0"], "Nesterov"),
    "negative rate": (["optimizer.lr=-1"], "optimizer.lr"),
    "LBFGS": (["optimizer._target_=torch.optim.LBFGS", "~optimizer.momentum", "~optimizer.weight_decay",
               "~optimizer.nesterov"], "train: "),
    "too large a batch": (["method=erm", "trainer.batch_size=5000"], "lower trainer.batch_size"),
    "no such GPU": (["method=erm", "trainer.device=cuda:99"], "trainer.device=cuda:99, but"),
    "no such device": (["method=erm", "trainer.device=xpu:99"], "trainer.device=xpu:99, but"),
    "fp16 on the CPU": (["trainer.precision=fp16", "trainer.device=cpu"], "fp16"),
    "selection by groups": (["trainer.selection=[hg]"], "needs a validation split"),
    # paths
    "run folder outside": (["paths.run_dir=elsewhere"], "is not inside paths.output_dir"),
    "comparison in the run's folder": (
        ["--config-dir", "{conf}", "method=elr", "paths=one_folder"],
        "compare=erm: the baseline would share this run's folder",
    ),
    "data folder that is not there": (["dataset=cifar10_parquet", "paths.data_dir=absent/data"], "absent/data"),
    # sweeps
    "one point without groups": (["-m", "method=erm,groupdro"], "method=groupdro needs groups"),
    "one point's batch": (["-m", "method=erm", "trainer.batch_size=64,5000"], "lower trainer.batch_size"),
    "one point's model": (["-m", "method=erm", "model=small_cnn,vit_b16"], "train: "),
    "one point's value": (["-m", "method=erm", "optimizer.momentum=0.9,0", "optimizer.nesterov=true"], "Nesterov"),
    "points that share a folder": (
        ["-m", "method=erm", "optimizer.lr=0.1,0.2", "paths.run_dir=outputs/y"],
        "two runs of this command, optimizer.lr=0.1 and optimizer.lr=0.2, share the folder",
    ),
    "a comparison that shares a point's folder": (
        ["-m", "method=elr,erm", "optimizer.lr=0.1", "paths.run_dir=outputs/${{method.name}}", "seed=0,1"],
        "share the folder",
    ),
    "one point's comparison": (["-m", "method=erm", "compare=null,groupdro"], "method=groupdro needs groups"),
}  # fmt: skip


@pytest.fixture
def empty_place(tmp_path, monkeypatch) -> Path:
    """An empty current folder; the home folder, with its caches, lies in it, too."""
    for name in ("ROBUSTLAB_DATA", "ROBUSTLAB_CACHE", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("CUDA_CACHE_DISABLE", "1")  # the driver's own, in the home folder
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def conf(tmp_path) -> Path:
    """A folder of options with a `paths` that names one folder for all runs."""
    (tmp_path / "conf" / "paths").mkdir(parents=True)
    text = "defaults: [default]\nrun_dir: ${paths.output_dir}/one\n"
    (tmp_path / "conf" / "paths" / "one_folder.yaml").write_text(text)
    return tmp_path / "conf"


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_command_writes_nothing(name, empty_place, conf, capsys):
    arguments, expected = REFUSED[name]
    filled = [text.format(conf=conf) if "{conf}" in text or "{{" in text else text for text in arguments]
    code = main([*filled, *SHORT])
    written = capsys.readouterr()
    assert code == 2, written.err
    assert expected in written.err
    assert written.err.count("train: ") == 1
    assert "Traceback" not in written.err
    assert written.out == ""
    assert sorted(path.relative_to(empty_place) for path in empty_place.rglob("*")) == []
