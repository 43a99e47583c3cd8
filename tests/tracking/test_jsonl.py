"""JSON lines: standard JSON, nothing torn, nothing doubled or lost by a resume."""

import json
import math
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core.errors import RunFolderError
from robustlab.tracking.jsonl import JsonlWriter, decode_number, encode_number, read_rows


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**53), 2**53))
def test_every_number_survives_standard_json(number):
    def refuse(constant):
        raise AssertionError(f"{constant} is not standard JSON")

    text = json.dumps(encode_number(number), allow_nan=False)
    back = decode_number(json.loads(text, parse_constant=refuse))
    assert back == number or (math.isnan(number) and math.isnan(back))
    assert type(back) is type(number)


def test_tensors_become_plain_numbers(tmp_path):
    writer = JsonlWriter(tmp_path / "rows.jsonl")
    writer.write({"step": 1, "split": "train", "loss": torch.tensor(0.5), "bad": torch.tensor(float("-inf"))})
    writer.close()
    assert (tmp_path / "rows.jsonl").read_text() == '{"step": 1, "split": "train", "loss": 0.5, "bad": "-Infinity"}\n'
    assert list(read_rows(tmp_path / "rows.jsonl")) == [{"step": 1, "split": "train", "loss": 0.5, "bad": -math.inf}]


@settings(max_examples=50, deadline=None)
@given(total=st.integers(1, 12), kills=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=4))
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path_factory, total, kills):
    """Each kill: rows written beyond the last checkpoint, and a torn line, are there when the run goes on."""
    folder = tmp_path_factory.mktemp("jsonl")

    def write(writer, first, last):
        for step in range(first, last):
            writer.write({"step": step, "loss": 1 / (step + 1)})

    plain = JsonlWriter(folder / "plain.jsonl")
    write(plain, 0, total)
    plain.close()
    path, step, offset = folder / "killed.jsonl", 0, 0
    for checkpoint, beyond in kills:
        writer = JsonlWriter(path, offset=offset)
        checkpoint = min(max(checkpoint, step), total)
        write(writer, step, checkpoint)
        writer.sync()
        step, offset = checkpoint, writer.offset
        write(writer, checkpoint, min(checkpoint + beyond, total))
        writer.close()
        with path.open("ab") as file:
            file.write(b'{"step": 99, "lo')
    writer = JsonlWriter(path, offset=offset)
    writer.open()
    write(writer, step, total)
    writer.close()
    assert path.read_bytes() == (folder / "plain.jsonl").read_bytes()


def test_a_fresh_run_empties_what_an_abandoned_one_left(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 7}\n')
    writer = JsonlWriter(path)
    assert path.read_text() == '{"step": 7}\n', "nothing is touched before the first row"
    writer.write({"step": 0})
    writer.close()
    assert path.read_text() == '{"step": 0}\n'


def test_a_file_shorter_than_the_checkpoint_goes_on_after_its_last_whole_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 0}\n{"st')
    writer = JsonlWriter(path, offset=500)
    writer.write({"step": 1})
    writer.close()
    assert [row["step"] for row in read_rows(path)] == [0, 1]


def test_readers_see_each_row_at_once_and_never_a_torn_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    writer = JsonlWriter(path)
    writer.write({"step": 0})
    assert len(list(read_rows(path))) == 1
    with path.open("ab") as file:
        file.write(b'{"step": 1')
    assert [row["step"] for row in read_rows(path)] == [0]
    writer.close()


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write .*file/rows\.jsonl.*paths\.output_dir"):
        JsonlWriter(tmp_path / "file" / "rows.jsonl").write({"step": 0})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_user_error_and_what_was_written_stays(tmp_path):
    program = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from robustlab.core.errors import RunFolderError
        from robustlab.tracking.jsonl import JsonlWriter, read_rows
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        path = Path(sys.argv[1])
        writer = JsonlWriter(path)
        try:
            for step in range(100):
                writer.write({"step": step, "loss": 0.5})
        except RunFolderError as error:
            print(error)
        print([row["step"] for row in read_rows(path)])
    """)
    path = tmp_path / "rows.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert "[0, 1, 2, 3]" in done.stdout
