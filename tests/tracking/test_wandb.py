"""W&B: fed from the local files by a process of its own; offline here, against a real server if one is given.

The tests marked slow that talk to a server run with ROBUSTLAB_TEST_WANDB=1 and WANDB_BASE_URL, WANDB_API_KEY set.
"""

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustlab.config.compose import compose
from robustlab.core.errors import ConfigError
from robustlab.tracking.jsonl import JsonlWriter, read_rows
from robustlab.tracking.trackers import Trackers
from robustlab.tracking.wandb import WandbFeed, feed_settings
from robustlab.tracking.wandb_login import base_url, has_key, unreachable
from robustlab.tracking.wandb_rows import Merger
from robustlab.tracking.wandb_sent import Sent

online = pytest.mark.skipif(os.environ.get("ROBUSTLAB_TEST_WANDB") != "1", reason="set ROBUSTLAB_TEST_WANDB=1")


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No credentials and no server, whatever the machine's user has."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def build(folder, mode="auto", **keywords):
    cfg = {"wandb": {"mode": mode, "project": "robustlab-tests", "init_timeout": 2}}
    config = {"seed": 0, "method": {"name": "erm"}}
    return Trackers.from_config(cfg, run_dir=folder, run_name="a/b c-seed0", config=config, **keywords)


def log(trackers, first, last):
    for step in range(first, last):
        trackers.log({"train/loss": 1 / (step + 1), "time/x": 1.0}, stage="train", epoch=0, step=step, split="train")
        if step % 5 == 4:
            trackers.log({"test/accuracy": step / 100}, stage="train", epoch=0, step=step, split="epoch")


def segments(folder):
    return sorted((folder / "wandb").glob("offline-run-*"))


def history(segment):
    """The history rows in a segment that W&B wrote offline: protobuf records in LevelDB's log format."""
    program = textwrap.dedent("""
        import json, struct, sys
        from wandb.proto import wandb_internal_pb2
        content, position, parts = open(sys.argv[1], "rb").read(), 7, b""
        while position + 7 <= len(content):
            if 32768 - position % 32768 < 7:
                position += 32768 - position % 32768
                continue
            _, length, kind = struct.unpack_from("<IHB", content, position)
            parts += content[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):  # full, last
                record = wandb_internal_pb2.Record()
                record.ParseFromString(parts)
                parts = b""
                if record.WhichOneof("record_type") == "history":
                    items = record.history.item
                    print(json.dumps({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}))
    """)
    (file,) = segment.glob("*.wandb")
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


# Which rows are sent

BEGUN = '{"msg": "stream: starting"}'
ASKED = '{{"msg": "filestream: sending request", "history_offset": {}, "history_lines": {}}}'
NO_ROWS = '{"msg": "filestream: sending request", "events_lines": 1}'
TAKEN = '{"msg": "filestream: request sent", "status": "200 OK"}'
REFUSED = '{"msg": "filestream: request sent", "status": "500 Internal Server Error"}'


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), max_size=30),
    first=st.integers(0, 10),
    everything=st.booleans(),
)
def test_each_step_is_sent_once_whole_and_in_order(tmp_path_factory, rows, first, everything):
    """However reading falls between the writes; the last step stays back unless the run is over."""
    folder = tmp_path_factory.mktemp("rows")
    metrics, timing = JsonlWriter(folder / "metrics.jsonl"), JsonlWriter(folder / "timing.jsonl")
    merger, sent, expected, step = Merger(folder, first=first), [], {}, 0
    for number, (advance, timed, read) in enumerate(rows):
        step += advance
        if timed:
            timing.write({"step": step, f"time/{number}": number})
            expected.setdefault(step, {})[f"time/{number}"] = number
        if read and number % 2:
            sent += merger.ready()
        metrics.write({"step": step, "split": "train", f"m/{number}": number})
        expected.setdefault(step, {})[f"m/{number}"] = number
        if read:
            sent += merger.ready()
    sent += merger.ready(everything=everything)
    metrics.close()
    timing.close()
    wanted = [key for key in sorted(expected) if key >= first and (everything or key < step)]
    assert sent == [(key, {"step": key, **expected[key]}) for key in wanted]


