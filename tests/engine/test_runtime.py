"""Resolution of `trainer` settings on a machine, with imitated GPUs."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.core.runtime import resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(params=[True, False], ids=["native bf16", "emulated bf16"])
def native(request, monkeypatch) -> bool:
    """A GPU as torch describes it: one that computes in bf16, or one for which torch emulates it."""

    def is_supported(including_emulation=True):
        return request.param or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    return request.param


def test_auto_is_bf16_only_where_the_gpu_computes_in_it(native):
    assert resolve_precision("auto", GPU) == ("bf16" if native else "fp32")
    assert resolve_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_what_a_gpu_computes_in(native, wanted):
    assert resolve_precision(wanted, GPU) == wanted


def test_fp16_is_refused_without_a_gpu():
    assert [resolve_precision(wanted, CPU) for wanted in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(ConfigError, match=r"trainer\.precision=fp16 needs a GPU"):
        resolve_precision("fp16", CPU)
