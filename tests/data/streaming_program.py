"""Run by tests in a process group of its own: streams an epoch while signals come, and says what it served."""

import os
import signal
import sys

import torch

from robustlab.data.run_data import Data
from robustlab.data.serving import workers
from robustlab.data.transforms.augment import Flip, PadCrop
from tests.data.toy_source import Toy


def main(mode: str) -> None:
    received = []
    if mode != "unfinished":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: received.append(number))
    if mode == "careless":  # what happens with workers that take every signal
        workers.ignore_signals = lambda worker: signal.pthread_sigmask(signal.SIG_SETMASK, set())
    torch.set_num_threads(1)
    data = Data(Toy(240, lazy=True), seed=0, storage="streaming", workers=2, views={"weak": [PadCrop(1), Flip()]})
    batches = data.loader(batch_size=8, views=("weak", "weak"), purpose="train").epoch(0)
    total = 0.0
    for step, batch in enumerate(batches):
        total += float(batch.images.double().sum() + batch.views[1].double().sum())
        if mode in ("signals", "careless") and step % 5 == 0:
            os.killpg(0, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)[step // 5 % 4])
        if mode == "unfinished" and step == 3:
            sys.modules["kept alive"] = batches  # type: ignore[assignment]
            break
    print(f"{len(received) > 0} {step + 1} {total!r}")


if __name__ == "__main__":
    main(sys.argv[1])