def test_pictures_of_a_step_that_is_gone_go_with_the_next(tmp_path):
    merger = Merger(tmp_path, first=10)
    merger.add(3, {"picture": 1})
    assert list(merger.ready(everything=True)) == [(10, {"picture": 1})]


def test_what_was_sent_is_known_per_server(tmp_path):
    assert Sent(tmp_path, url="http://a").next_step() == 0
    sent = Sent(tmp_path, url="http://a")
    sent.begin(tmp_path / "segment", first=0)
    sent.remember([20, 41])
    sent.end(complete=False)
    assert Sent(tmp_path, url="http://a").next_step() == 42
    assert Sent(tmp_path, url="http://b").next_step() == 0
    assert not sent.is_complete()
    (tmp_path / "sent.json").write_text("{")
    assert Sent(tmp_path, url="http://a").next_step() == 0


@pytest.mark.parametrize(("log", "expected"), [
    ([], 10),
    ([ASKED.format(0, 2)], 10),
    ([ASKED.format(0, 2), TAKEN, ASKED.format(2, 2)], 31),
    ([ASKED.format(0, 2), TAKEN, ASKED.format(2, 2), REFUSED], 31),
    ([ASKED.format(0, 2), TAKEN, NO_ROWS, TAKEN, ASKED.format(2, 1), TAKEN, '{"msg": "filestr'], 41),
])  # fmt: skip
def test_rows_that_died_with_wandb_s_own_process_are_sent_again(tmp_path, log, expected):
    sent = Sent(tmp_path, url="http://a")
    sent.begin(tmp_path / "segment", first=10)
    sent.remember([20, 30])
    sent.remember([40, 50])
    with (tmp_path / "handed_over.txt").open("a") as file:
        file.write("6")  # torn by a kill
    assert Sent(tmp_path, url="http://a").next_step() == 51, "without a log, all counts as taken"
    (tmp_path / "segment" / "logs").mkdir(parents=True)
    (tmp_path / "segment" / "logs" / "debug-internal.log").write_text("\n".join([BEGUN, *log]))
    assert Sent(tmp_path, url="http://a").next_step() == expected


# Whether there is somebody to send to


def test_credentials_are_found_where_wandb_finds_them(nobody, monkeypatch, tmp_path):
    assert base_url() == "https://api.wandb.ai"
    assert not has_key()
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "k" * 40 + "\n")
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example.org:8080")
    assert not has_key(), "the key of another host is no key"
    netrc.write_text("machine wandb.example.org login user password x\n")
    assert has_key()
    netrc.write_text("not a netrc file\n")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert has_key()


