"""The training step of stage 1, in the order of the paper's pseudo-code, and its state between steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustlab.core import rng
from robustlab.core.runtime import Runtime, average_statistics
from robustlab.data.dataset import TaskSpec
from robustlab.engine.learner import Learner
from robustlab.methods.groups.cobalt import discovery_losses as losses
from robustlab.methods.groups.cobalt.artifact import Concepts
from robustlab.methods.groups.cobalt.dictionary import Dictionary, perplexity, update_centre
from robustlab.methods.groups.cobalt.discovery_settings import DiscoverySettings
from robustlab.methods.groups.cobalt.extraction import Assignment, assign, extract_split
from robustlab.methods.groups.cobalt.grouping import Groups, active, group
from robustlab.methods.groups.cobalt.slot_network import (
    Student,
    make_student,
    make_teacher,
    momentum_at,
    update_teacher,
)
from robustlab.methods.groups.cobalt.two_views import TwoViews, View, align, intersect, to_pixels

if TYPE_CHECKING:
    from robustlab.data.run_data import Data

PURPOSE = "discovery"
"""Name of stage 1 in keys of random streams."""


class Discovery:
    """Learns without labels to partition images into slots and to name each slot by a code of a dictionary.

    A method creates it, passes `wrap` to `context.new_learner`, passes the learner to `build`, calls `step` for each
    batch of the data set's "test" view (not augmented), saves `state_dict` along with the learner's, and calls
    `extract` after the last step. Parts: `teacher`, `dictionary` and `centre`, the centre of the teacher's logits, (N,)
    float32.
    """

    def __init__(self, settings: DiscoverySettings, *, task: TaskSpec, runtime: Runtime, seed: int) -> None:
        """Create the parts that need no network; `seed` determines views, dictionary and re-seeding."""
        self.settings, self.task, self.runtime, self.seed = settings, task, runtime, seed
        memory_format = torch.channels_last if runtime.channels_last else torch.contiguous_format
        self._views = TwoViews(settings.views, task=task, memory_format=memory_format)
        self.dictionary = Dictionary(
            settings.dictionary, dim=settings.slots.dim, seed=rng.fold(seed, PURPOSE), device=runtime.device
        )
        self.centre = torch.zeros(settings.slots.count, device=runtime.device)

    def wrap(self, network: nn.Module) -> Student:
        """Return the student around the trunk of a `TwoHeads`, dropping its classifier.

        Raises `ConfigError` if the trunk has no feature maps.
        """
        assert isinstance(network.trunk, nn.Module)
        return make_student(network.trunk, image_shape=self.task.image_shape, settings=self.settings.slots)

    def build(self, learner: Learner, *, updates: int) -> None:
        """Store the student's learner and copy the teacher from it.

        - updates: number of updates in the whole stage, on which momentum and code usage depend.
        """
        assert isinstance(learner.network, Student)
        assert learner.on_update is None, "the teacher follows the student through the learner's hook"
        self.learner, self.updates = learner, updates
        self.teacher = make_teacher(learner.network)
        if self.runtime.compile:
            self.teacher.compile()
        learner.on_update = self._follow

    def _follow(self) -> None:
        """Move the teacher towards the student after an update."""
        momentum = momentum_at(self.learner.updates, total=self.updates, settings=self.settings.teacher)
        update_teacher(self.teacher, self._student, momentum=momentum)

    @property
    def _student(self) -> Student:
        assert isinstance(self.learner.network, Student)
        return self.learner.network

    def step(self, images: Tensor, index: Tensor, *, epoch: int, total: int) -> dict[str, Tensor]:
        """Run one step without labels; return scalars to log, on the device, without synchronising.

        Scalars: "loss", "loss_distillation", "loss_contrast", "loss_quantisation"; the teacher's "active_slots" per
        image and view, and "largest_slot" (mean attention of the largest slot, 1 if one slot takes everything);
        "codes_used" and "perplexity" of the batch's codes.

        - images: (B, C, H, W) float32, normalised, not augmented; this rank's share of the batch.
        - index: (B,) int64, positions in the training split, which together with (seed, epoch) determine all draws.
        - total: number of images in the global batch.
        """
        views = self.views(images, index, epoch=epoch)
        student = self._student.train()
        features, targets = self._forward(self.learner, views), self._teach(views)
        tau = self.settings.temperature
        groups = [group(maps, student.base.slots, tau.teacher) for maps in features]
        with torch.no_grad():
            taught = [group(maps, self.teacher.slots, tau.teacher) for maps in targets]
        with self.runtime.autocast():
            queries = [student.predict(one.vectors).float() for one in groups]
        seen = [active(one.logits) for one in taught]
        keys = [
            losses.gather_keys(one.vectors, of_view, total=total, runtime=self.runtime)
            for one, of_view in zip(taught, seen, strict=True)
        ]
        vectors = torch.cat([one.vectors.flatten(0, 1) for one in keys])
        flags = torch.cat([one.active.flatten() for one in keys])
        self.dictionary.begin(vectors, flags)
        scalars = self._losses(views, groups, taught, queries=queries, seen=seen, keys=keys)
        self.learner.step(scalars["loss"])
        counts = self.dictionary.update(vectors, flags, total=self.updates)
        logits = (taught[0].logits, taught[1].logits)
        momentum = self.settings.teacher.centre_momentum
        self.centre = update_centre(self.centre, logits, momentum=momentum, runtime=self.runtime)
        scalars["active_slots"] = flags.float().sum() / (2 * total)
        scalars["largest_slot"] = _largest(logits, tau.teacher)
        scalars["codes_used"] = (counts > 0).float().sum()
        scalars["perplexity"] = perplexity(counts)
        return {name: value.detach() for name, value in scalars.items()}

    def views(self, images: Tensor, index: Tensor, *, epoch: int) -> tuple[View, View]:
        """Return the two views of normalised images in an epoch; see `step` for the arguments."""
        u = rng.uniform(rng.fold(self.seed, PURPOSE, "views", epoch), index, self._views.draws)
        return self._views(to_pixels(images, self.task), u)

    def _forward(self, network: Learner | nn.Module, views: Sequence[View]) -> list[Tensor]:
        """Return z of both views, (B, d, h, w) float32 each."""
        with self.runtime.autocast():
            if self.settings.perf.fuse_views:
                return [maps.float() for maps in network(torch.cat([view.images for view in views])).chunk(2)]
            return [network(view.images).float() for view in views]

    @torch.no_grad()
    def _teach(self, views: Sequence[View]) -> list[Tensor]:
        return self._forward(self.teacher.train(), views)

    def _losses(
        self,
        views: Sequence[View],
        groups: Sequence[Groups],
        taught: Sequence[Groups],
        *,
        queries: Sequence[Tensor],
        seen: Sequence[Tensor],
        keys: Sequence[losses.Keys],
    ) -> dict[str, Tensor]:
        """Return "loss", equation 5, and its terms, each averaged over both assignments of the two views."""
        tau, runtime = self.settings.temperature, self.runtime
        overlap = intersect(views[0].box, views[1].box)
        terms: dict[str, list[Tensor]] = {"distillation": [], "contrast": [], "quantisation": []}
        for own, other in ((0, 1), (1, 0)):
            terms["distillation"].append(
                losses.distillation(
                    align(groups[own].logits, views[own], overlap),
                    align(taught[other].logits, views[other], overlap),
                    self.centre,
                    student_temperature=tau.student,
                    teacher_temperature=tau.teacher,
                    runtime=runtime,
                )
            )
            valid = active(groups[own].logits) & seen[other]
            terms["contrast"].append(
                losses.contrast(queries[own], keys[other], valid, temperature=tau.contrast, runtime=runtime)
            )
            terms["quantisation"].append(
                losses.quantisation(
                    groups[own].vectors,
                    self.dictionary.codes,
                    self.dictionary.assign(taught[other].vectors),
                    valid,
                    temperature=tau.student,
                    runtime=runtime,
                )
            )
        means = {name: (first + second) / 2 for name, (first, second) in terms.items()}
        weights = asdict(self.settings.weights)
        # A weight of 0 skips the term, so that not even a NaN in it can reach the gradient.
        total = torch.stack([weights[name] * term for name, term in means.items() if weights[name] > 0]).sum()
        return {"loss": total, **{f"loss_{name}": term for name, term in means.items()}}

    def assign(self, images: Tensor) -> Assignment:
        """Return the teacher's slots, concepts, areas and margins for normalised images, (B, C, H, W) float."""
        extract = self.settings.extract
        return assign(
            self.teacher,
            self.dictionary,
            images,
            temperature=self.settings.temperature.teacher,
            min_pixels=extract.min_pixels,
        )

    def extract(self, data: Data, splits: Sequence[str], *, identity: Mapping[str, Any] | None = None) -> Concepts:
        """Return the concepts of every image in the splits, assigned by the teacher in eval mode without augmentation.

        Rows are in the order of `data.evaluation(split)`. Each rank encodes its share, and all ranks get the whole
        result.

        - identity: entries to record in addition to seed, settings and hash of teacher and dictionary.
        """
        average_statistics([self.teacher], runtime=self.runtime)  # so that all ranks use the same teacher
        tables = {
            name: extract_split(data, name, self.assign, settings=self.settings.extract, runtime=self.runtime)
            for name in splits
        }
        return Concepts(
            num_concepts=self.settings.dictionary.codes,
            tables={name: table.concepts for name, table in tables.items()},
            area={name: table.area for name, table in tables.items()},
            margin={name: table.margin for name, table in tables.items()},
            samples={name: table.samples for name, table in tables.items()},
            fingerprints={name: data.fingerprint(name) for name in splits},
            identity={"seed": self.seed, "settings": asdict(self.settings), "hash": self.hash(), **(identity or {})},
            codes=self.dictionary.codes.cpu(),
        )

    def hash(self) -> str:
        """Return the SHA-256 of the teacher's state and the codes, which determine the concepts of an image."""
        digest = hashlib.sha256()
        for name, value in {**self.teacher.state_dict(), "codes": self.dictionary.codes}.items():
            digest.update(name.encode() + value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that steps change except the learner: teacher, dictionary and centre."""
        return {
            "teacher": self.teacher.state_dict(),
            "dictionary": self.dictionary.state_dict(),
            "centre": self.centre,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned; call it after `build`."""
        self.teacher.load_state_dict(state["teacher"])
        self.dictionary.load_state_dict(state["dictionary"])
        self.centre = state["centre"].to(self.centre)


def _largest(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the mean attention, over images, views and positions, of the slot with the most attention."""
    return torch.stack([(one / temperature).softmax(dim=1).mean(dim=(0, 2, 3)) for one in logits]).mean(dim=0).max()
