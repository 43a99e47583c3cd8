import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from robustlab.core import rng
from robustlab.core.errors import ConfigError, DataError, ResourceError
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.run_data import Data
from robustlab.data.serving.streaming import StreamingFeed
from robustlab.data.transforms.augment import Flip
from robustlab.data.transforms.decode import Decode, RandomResizedCrop, ResizeCenterCrop, ResizeRandomCrop
from tests.data.test_loader import VIEWS, by_sample, same
from tests.data.toy_source import Lazy, Toy


class Photos(DataSource):
    """Images of many sizes, read one by one; `images` may be replaced to make trouble."""

    def __init__(self, count: int = 24, images: Lazy | None = None) -> None:
        self.task = TaskSpec(4, (3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
        self.count, self.images = count, images or Ragged(torch.empty(count))

    def split(self, name: str) -> Split:
        return Split(self.images, torch.arange(self.count) % 4)


class Ragged(Lazy):
    def decode(self, index: int) -> Tensor:
        shape = (3, 20 + index, 40 - index)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng.generator(index))


CROPS: dict[str, Decode] = {"train": RandomResizedCrop(size=16), "eval": ResizeCenterCrop(resize=18, size=16)}


def photos(images: Lazy | None = None, **arguments) -> Data:
    arguments = {"storage": "streaming", "decode": CROPS, "workers": 0, "views": {"weak": [Flip()]}} | arguments
    return Data(Photos(images=images), seed=0, **arguments)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("lazy", [True, False])
def test_without_a_crop_streaming_equals_resident_bit_by_bit(workers: int, lazy: bool) -> None:
    resident = Data(Toy(40), seed=0, views=VIEWS)
    streaming = Data(Toy(40, lazy=lazy), seed=0, views=VIEWS, storage="streaming", workers=workers)
    for views in (("weak", "strong", "test"), ("weak",)):
        one, other = (
            data.loader(batch_size=7, views=views, purpose="train").epoch(1, steps=8) for data in (resident, streaming)
        )
        assert same(one, other)
    assert same(resident.evaluation("test", 6).epoch(0), streaming.evaluation("test", 6).epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_depend_on_sample_epoch_and_view_only(workers: int) -> None:
    reference = photos().loader(batch_size=5, views=("weak", "weak", "test"), purpose="train")
    loader = photos(workers=workers).loader(batch_size=5, views=("weak", "weak", "test"), purpose="train")
    whole = list(reference.epoch(0, steps=9))
    assert same(loader.epoch(0, steps=9), whole)
    assert same(loader.epoch(0, start=3, steps=9), whole[3:])
    larger = photos(workers=workers).loader(batch_size=12, views=("weak", "weak", "test"), purpose="train")
    first, second, test = by_sample(whole[:5])
    assert torch.equal(torch.stack([first, second, test]), by_sample(larger.epoch(0)))
    later = by_sample(loader.epoch(1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, later[0])
    assert torch.equal(test, later[2])


def test_the_test_view_is_the_central_crop() -> None:
    data = photos()
    batch = next(data.evaluation("test", 24).epoch(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.task.mean, data.task.std))
    for index in range(24):
        image = tv.center_crop(tv.resize(Ragged(torch.empty(24)).decode(index), [18], antialias=True), [16, 16])
        torch.testing.assert_close(batch.images[index], (image / 255 - mean) / std)


def test_a_random_resized_crop_is_a_window_of_the_asked_area_and_ratio() -> None:
    crop = RandomResizedCrop(size=16, scale=(0.2, 0.6), ratio=(0.8, 1.25))
    uniforms = rng.uniform(0, torch.arange(500), crop.draws)
    windows = [crop._window(60, 80, u.tolist()) for u in uniforms]
    for top, left, height, width in windows:
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 80 - width
        assert 0.18 < height * width / 4800 < 0.62
        assert 0.77 < width / height < 1.3
    areas = torch.tensor([height * width / 4800 for _, _, height, width in windows])
    assert areas.mean().item() == pytest.approx(0.4, abs=0.02)
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=rng.generator(0))
    expected = tv.resized_crop(image, *windows[0], [16, 16], antialias=True)
    assert torch.equal(crop(image, uniforms[0]), expected)


@pytest.mark.parametrize("shape", [(4, 100), (100, 4), (50, 52)])
def test_where_no_window_fits_the_largest_central_one_is_taken(shape: tuple[int, int]) -> None:
    height, width = shape
    top, left, h, w = RandomResizedCrop(size=16, scale=(1.0, 1.0))._window(height, width, [0.999] * 22)
    assert (h, w) == (min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3)))
    assert (top, left) == ((height - h) // 2, (width - w) // 2)


def test_resize_and_random_crop_reach_every_place() -> None:
    crop = ResizeRandomCrop(resize=18, size=16)
    image = torch.arange(18 * 18, dtype=torch.int64).remainder(256).to(torch.uint8).view(1, 18, 18)
    corners = {int(crop(image, u)[0, 0, 0]) for u in rng.uniform(0, torch.arange(300), 2)}
    assert corners == {int(image[0, row, column]) for row in range(3) for column in range(3)}
    assert crop(torch.zeros(3, 30, 50, dtype=torch.uint8), torch.tensor([0.99, 0.99])).shape == (3, 16, 16)


def test_of_two_sides_each_is_taken_by_half_of_the_draws() -> None:
    crop = ResizeRandomCrop(resize=[16, 32], size=16)
    image = torch.arange(32, dtype=torch.uint8).repeat_interleave(32).view(1, 32, 32) * 8
    heights = [
        int(crop(image, u)[0, 15, 0]) - int(crop(image, u)[0, 0, 0]) for u in rng.uniform(0, torch.arange(200), 3)
    ]
    whole = sum(height > 150 for height in heights)  # a window of all rows, not of half of them
    assert 80 < whole < 120


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomResizedCrop(size=16, scale=(0.5, 0.1)),
        lambda: ResizeRandomCrop(resize=8, size=16),
        lambda: ResizeCenterCrop(resize=8, size=16),
    ],
)
def test_impossible_crops_are_refused(make) -> None:
    with pytest.raises(ConfigError, match=r"Crop needs"):
        make()