def test_the_settings_file_names_the_server(nobody, tmp_path):
    (tmp_path / "home" / "settings").write_text("[default]\nbase_url = http://wandb.example.org\n")
    assert base_url() == "http://wandb.example.org"


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Answers GET with one status and POST with another; None: never."""

    daemon_threads = True

    def __init__(self, get, post):
        released = self.released = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status):
                if status is None:
                    released.wait(60)
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self):
                self.answer(get)

            def do_POST(self):
                self.answer(post)

            def log_message(self, *arguments):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.released.set()
        self.shutdown()
        self.server_close()


@pytest.mark.parametrize(("status", "reason"), [(200, None), (404, None), (503, "error 503"), (None, "timed out")])
def test_a_server_is_reachable_if_it_answers_in_time(status, reason):
    with Server(status, 500) as server:
        said = unreachable(server.url, 0.3)
        assert said is None if reason is None else reason in said


def test_no_server_is_unreachable():
    assert "cannot be reached" in unreachable("http://127.0.0.1:9", 1.0)
    assert "not an http(s) address" in unreachable("file:///etc/passwd", 1.0)


# The feed


def test_an_unknown_mode_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"tracker\.wandb\.mode=onlin .*auto, online, offline, disabled"):
        build(tmp_path, mode="onlin")


def test_wandb_mode_disabled_in_the_environment_is_respected(nobody, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert WandbFeed.from_config({"mode": "auto"}, run_dir=tmp_path, run_name="x", config={}) is None
    assert not (tmp_path / "wandb").exists()


ENVIRONMENT = {
    "WANDB_PROJECT": "project", "WANDB_ENTITY": "entity", "WANDB_RUN_GROUP": "group", "WANDB_TAGS": "tags",
}  # fmt: skip


def told(cfg) -> dict:
    """What `wandb.init` is told of a run of a sweep, under the names of the keys."""
    settings = feed_settings(cfg, run_dir=Path("x"), run_name="a", config={}, tags=["t"], group="sweep")
    return {key: settings[key] for key in ENVIRONMENT.values()}


@pytest.fixture
def silent(nobody, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def test_the_environment_counts_where_the_configuration_says_nothing(silent, monkeypatch):
    default = compose([]).tracker.wandb
    assert told(default) == {"project": "robustlab", "entity": None, "group": "sweep", "tags": ["t"]}
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")  # as good as not set
    assert told(default)["project"] == "robustlab"
    for name, key in ENVIRONMENT.items():
        monkeypatch.setenv(name, f"{key}1, {key}2" if key == "tags" else f"their {key}")
    assert told(default) == {
        "project": "their project", "entity": "their entity", "group": "their group", "tags": ["t", "tags1", "tags2"],
    }  # fmt: skip


def test_the_configuration_comes_before_the_environment(silent, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "theirs")
    named = [f"tracker.wandb.{key}={'[ours]' if key == 'tags' else 'ours'}" for key in ENVIRONMENT.values()]
    assert told(compose(named).tracker.wandb) == {
        "project": "ours", "entity": "ours", "group": "ours", "tags": ["t", "ours"],
    }  # fmt: skip


def test_wandbs_own_settings_file_names_the_project(silent, tmp_path):
    (tmp_path / "home" / "settings").write_text("[default]\nproject = saved\nentity = us\n")
    assert (told({})["project"], told({})["entity"]) == ("saved", "us")


def test_an_unwritable_folder_is_said_and_never_replaced_by_another(nobody, tmp_path, capsys):
    (tmp_path / "wandb").write_text("in the way")
    trackers = build(tmp_path)
    log(trackers, 0, 3)
    trackers.finish(0)
    assert "W&B is off" in capsys.readouterr().err
    assert len(list(read_rows(tmp_path / "timing.jsonl"))) == 3


def test_without_a_key_the_run_is_whole_in_one_segment_even_after_kills(nobody, tmp_path, capsys):
    trackers = build(tmp_path, tags=["t"], group="sweep")
    log(trackers, 0, 12)
    trackers.sync()
    state = json.loads(json.dumps(trackers.state_dict()))
    log(trackers, 12, 17)
    feed = trackers._wandb._process
    feed.stdin.close()  # what a kill of the training process does
    feed.wait(timeout=30)
    feed.stdout.close()
    trackers._metrics.close()
    trackers._timing.close()
    capsys.readouterr()

    trackers = build(tmp_path, resume_state=state)
    assert trackers.state_dict()["wandb_id"] == state["wandb_id"]
    assert "/" not in state["wandb_id"]
    assert state["wandb_id"].startswith("a-b-c-seed0-")
    log(trackers, 12, 20)
    trackers.summary({"last": {"test/accuracy": 0.9}})
    trackers.finish(0)
    (segment,) = segments(tmp_path)
    said = capsys.readouterr().err
    assert said == f"W&B is offline (no API key is configured); upload the run with: wandb sync {segment}\n"
    rows = history(segment)
    assert [row["_step"] for row in rows] == list(range(20))
    assert [row["step"] for row in rows] == list(range(20))
    assert rows[14]["train/loss"] == pytest.approx(1 / 15)
    assert rows[14]["time/x"] == 1.0
    assert [row["_step"] for row in rows if "test/accuracy" in row] == [4, 9, 14, 19]


def test_a_signalled_run_keeps_its_last_step_back(nobody, tmp_path, monkeypatch):
    monkeypatch.setattr("robustlab.tracking.wandb.PREEMPTED_SECONDS", 60.0)  # a busy machine may need more than 2
    trackers = build(tmp_path)
    log(trackers, 0, 8)
    while not list((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        time.sleep(0.05)
    trackers.finish(85)
    (segment,) = segments(tmp_path)
    assert [row["_step"] for row in history(segment)] == list(range(7))


def test_a_feed_that_dies_costs_one_warning(nobody, tmp_path, capsys):
    trackers = build(tmp_path)
    log(trackers, 0, 2)
    trackers._wandb._process.send_signal(signal.SIGKILL)
    trackers._wandb._process.wait()
    log(trackers, 2, 10)
    trackers.image("x", tmp_path / "x.png", step=9)
    trackers.summary({"a": 1})
    trackers.finish(0)
    assert capsys.readouterr().err.count("W&B logging has stopped") == 1
    assert [row["step"] for row in read_rows(tmp_path / "timing.jsonl")] == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize(
    "answers",
    [None, (503, 503), (None, None), (200, 500), (200, None), (200, 403)],
    ids=["refused", "down", "hangs", "starts badly", "hangs later", "wrong key"],
)
def test_a_server_that_does_not_work_delays_nothing(nobody, tmp_path, monkeypatch, capsys, answers):
    def check(url):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        started = time.monotonic()
        trackers = build(tmp_path)
        log(trackers, 0, 10)
        assert time.monotonic() - started < 2, "training waits for nobody"
        trackers.finish(0)
        assert time.monotonic() - started < 25
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith("warning: W&B is offline (http://127.0.0.1:")
        (segment,) = segments(tmp_path)
        assert said.endswith(f"wandb sync {segment}\n")
        assert [row["_step"] for row in history(segment)] == list(range(10))
        assert [row["step"] for row in read_rows(tmp_path / "timing.jsonl")] == list(range(10))

    if answers is None:
        check("http://127.0.0.1:9")
        return
    with Server(*answers) as server:
        check(server.url)


PROGRAM = """
import json, os, sys, time
from pathlib import Path
from robustlab.tracking.trackers import Trackers
folder, last = Path(sys.argv[1]), int(sys.argv[2])
checkpoint = folder / "checkpoint.json"
state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "trackers": None}
cfg = {"wandb": {"mode": "auto", "project": "robustlab-tests"}}
trackers = Trackers.from_config(cfg, run_dir=folder, run_name="killed-seed0", config={"seed": 0}, tags=["t"],
                                resume_state=state["trackers"])
