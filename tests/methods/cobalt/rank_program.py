"""The program that each of two processes runs for `test_ranks`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from robustlab.core.runtime import Runtime
from robustlab.methods.groups.cobalt import discovery_losses as losses
from robustlab.methods.groups.cobalt.dictionary import Dictionary, update_centre
from robustlab.methods.groups.cobalt.discovery_settings import DictionarySettings
from tests.methods.cobalt.toy import CPU, make_data, make_discovery, train
from tests.ranks import joined

ROWS, SLOTS, DIM = 7, 3, 4  # an odd number of images: one process has one more than the other


def compute(runtime: Runtime) -> dict[str, torch.Tensor]:
    """Losses, gradients and updates of this process's share of one batch."""
    draws = torch.Generator().manual_seed(0)
    student = torch.randn(ROWS, SLOTS, DIM, generator=draws)[runtime.rank :: runtime.world_size].requires_grad_()
    teacher = torch.randn(ROWS, SLOTS, DIM, generator=draws)[runtime.rank :: runtime.world_size]
    active = (torch.rand(ROWS, SLOTS, generator=draws) < 0.7)[runtime.rank :: runtime.world_size]
    valid = active & (torch.rand(ROWS, SLOTS, generator=draws) < 0.8)[runtime.rank :: runtime.world_size]
    own, other = (torch.randn(ROWS, SLOTS, 2, 2, generator=draws)[runtime.rank :: runtime.world_size] for _ in range(2))
    settings = DictionarySettings(codes=5, initial="slots", reseed_after=1.0, reseed_below=0.9)
    dictionary = Dictionary(settings, dim=DIM, seed=0, device=torch.device("cpu"))
    keys = losses.gather_keys(teacher, active, total=ROWS, runtime=runtime)
    vectors, flags = keys.vectors.flatten(0, 1), keys.active.flatten()
    dictionary.begin(vectors, flags)
    found = {
        "contrast": losses.contrast(student, keys, valid, temperature=0.2, runtime=runtime),
        "quantisation": losses.quantisation(
            student, dictionary.codes, dictionary.assign(teacher), valid, temperature=0.1, runtime=runtime
        ),
        "distillation": losses.distillation(
            own.requires_grad_(), other, torch.zeros(SLOTS), student_temperature=0.1, teacher_temperature=0.07,
            runtime=runtime,
        ),
    }  # fmt: skip
    torch.stack(list(found.values())).sum().backward()
    assert student.grad is not None
    assert own.grad is not None
    scale = 1 / runtime.world_size  # gradients of parameters are averaged over the processes
    found |= {"gradient": student.grad * scale, "gradient_of_logits": own.grad * scale}
    dictionary.update(F.normalize(vectors, dim=1), flags, total=1)
    found |= {"codes": dictionary.codes, "usage": dictionary.usage}
    found["centre"] = update_centre(torch.ones(SLOTS), (other, own.detach()), momentum=0.9, runtime=runtime)
    return {name: value.detach() for name, value in found.items()}


def work(rank: int, world_size: int, folder: str) -> None:
    """Join the other process, compute, train a little, and write what came out."""
    torch.set_num_threads(1)
    with joined(rank, world_size, folder):
        runtime = replace(CPU, rank=rank, world_size=world_size)
        data = make_data(rank=rank, world_size=world_size)
        discovery = make_discovery(data, runtime=runtime)
        train(discovery, data)
        concepts = discovery.extract(data, ("train",))
        trained = {
            "codes": discovery.dictionary.codes,
            "centre": discovery.centre,
            "student": [parameter.detach() for parameter in discovery.learner.network.parameters()],
            "teacher": list(discovery.teacher.parameters()),
            "table": concepts.tables["train"],
            "samples": concepts.samples["train"],
        }
        torch.save({"found": compute(runtime), "trained": trained}, Path(folder) / f"rank{rank}.pt")
