"""Precision, memory format, compilation, accumulation, clipping and averaging, each through the command line."""

import pytest
import torch

from tests.end_to_end.harness import rows, run_folder, train

COMMAND = ["trainer.epochs=2", "dataset.subset=256", "trainer.log_every=1", "trainer.batch_size=64"]


def losses(tmp_path, name, *overrides, method="erm"):
    outputs = tmp_path / name
    code = train([f"method={method}", *COMMAND, *overrides, f"paths.output_dir={outputs}"], tmp_path / "log.txt",
                 timeout=280)  # fmt: skip
    assert code == 0, (tmp_path / "log.txt").read_text()
    return [row["train/loss"] for row in rows(run_folder(outputs)) if row["split"] == "train"]


def network(tmp_path, name):
    state = torch.load(run_folder(tmp_path / name) / "checkpoints" / "last.pt", weights_only=True)
    return state["learners"]["network"]


def test_fast_paths_follow_the_plain_one(tmp_path):
    plain = losses(tmp_path, "plain")
    assert len(plain) == 8
    assert losses(tmp_path, "contiguous", "trainer.channels_last=false") == pytest.approx(plain, abs=1e-3)
    assert losses(tmp_path, "bf16", "trainer.precision=bf16") == pytest.approx(plain, abs=0.05)


def test_accumulation_clipping_and_averaging_train(tmp_path):
    options = ["trainer.accumulate=2", "trainer.clip_norm=1.0", "trainer.ema_decay=0.9"]
    assert len(losses(tmp_path, "options", *options)) == 8
    learner = network(tmp_path, "options")
    assert learner["updates"] == 4
    average = {key: value for key, value in learner["ema"].items() if key.startswith("module.")}
    assert average
    assert any(not torch.equal(value, learner["network"][key[7:]]) for key, value in average.items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["erm", "crosssplit"])
def test_a_compiled_network_trains_like_the_plain_one_and_its_weights_keep_their_names(tmp_path, method):
    # Without BatchNorm, whose statistics amplify the last bits that fused kernels round differently.
    options = ["model.norm=group", *(["method.warmup.epochs=1"] if method == "crosssplit" else [])]
    plain = losses(tmp_path, "plain", *options, method=method)
    compiled = losses(tmp_path, "compiled", *options, "trainer.compile=true", method=method)
    assert compiled == pytest.approx(plain, abs=2e-3)
    states = [
        torch.load(run_folder(tmp_path / name) / "checkpoints" / "last.pt", weights_only=True)["learners"]
        for name in ("plain", "compiled")
    ]
    for name, learner in states[0].items():
        assert learner["network"].keys() == states[1][name]["network"].keys()