for step in range(state["step"], last):
    trackers.log({"train/loss": 1 / (step + 1)}, stage="train", epoch=0, step=step, split="train")
    if step % 50 == 49:
        trackers.log({"test/accuracy": step / last}, stage="train", epoch=0, step=step, split="epoch")
    time.sleep(0.01)
    if step % 20 == 19:
        trackers.sync()
        checkpoint.with_suffix(".tmp").write_text(json.dumps({"step": step + 1, "trackers": trackers.state_dict()}))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
trackers.summary({"last": {"test/accuracy": 0.5}})
trackers.finish(0)
"""


@online
@pytest.mark.slow
def test_a_killed_run_goes_on_as_the_same_run_on_a_real_server(tmp_path):
    """SIGKILL at three moments: the local files are those of an uninterrupted run, the server is told of one run."""
    folder = tmp_path / "killed" / "seed0"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", PROGRAM, str(folder), "600"]
    ids = set()
    for seconds in (3.0, 4.0, 5.0):
        process = subprocess.Popen(command)
        time.sleep(seconds)
        process.kill()
        process.wait()
        ids.add((folder / "wandb" / "run_id").read_text())
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"W&B: {os.environ['WANDB_BASE_URL']}" in done.stderr
    ids.add((folder / "wandb" / "run_id").read_text())
    assert len(ids) == 1
    assert [row["step"] for row in read_rows(folder / "metrics.jsonl") if "train/loss" in row] == list(range(600))
    assert json.loads((folder / "wandb" / "sent.json").read_text())["step"] == 599
    with urllib.request.urlopen(os.environ["WANDB_BASE_URL"], timeout=10) as answer:
        assert answer.status == 200
