"""Run by tests in processes of its own: stages a folder, slowly, and prints how many files this process copied."""

import sys
import time
from pathlib import Path

from robustlab.data.storage import staging as stage


def main(root: str, into: str, seconds: str) -> None:
    copied = []
    plain = stage._copy_file

    def slow(source: Path, target: Path) -> None:
        time.sleep(float(seconds))
        plain(source, target)
        copied.append(target.name)

    stage._copy_file = slow
    stage._AT_ONCE = 1
    place = stage.Stage(Path(into)).files(Path(root), [f"{number}.bin" for number in range(20)])
    print(len(copied), place)


if __name__ == "__main__":
    main(*sys.argv[1:])
