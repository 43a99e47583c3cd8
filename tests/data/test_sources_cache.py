"""The cache: whole or not at all, made once by concurrent processes, remade when what it was made from changes."""

import os
import threading
import time

import numpy as np
import pytest

from robustlab.core.errors import DataError, UnavailableError
from robustlab.data.storage.cache import cached_array, fingerprint


def blocks():
    yield np.arange(6, dtype=np.uint8).reshape(2, 3)
    yield np.arange(6, 9, dtype=np.uint8).reshape(1, 3)


EXPECTED = np.arange(9, dtype=np.uint8).reshape(3, 3)


def never():
    raise AssertionError("decoded again")


def test_made_once_then_read(tmp_path):
    path = tmp_path / "deep" / "a.npy"
    assert (cached_array(path, (3, 3), "uint8", blocks) == EXPECTED).all()
    array = cached_array(path, (3, 3), "uint8", never)
    assert isinstance(array, np.memmap)
    array[0] = 9  # private to this process
    assert (cached_array(path, (3, 3), "uint8", never) == EXPECTED).all()
    assert (cached_array(None, (3, 3), "uint8", blocks) == EXPECTED).all()


@pytest.mark.fault("F14")
def test_failure_publishes_nothing(tmp_path):
    def broken():
        yield from blocks()
        raise DataError("row 9 is bad")

    with pytest.raises(DataError, match="row 9"):
        cached_array(tmp_path / "a.npy", (3, 3), "uint8", broken)
    assert [path.name for path in tmp_path.iterdir()] == [".a.npy.lock"]


@pytest.mark.fault("F14")
@pytest.mark.parametrize("keep", [0, 5, 60, 130, 136])
def test_cut_file_is_made_again(tmp_path, keep):
    path = tmp_path / "a.npy"
    cached_array(path, (3, 3), "uint8", blocks)
    path.write_bytes(path.read_bytes()[:keep])
    assert (cached_array(path, (3, 3), "uint8", blocks) == EXPECTED).all()


def test_pickle_in_the_cache_is_not_run(tmp_path):
    sentinel = tmp_path / "sentinel"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(sentinel),))

    path = tmp_path / "a.npy"
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    assert (cached_array(path, (3, 3), "uint8", blocks) == EXPECTED).all()
    assert not sentinel.exists()


@pytest.mark.fault("F14")
def test_two_at_once_decode_once(tmp_path):
    calls: list[int] = []

    def slow():
        calls.append(1)
        time.sleep(0.2)
        yield from blocks()

    results: list[np.ndarray] = []
    path = tmp_path / "a.npy"
    threads = [
        threading.Thread(target=lambda: results.append(cached_array(path, (3, 3), "uint8", slow))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(results) == 3
    assert all((result == EXPECTED).all() for result in results)


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError, match=r"cannot write the cache folder .*paths\.cache_dir"):
        cached_array(tmp_path / "file" / "a.npy", (3, 3), "uint8", blocks)


def test_fingerprint_follows_name_size_time_and_settings(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"123")
    first = fingerprint(tmp_path, ["a.jpg"], 32)
    assert fingerprint(tmp_path, ["a.jpg"], 32) == first
    assert fingerprint(tmp_path, ["a.jpg"], 64) != first
    os.utime(file, ns=(1, 1))
    second = fingerprint(tmp_path, ["a.jpg"], 32)
    assert second != first
    file.write_bytes(b"1234")
    os.utime(file, ns=(1, 1))
    assert fingerprint(tmp_path, ["a.jpg"], 32) != second
    assert fingerprint(tmp_path, ["gone.jpg"], 32) != first
