import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from conftest import same
from pinnntk_lib import experiments
from pinnntk_lib.__main__ import main


def test_a_run_says_all_about_itself(tmp_path):
    out = tmp_path / "run"
    result = experiments.run("poisson1d-width10", seed=3, steps=250, out=out, progress=False)
    run = experiments.load(out)
    setting = experiments.EXPERIMENTS["poisson1d-width10"].setting()
    assert same((run.params[250], run.history), (result.params, result.history))
    assert list(run.params) == list(run.kernels) == [0, 100, 250]
    assert same(run.params[0], setting.model.init(jax.random.key(3)))
    for step, params in run.params.items():
        K = pn.ntk(setting.model.apply, params, setting.problem, setting.points).matrix
        np.testing.assert_allclose(run.kernels[step], K, rtol=1e-12)
    assert run.history["step"].tolist() == [0, 100, 200, 250]
    change = np.linalg.norm(run.kernels[250] - run.kernels[0]) / np.linalg.norm(run.kernels[0])
    np.testing.assert_allclose(run.history["K_change"][[0, -1]], [0, change], rtol=1e-10, atol=1e-15)
    record = run.record
    assert record["command"] == "python -m pinnntk_lib run poisson1d-width10 --seed 3"
    assert record["versions"]["jax"] == jax.__version__
    assert record["machine"]["cores"] == os.cpu_count()
    assert (record["step"], record["precision"], record["interrupted"]) == (250, "float64", False)
    assert np.isclose(record["error"], record["last"]["error"], rtol=1e-10)
    assert record["sessions"][0]["to_step"] == 250
    assert record["sessions"][0]["seconds"] > 0


def test_a_resumed_run_is_the_same_run(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    experiments.run("poisson1d-width10", steps=300, out=whole, progress=False)
    experiments.run("poisson1d-width10", steps=200, out=part, progress=False)
    experiments.run("poisson1d-width10", steps=300, out=part, resume=True, progress=False)
    a, b = experiments.load(whole), experiments.load(part)
    assert same((a.history, a.params, a.kernels), (b.history, b.params, b.kernels))
    assert [session["to_step"] for session in b.record["sessions"]] == [200, 300]


def test_a_directory_keeps_its_run(tmp_path):
    experiments.run("poisson1d-width10", steps=10, out=tmp_path, progress=False)
    before = (tmp_path / "record.json").read_bytes()
    for arguments in ({}, {"resume": True, "seed": 1}):
        with pytest.raises(ValueError, match=r"out: .* holds a run of poisson1d-width10, seed 0; continue that run"):
            experiments.run("poisson1d-width10", steps=20, out=tmp_path, progress=False, **arguments)
    assert (tmp_path / "record.json").read_bytes() == before


def test_a_resumed_run_that_stops_at_its_start_leaves_the_record(tmp_path, monkeypatch):
    experiments.run("poisson1d-width10", steps=100, out=tmp_path, progress=False)
    before = (tmp_path / "record.json").read_bytes()

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pinnntk_lib.training._loop.run_steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            experiments.run("poisson1d-width10", steps=200, out=tmp_path / "new", progress=False)
        patch.setattr(experiments.Setting, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            experiments.run("poisson1d-width10", steps=200, out=tmp_path, resume=True, progress=False)
    assert (tmp_path / "record.json").read_bytes() == before
    # a new run claims its directory before it trains
    with pytest.raises(ValueError, match="holds a run of poisson1d-width10, seed 0"):
        experiments.run("poisson1d-width10", steps=200, out=tmp_path / "new", progress=False)


def test_a_diverged_run_leaves_what_came_before(tmp_path, monkeypatch):
    setting = replace(experiments.EXPERIMENTS["poisson1d-width10"].setting(), optimizer=optax.sgd(1.0))
    wild = experiments.Experiment("too large a learning rate", True, lambda: setting)
    monkeypatch.setitem(experiments.EXPERIMENTS, "poisson1d-width10", wild)
    with pytest.raises(pn.DivergenceError):
        experiments.run("poisson1d-width10", out=tmp_path, progress=False)
    run = experiments.load(tmp_path)
    assert "diverged at step" in run.record["diverged"]
    assert run.history["step"].tolist() == [0]


def test_the_papers_settings():
    """The experiments have the paper's settings. The normalisation and the schedule are checked by their effect."""
    poisson = experiments.EXPERIMENTS["poisson1d-adaptive"].setting()
    assert {name: x.shape for name, x in poisson.points.items()} == {"u": (100, 1), "r": (100, 1)}
    assert (poisson.model.width, poisson.model.depth, poisson.model.parameterization) == (100, 1, "ntk")
    assert (poisson.steps, poisson.weights) == (40_000, pn.NTKWeights(every=100))
    wave = experiments.EXPERIMENTS["wave1d-adaptive"].setting()
    assert (wave.model.width, wave.model.depth, wave.model.parameterization) == (500, 3, "standard")
    drawn = wave.points(jax.random.key(0))
    assert {name: len(x) for name, x in drawn.items()} == {"u": 300, "ut": 100, "r": 300}
    sample = np.asarray(pn.problems.Wave1D().points(100_000, jax.random.key(1))["r"])
    np.testing.assert_allclose(wave.model.shift, sample.mean(0), rtol=1e-2)
    np.testing.assert_allclose(wave.model.scale, sample.std(0), rtol=1e-2)
    # with constant gradients, Adam's step is its learning rate
    state, gradient = wave.optimizer.init(np.float32(0)), np.ones(2001, np.float32)
    _, rates = jax.lax.scan(lambda state, g: wave.optimizer.update(g, state)[::-1], state, gradient)
    rates = -np.asarray(rates)
    np.testing.assert_allclose([rates[0], rates[1000], rates[2000]], [1e-3, 9e-4, 8.1e-4], rtol=1e-3)
    assert experiments.EXPERIMENTS["wave1d-plain"].setting().weights is None


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_experiment_starts(name):
    experiment = experiments.EXPERIMENTS[name]
    setting = experiment.setting()
    params, key = experiments.start_of(setting, 0)
    result = setting.train(params, key, steps=2, progress=False)
    assert np.isfinite(result.history["error"]).all()


def test_the_list(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments.EXPERIMENTS)


def test_an_unknown_experiment(capsys):
    assert main(["run", "poisson"]) == 1
    assert "name: expected one of poisson1d-a1, poisson1d-a2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on(tmp_path, sent):
    """A command stopped by Ctrl-C, or by a scheduler's SIGTERM, continues with --resume to the same result."""
    command = [sys.executable, "-m", "pinnntk_lib", "run", "poisson1d-a1", "--steps", "20000", "--out", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any((tmp_path / "checkpoints").glob("[0-9]*")):
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)
    child.send_signal(sent)
    said, errors = child.communicate()
    assert child.returncode == 130, errors
    assert said.startswith("stopped at step")
    assert json.loads((tmp_path / "record.json").read_text())["interrupted"]
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("done at step 20000, error")
    whole = experiments.run("poisson1d-a1", steps=20_000, out=tmp_path / "whole", progress=False)
    run = experiments.load(tmp_path)
    assert same((run.params[20_000], run.history["losses"]["u"][-1]), (whole.params, whole.history["losses"]["u"][-1]))
