"""The benchmark: what it counts and how it repeats, and its command on a toy."""

import json
import re
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy import moving_target, save_toy, toy_branch, toy_model

from hiptrack.cli import benchmark
from hiptrack.errors import ConfigError, HiptrackError, NotFoundError
from hiptrack.extras.benchmark.eval import track_frames
from hiptrack.extras.benchmark.measure import Timing, interleaved, peak_memory_mb, ratio, table_of
from hiptrack.extras.benchmark.roofline import Attention, Ceilings, Convolution, Product, flops, record
from hiptrack.extras.benchmark.track import _in_a_process
from hiptrack.models import layers as products
from hiptrack.models.weights import load_model, read_metadata, save_weights
from hiptrack.tracking.memory import MemoryPolicy
from hiptrack.tracking.tracker import Tracker

F32 = torch.float32


def test_repetitions_are_taken_in_turn_and_the_first_do_not_count(monkeypatch):
    order, clock = [], [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def task(name, seconds):
        def run():
            order.append(name)
            clock[0] += next(seconds)

        return run

    tasks = {"a": task("a", iter([9, 1, 2, 6])), "b": task("b", iter([9, 2, 8, 6]))}
    timings = interleaved(tasks, 3, warm_up=1, synchronise=lambda: order.append("wait"))
    assert order[:6] == ["wait", "a", "wait", "wait", "b", "wait"] and order.count("a") == 4
    assert timings["a"].seconds.tolist() == [1, 2, 6] and timings["a"].median == 2
    assert timings["b"].ms(50) == 6000
    assert ratio(timings["b"], timings["a"]) == 2  # of 2, 4 and 1; the medians' is 3


def test_percentiles_are_in_milliseconds():
    timing = Timing(np.arange(101) / 1000)
    assert timing.row() == pytest.approx({"ms p50": 50, "ms p95": 95, "ms min": 0, "ms max": 100})


def test_flops_of_known_layers_are_exact(monkeypatch):
    x = torch.randn(2, 5, 8)
    image, kernel = torch.randn(1, 4, 9, 9), torch.randn(6, 4, 3, 3)
    heads = torch.randn(1, 3, 7, 4)

    def layers():
        F.linear(x, torch.randn(3, 8), torch.randn(3))
        F.conv2d(image, kernel, None, 2, 1)
        F.conv2d(image, kernel, torch.randn(6))
        F.scaled_dot_product_attention(heads, heads, heads)
        _ = heads @ heads.transpose(-1, -2)
        return x + 1

    work = record(layers)
    assert work == Counter(
        [
            Product(1, 10, 8, 3, F32),
            Convolution((1, 4, 9, 9), (6, 4, 3, 3), (2, 2), (1, 1), F32),
            Convolution((1, 4, 9, 9), (6, 4, 3, 3), (1, 1), (0, 0), F32),
            Attention((1, 3, 7, 4), (1, 3, 7, 4), (1, 3, 7, 4), F32),
            Product(3, 7, 4, 7, F32),
        ]
    )
    attention, scores = 2 * 3 * 7 * 7 * (4 + 4), 2 * 3 * 7 * 7 * 4
    assert flops(work) == 2 * 10 * 8 * 3 + 2 * 25 * 6 * 4 * 9 + 2 * 49 * 6 * 4 * 9 + attention + scores

    monkeypatch.setattr(products, "convolution_is_faster", lambda: True)
    monkeypatch.setattr(products, "LEAST", 0)
    assert record(lambda: products.linear(x, torch.randn(3, 8))) == Counter([Product(1, 10, 8, 3, F32)])
    assert flops(record(lambda: products.product(x[0], x[1].t()))) == 2 * 5 * 8 * 5


def test_a_branch_that_is_off_or_folded_costs_no_product():
    model, plain = toy_model(challenge=toy_branch), toy_model()
    pictures, box = moving_target(5)

    def work(model, branch):
        policy = MemoryPolicy(template_frames=1, early=(1,), interval=2, capacity=2)
        tracker = Tracker(model, branch=branch, memory=policy, device="cpu")
        target = tracker.start(pictures[0], box)
        return record(lambda: [tracker.step([target], [picture]) for picture in pictures[1:]])

    without = work(plain, "off")
    assert work(model, "off") == without and work(model, "folded") == without
    assert flops(work(model, "on")) > flops(without)


def test_the_estimate_is_the_sum_over_the_shapes():
    parts = [
        Product(1, 4, 5, 6, F32),
        Product(2, 4, 5, 6, F32),
        Convolution((1, 2, 8, 8), (3, 2, 3, 3), (1, 1), (1, 1), F32),
    ]
    ceilings = Ceilings(parts, repetitions=2)
    assert all(0 < ceilings.best[part] <= ceilings.plain[part] for part in parts)
    work = Counter({parts[0]: 3, parts[2]: 1})
    assert ceilings.estimate(work) == pytest.approx(3 * ceilings.best[parts[0]] + ceilings.best[parts[2]])
    (first, _) = ceilings.rows(work)
    assert first["shape"].startswith("convolution") and first["GFLOP"] == pytest.approx(2 * 64 * 3 * 2 * 9 / 1e9)


def test_tables_show_all_columns():
    rows = [{"a": 1, "b": 1234.5}, {"a": None, "c": 0.12345}]
    assert table_of(rows) == (["a", "b", "c"], [["1", "1234", "-"], ["-", "-", "0.123"]])


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    return benchmark.main()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    save_toy(path)
    return path


@pytest.mark.slow
def test_benchmark_track_times_each_memory_and_writes_json(toy, tmp_path, monkeypatch, capsys):
    file = tmp_path / "track.json"
    options = ["--memory", 4, 5, "--precision", "float32", "bf16", "--repetitions", 1, "--shapes", "--json", file]
    monkeypatch.setattr(
        "hiptrack.extras.benchmark.track._in_a_process", lambda function, *arguments: function(*arguments)
    )
    run(monkeypatch, "track", "--checkpoint", toy, *options)
    result = json.loads(file.read_text())
    rows = result["rows"]
    assert [(row["precision"], row["in memory"]) for row in rows] == [
        ("float32", 4), ("float32", 5), ("bf16", 4), ("bf16", 5),
    ]  # fmt: skip
    one_frame = 64 * 64 * (8 + 16) / 1e9  # affinities and values of 64 places
    assert rows[1]["GMAC"] - rows[0]["GMAC"] == pytest.approx(one_frame)
    for row in rows:
        assert all(row[name] > 0 for name in ("model ms p50", "end to end ms p50", "roofline ms", "peak MB"))
    assert torch.__version__.startswith(result["machine"]["torch"]) and result["settings"]["model"] == str(toy)
    assert "float32, 5 in memory / 4" in result["settings"] and "float32 / bf16, 4 in memory" in result["settings"]
    printed = capsys.readouterr().out
    assert (
        all(what in printed for what in ("processor", "load", "gpu", "torch"))
        and "of roofline" in printed
        and "GFLOP" in printed
    )


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_of_its_own():
    ballast = np.ones(10**9 // 8)  # 1 GB here is nothing to the other process
    assert peak_memory_mb() > ballast.nbytes / 1e6
    assert 100 < _in_a_process(peak_memory_mb) < peak_memory_mb() - ballast.nbytes / 1e6 / 2


@pytest.mark.slow
def test_benchmark_eval_sets_end_to_end_beside_the_tracker_alone(toy, tmp_path, monkeypatch):
    file = tmp_path / "eval.json"
    options = ["--sequences", 3, "--frames", 3, "--batch", 1, 2, "--repetitions", 1, "--json", file]
    run(monkeypatch, "eval", "--checkpoint", toy, *options)
    result = json.loads(file.read_text())
    assert [row["at once"] for row in result["rows"]] == [1, 2]
    for row in result["rows"]:
        frames_s = {name: row[f"frames/s, {name}"] for name in ("end to end", "tracker", "all threads")}
        assert row["decode ms"] > 0 and min(frames_s.values()) > 0
        assert row["end to end / tracker"] == pytest.approx(frames_s["end to end"] / frames_s["tracker"])
    kilobytes = int(re.fullmatch(r"3 x 3 of 1280 x 720, (\d+) kB JPEG", result["settings"]["frames"])[1])
    assert 60 <= kilobytes <= 180
    assert 1 <= result["settings"]["threads of the tracker"] <= torch.get_num_threads()


def test_the_tracker_alone_sees_every_frame_that_an_evaluation_tracks():
    class Recorder:
        def __init__(self):
            self.seen = []

        def start(self, frame, box):
            self.seen.append([(frame, box)])
            return self.seen[-1]

        def step(self, targets, frames):
            for target, frame in zip(targets, frames, strict=True):
                target.append(frame)
            return [None] * len(targets)

    recorder = Recorder()
    track_frames(recorder, [(("a1", "a2", "a3"), "a"), (("b1", "b2", "b3"), "b"), (("c1", "c2", "c3"), "c")], 2)
    assert recorder.seen == [[("a1", "a"), "a2", "a3"], [("b1", "b"), "b2", "b3"], [("c1", "c"), "c2", "c3"]]


def test_an_evaluation_that_fails_has_no_speed(tmp_path, monkeypatch):
    path = tmp_path / "nan.safetensors"
    save_toy(path)
    model = load_model(path)
    model.box_head.score.out.bias.data.fill_(float("nan"))
    save_weights(path, model, read_metadata(path)["model"])
    with pytest.raises(HiptrackError, match="not finite"):
        run(monkeypatch, "eval", "--checkpoint", path, "--sequences", 1, "--frames", 2, "--repetitions", 1)


@pytest.mark.parametrize(
    "arguments, error, said",
    [
        (["track", "--checkpoint", "none.safetensors"], NotFoundError, "not found: none.safetensors"),
        (["track", "--model", "gin/model/hiptrack_b385.gin"], HiptrackError, "hiptrack_b385"),
        (["track", "--memory", "0"], ConfigError, "--memory 0"),
        (["track", "--repetitions", "0"], ConfigError, "--repetitions 0"),
        (["eval", "--frames", "1"], ConfigError, "2 frames"),
    ],
)
def test_bad_requests_are_explained(arguments, error, said, monkeypatch):
    with pytest.raises(error, match=said):
        run(monkeypatch, *arguments)
