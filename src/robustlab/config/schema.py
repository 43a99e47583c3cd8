"""Types and bounds of the fixed keys of a configuration.

The defaults are in the YAML files under conf/. Keys next to a `_target_` are checked against its signature instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from robustlab.config.kinds import Pattern, Range
from robustlab.config.records import Node

AtLeastOne = Annotated[int, Range(low=1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(low=0)]
Fraction = Annotated[float, Range(low=0, below=1)]
Target = Annotated[Any, Node()]
Word = Annotated[str, Pattern(r"\S(.*\S)?", "a word")]
Device = Annotated[str, Pattern(r"auto|cpu|cuda(:\d+)?|mps|xpu(:\d+)?", "auto, cpu, cuda, cuda:<n>, mps or xpu")]


@dataclass
class Dataset:
    """Group `dataset`."""

    title: ClassVar = "dataset"
    name: Word
    source: Target
    val_fraction: Fraction
    subset: AtLeastOne | None
    storage: Literal["resident", "streaming"]
    workers: Annotated[int, Range(low=0)]
    views: dict[str, list[Target]]
    decode: dict[Literal["train", "eval"], Target] | None
    on_error: Literal["raise", "skip"] = "raise"


@dataclass
class Setting:
    """Group `setting`: the data that an experiment's values are meant for."""

    title: ClassVar = "setting"
    name: Word
    datasets: list[Word]


@dataclass
class Features:
    """Group `features`; without it, networks take images."""

    title: ClassVar = "features"
    name: Word
    weights: Word | None
    seed: Annotated[int, Range(low=0)]
    batch_size: AtLeastOne


@dataclass
class Noise:
    """Group `noise`."""

    title: ClassVar = "noise"
    name: Word
    model: Target | None
    seed: Annotated[int, Range(low=0)]


@dataclass
class Model:
    """Group `model`."""

    title: ClassVar = "model"
    open_to_more: ClassVar = True
    name: Word
    _target_: Word


@dataclass
class Method:
    """Group `method`."""

    title: ClassVar = "method"
    open_to_more: ClassVar = True
    name: Word
    _target_: Word
    values_for: list[Word] | None = None
    label: Word | None = None
    reference: Annotated[int, Range(low=1)] | None = None


@dataclass
class Optimizer:
    """Group `optimizer`. The bounds apply to arguments with these names in any optimizer."""

    title: ClassVar = "optimizer"
    open_to_more: ClassVar = True
    _target_: Word
    lr: Positive | None = None
    weight_decay: NotNegative | None = None
    momentum: Fraction | None = None
    betas: list[Fraction] | None = None


@dataclass
class Scheduler:
    """Group `scheduler`."""

    title: ClassVar = "scheduler"
    interval: Literal["epoch", "step"]
    schedule: Target | None


@dataclass
class Checkpoint:
    """`trainer.checkpoint`."""

    title: ClassVar = "trainer.checkpoint"
    every_seconds: Positive | None
    every_steps: AtLeastOne | None


@dataclass
class Trainer:
    """Group `trainer`."""

    title: ClassVar = "trainer"
    epochs: AtLeastOne
    batch_size: AtLeastOne
    eval_batch_size: AtLeastOne
    device: Device
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    channels_last: Literal["auto", True, False]
    compile: bool
    threads: AtLeastOne | None
    clip_norm: Positive | None
    accumulate: AtLeastOne
    ema_decay: Annotated[float, Range(above=0, below=1)] | None
    log_every: AtLeastOne
    evaluate_every: AtLeastOne
    max_steps: AtLeastOne | None
    deterministic: bool
    sync_batchnorm: bool
    selection: list[Literal["last", "mean_last10", "best_noisy_val", "avg", "ig", "hg", "best_test"]]
    checkpoint: Checkpoint


@dataclass
class Wandb:
    """`tracker.wandb`."""

    title: ClassVar = "tracker.wandb"
    mode: Literal["auto", "online", "offline", "disabled"]
    project: Word | None
    entity: Word | None
    group: Word | None
    tags: list[Word]
    init_timeout: Positive


@dataclass
class Tensorboard:
    """`tracker.tensorboard`."""

    title: ClassVar = "tracker.tensorboard"
    enabled: bool


@dataclass
class Progress:
    """`tracker.progress`."""

    title: ClassVar = "tracker.progress"
    mode: Literal["auto", "bar", "lines", "off"]
    every_seconds: NotNegative


@dataclass
class Tracker:
    """Group `tracker`."""

    title: ClassVar = "tracker"
    wandb: Wandb
    tensorboard: Tensorboard
    progress: Progress


Folder = Annotated[str, Pattern(r"[^\x00-\x1f]*\S[^\x00-\x1f]*", "a path, not empty and without control characters")]


@dataclass
class Paths:
    """Group `paths`."""

    title: ClassVar = "paths"
    data_dir: Folder
    cache_dir: Folder
    stage: Folder | None
    output_dir: Folder
    run_dir: Folder


@dataclass
class OptimizedMetric:
    """The metric that a search sweeper optimizes."""

    title: ClassVar = "optimized_metric"
    name: Word | None
    mode: Literal["max", "min"] = "max"


@dataclass
class Config:
    """The whole configuration."""

    title: ClassVar = "the configuration"
    dataset: Dataset
    noise: Noise
    model: Model
    method: Method
    optimizer: Optimizer
    scheduler: Scheduler
    trainer: Trainer
    tracker: Tracker
    paths: Paths
    seed: Annotated[int, Range(low=0, below=2**63)]
    compare: Word | None
    resume: Literal[True, False, "force"]
    tags: list[Word]
    name: Word | None
    features: Features | None = None
    optimized_metric: OptimizedMetric | None = None
    setting: Setting | None = None
    diagnostics: dict[str, Any] | None = None


GIVEN: dict[str, frozenset[str]] = {
    "model": frozenset({"num_classes", "image_shape"}),
    "optimizer": frozenset({"params"}),
    "scheduler.schedule": frozenset({"optimizer"}),
}
"""Arguments supplied by the data or the network when the object at this key is made, not by the configuration."""

LABELS = frozenset({"name", "values_for", "label", "reference"})
"""Keys next to a `_target_` that describe the choice and are not arguments."""