class Broken(Ragged):
    def decode(self, index: int) -> Tensor:
        if index == 13:
            raise DataError("photos/13.jpg is truncated; replace the file")
        if index == 17:
            raise SyntaxError("not a PNG file")
        return super().decode(index)


@pytest.mark.fault("F12", "F20")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_named(workers: int) -> None:
    loader = photos(Broken(torch.empty(24)), workers=workers).evaluation("train", 4)
    with pytest.raises(DataError, match=r"^photos/13\.jpg is truncated; replace the file$"):
        list(loader.epoch(0))
    with pytest.raises(DataError, match=r"sample 17 cannot be decoded \(SyntaxError: not a PNG file\)"):
        list(loader.epoch(0, start=4))


def test_images_of_several_sizes_need_a_crop() -> None:
    with pytest.raises(DataError, match=r"image 0 is torch\.uint8 \(3, 20, 40\).*dataset\.decode"):
        list(photos(decode=None).evaluation("test", 4).epoch(0))
    with pytest.raises(DataError, match=r"dataset\.storage=streaming"):
        photos(decode=None, storage="resident")


class Deadly(Ragged):
    def decode(self, index: int) -> Tensor:
        if index == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(index)


@pytest.mark.fault("F20")
def test_a_killed_worker_is_an_error() -> None:
    began = time.monotonic()
    batches = photos(Deadly(torch.empty(24)), workers=2).evaluation("train", 4).epoch(0)
    message = r"waiting for samples \d.* from worker [01] \(process \d+\): a worker died \("
    with pytest.raises(ResourceError, match=message):
        list(batches)
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


class Hanging(Ragged):
    def decode(self, index: int) -> Tensor:
        if index == 11:
            time.sleep(1000)
        return super().decode(index)


@pytest.mark.fault("F20")
def test_a_hanging_worker_is_an_error_after_the_time_limit() -> None:
    began = time.monotonic()
    batches = photos(Hanging(torch.empty(24)), workers=2, timeout=2.0).evaluation("train", 4).epoch(0)
    message = r"samples 8, 9, 10, 11 from worker 0 \(process \d+\): no data for 2 s"
    with pytest.raises(ResourceError, match=message):
        list(batches)
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


class FullSharedMemory(Ragged):
    def decode(self, index: int) -> Tensor:
        if index == 11:  # nothing can be written from now on, as when /dev/shm is full
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        return super().decode(index)


@pytest.mark.slow
@pytest.mark.fault("F20")
def test_full_shared_memory_is_an_error_that_names_it(capfd) -> None:
    batches = photos(FullSharedMemory(torch.empty(24)), workers=2, timeout=3.0).evaluation("train", 4).epoch(0)
    with pytest.raises(ResourceError, match=r"samples \d+.* from worker [01] .*/dev/shm"):
        list(batches)
    assert not multiprocessing.active_children()
    capfd.readouterr()  # the worker's own traceback


@pytest.mark.slow
@pytest.mark.fault("F20", control=True)
def test_a_plain_loader_waits_for_ever(monkeypatch) -> None:
    def careless(self, iterator, pending):
        iterator._timeout = 0  # torch's default
        return next(iterator)

    def alarm(number, frame):
        raise TimeoutError

    monkeypatch.setattr(StreamingFeed, "_receive", careless)
    before = signal.signal(signal.SIGALRM, alarm)
    batches = photos(Hanging(torch.empty(24)), workers=2, timeout=1.0).evaluation("train", 4).epoch(0)
    signal.alarm(4)
    try:
        with pytest.raises(TimeoutError):
            list(batches)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        for worker in multiprocessing.active_children():
            worker.kill()


def test_the_main_process_is_left_as_it_was() -> None:
    before, on_child = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    batches = photos(workers=2).evaluation("train", 4).epoch(0)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == on_child
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == set()
    batches.close()  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), before)


def test_two_epochs_of_one_loader_can_run_side_by_side() -> None:
    loader = photos(workers=1).loader(batch_size=6, views=("weak",), purpose="train")
    expected = list(loader.epoch(0))
    pairs = list(zip(loader.epoch(0), loader.epoch(0), strict=True))
    assert same((one for one, _ in pairs), expected)
    assert same((other for _, other in pairs), expected)


def run_program(mode: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.data.streaming_program", mode]
    return subprocess.run(
        command, cwd=root, start_new_session=True, capture_output=True, text=True, timeout=90, check=False
    )


def served(mode: str) -> list[str]:
    result = run_program(mode)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


@pytest.mark.slow
def test_signals_to_the_whole_process_group_leave_the_workers_at_work() -> None:
    signalled, quiet = served("signals"), served("quiet")
    assert signalled[0] == "True"
    assert quiet[0] == "False"
    assert signalled[1:] == quiet[1:]
    assert signalled[1] == "30"


@pytest.mark.slow
def test_workers_that_take_the_signals_break_the_epoch() -> None:  # the injection above would be noticed
    result = run_program("careless")
    assert result.returncode != 0
    assert "a worker died" in result.stderr


@pytest.mark.slow
def test_a_process_that_stops_in_mid_epoch_does_not_wait_for_its_workers() -> None:
    began = time.monotonic()
    assert served("unfinished")[1] == "4"
    assert time.monotonic() - began < 60
