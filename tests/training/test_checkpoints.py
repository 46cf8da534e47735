"""Checkpoints restore a run bit for bit; interruptions, full disks and damaged files lose at most the newest one."""

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import killed_program
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import pinnntk_lib as pn
from conftest import same
from pinnntk_lib.training import Checkpoints
from pinnntk_lib.training._result import packed

resource = pytest.importorskip("resource")  # Windows has none, nor signals
OPTIMIZER = optax.adam(1e-3)


def train(setup, steps, **options):
    model, params, problem, points = setup
    options = {"weights": pn.NTKWeights(every=7), "log_every": 10, "checkpoint_every": 20, **options}
    return pn.train(model.apply, params, problem, points, OPTIMIZER, steps, **options)


def same_run(a, b):
    return same((a.state, a.history, a.snapshots), (b.state, b.history, b.snapshots))


def test_resuming_from_a_directory_is_bit_identical(poisson, tmp_path):
    whole = train(poisson, 60, snapshots=(0, 20, 50))
    first = train(poisson, 40, snapshots=(0, 20), checkpoints=tmp_path)
    assert not first.interrupted
    # when resuming, only the structure of the parameters passed is used
    model, params, problem, points = poisson
    other = model, jax.tree.map(jnp.zeros_like, params), problem, points
    resumed = train(other, 60, snapshots=(0, 20, 50), resume=tmp_path, checkpoints=tmp_path)
    assert same_run(whole, resumed)
    assert list(resumed.snapshots) == [0, 20, 50]
    assert list(resumed.history["losses"]) == ["u", "r"]


def test_the_newest_two_are_kept(poisson, tmp_path):
    train(poisson, 95, checkpoints=tmp_path)
    assert Checkpoints(tmp_path).steps == [80, 95]


def test_single_precision_stays_single(poisson, tmp_path):
    model, params, problem, points = poisson
    single = model, *jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params,)), problem, points
    first = train(single, 20, checkpoints=tmp_path)
    assert same_run(first, train(single, 20, resume=tmp_path))


def test_another_runs_directory_is_not_overwritten(poisson, tmp_path):
    train(poisson, 20, checkpoints=tmp_path)
    with pytest.raises(ValueError, match=r"checkpoints: .* already holds a run up to step 20; pass it as resume"):
        train(poisson, 40, checkpoints=tmp_path)


def test_a_checkpoint_of_another_network(poisson, tmp_path):
    train(poisson, 20, checkpoints=tmp_path)
    _, _, problem, points = poisson
    model = pn.MLP(width=5)
    with pytest.raises(ValueError, match=r"resume: expected a run with the same params \(float64\[5, 1\] at"):
        train((model, model.init(jax.random.key(0)), problem, points), 40, resume=tmp_path)


def test_a_checkpoint_of_another_problem(poisson, tmp_path):
    train(poisson, 20, checkpoints=tmp_path)
    model, params, problem, points = poisson
    names = {"u": "b", "r": "r"}
    other = pn.Problem({names[n]: c for n, c in problem.conditions.items()}, problem.lower, problem.upper)
    points = {names[n]: x for n, x in points.items()}
    with pytest.raises(ValueError, match=r"resume: expected the conditions \['b', 'r'\], got .* \(unknown \['u'\]"):
        train((model, params, other, points), 40, resume=tmp_path)


def test_a_checkpoint_without_the_state_s_structure(poisson, tmp_path):
    """Checkpoints of version 0.1.0 hold no structure; of these, the arrays' shapes alone are checked."""
    part = train(poisson, 20)
    contents = packed(part)
    del contents["structure"]
    Checkpoints(tmp_path).save(20, contents)
    assert same_run(train(poisson, 40), train(poisson, 40, resume=tmp_path))
    _, _, problem, points = poisson
    model = pn.MLP(width=5)
    with pytest.raises(ValueError, match=r"resume: expected the checkpoint of a run with .*float64\[5, 1\].*, got"):
        train((model, model.init(jax.random.key(0)), problem, points), 40, resume=tmp_path)


def noise(first_key):
    """Return gradient descent with noise, whose state has a random key, a number and an array without elements."""

    def init(params):
        return {"key": first_key, "rate": 1e-6, "empty": jnp.zeros((0, 3)), "half": jnp.ones(2, jnp.bfloat16)}

    def update(gradient, state, params=None):
        key, now = jax.random.split(state["key"])
        draw = jax.tree.map(lambda g: -state["rate"] * (g + jax.random.normal(now, g.shape)), gradient)
        return draw, {**state, "key": key, "half": state["half"] * 1.01}

    return optax.GradientTransformation(init, update)


def plain(tree):
    """Return a pytree with the data of its random keys instead of the keys."""

    def data(leaf):
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    return jax.tree.map(data, tree)


@pytest.mark.parametrize(
    "key", [jax.random.key(1), jax.random.key(1, impl="rbg"), jax.random.PRNGKey(1)], ids=["typed", "rbg", "raw"]
)
def test_every_kind_of_array_in_a_state_is_kept(poisson, tmp_path, key):
    model, params, problem, points = poisson
    optimizer = noise(key)

    def run(steps, **options):
        setting = model.apply, params, problem, points, optimizer, steps
        return pn.train(*setting, log_every=10, measure=lambda params: {"none": np.zeros((0, 2))}, **options)

    whole, part = run(40), run(20, checkpoints=tmp_path)
    assert part.state.opt_state["half"].dtype == jnp.bfloat16
    for resume in (part, tmp_path):
        resumed = run(40, resume=resume)
        assert resumed.state.opt_state["key"].dtype == key.dtype
        assert same((plain(whole.state), whole.history), (plain(resumed.state), resumed.history))


def test_keys_of_another_kind(poisson, tmp_path):
    """The data of these two kinds of key have the same shape."""
    model, params, problem, points = poisson
    kinds = [noise(jax.random.key(1, impl=kind)) for kind in ("rbg", "unsafe_rbg")]
    first = pn.train(model.apply, params, problem, points, kinds[0], 20, checkpoints=tmp_path)
    for resume in (first, tmp_path):
        with pytest.raises(
            ValueError, match=r"resume: .* same optimizer \(key<urbg>\[\] at \['key'\]\), got .* \(key<rbg>"
        ):
            pn.train(model.apply, params, problem, points, kinds[1], 40, resume=resume)


def test_parameters_in_bfloat16(poisson, tmp_path):
    model, params, problem, points = poisson
    half = model, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), problem, points
    first = train(half, 20, weights=None, snapshots=(10,), checkpoints=tmp_path)
    assert same_run(first, train(half, 20, weights=None, resume=tmp_path))


def test_an_error_in_the_middle_leaves_a_checkpoint(poisson, tmp_path):
    def fail(params, rows=[]):  # noqa: B006 -- counts the rows
        rows.append(1)
        return {} if len(rows) < 4 else 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        train(poisson, 60, measure=fail, checkpoints=tmp_path, checkpoint_every=1000)
    assert Checkpoints(tmp_path).steps == [30]
    whole = train(poisson, 60)
    assert same_run(whole, train(poisson, 60, resume=tmp_path))
    assert same_run(whole, train(poisson, 60, resume=caught.value.result))


def test_one_run_at_a_time_writes_to_a_directory(poisson, tmp_path):
    def second_run(params):
        with pytest.raises(pn.CheckpointError, match=rf"checkpoints: {tmp_path} is in use by another run"):
            train(poisson, 60, checkpoints=tmp_path)
        return {}

    train(poisson, 20, measure=second_run, checkpoints=tmp_path)
    train(poisson, 40, resume=tmp_path, checkpoints=tmp_path)


def test_another_process_has_the_directory_until_it_is_killed(poisson, tmp_path):
    """A lock that outlived its process would keep a killed run from being resumed."""
    program = (
        "import sys, time; from pinnntk_lib.training import Checkpoints\n"
        "with Checkpoints(sys.argv[1]).locked():\n"
        "    print('locked', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(pn.CheckpointError, match=rf"checkpoints: {tmp_path} is in use by another run"):
        train(poisson, 20, checkpoints=tmp_path)
    child.kill()
    child.communicate()
    assert not train(poisson, 20, checkpoints=tmp_path).interrupted


def test_a_file_system_without_locks(poisson, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    train(poisson, 20, checkpoints=tmp_path)
    assert Checkpoints(tmp_path).steps == [20]


def test_a_directory_that_cannot_be_written_to(poisson, tmp_path):
    """It is found before training. Root may write anywhere, so a folder in the lock's place stands in."""
    (tmp_path / ".lock").mkdir()
    with pytest.raises(pn.CheckpointError, match=rf"checkpoints: {tmp_path} cannot be written to \("):
        train(poisson, 10**9, checkpoints=tmp_path)


def test_resuming_only_reads(poisson, tmp_path):
    train(poisson, 20, checkpoints=tmp_path)
    (tmp_path / ".lock").unlink()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    train(poisson, 40, resume=tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


def test_nothing_to_resume(poisson, tmp_path):
    with pytest.raises(pn.CheckpointError, match="resume: expected a directory with checkpoints, found none in"):
        train(poisson, 20, resume=tmp_path)


def test_a_path_that_is_no_directory(poisson, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(pn.CheckpointError, match=rf"checkpoints: {file} cannot be used .*File exists"):
        train(poisson, 20, checkpoints=file)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(pn.CheckpointError, match=rf"resume: {nowhere} cannot be used .*No such file"):
        train(poisson, 20, resume=nowhere)
    assert not nowhere.exists()


def test_ctrl_c_leaves_a_checkpoint(poisson, tmp_path):
    calls = []

    def interrupt(params):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {}

    part = train(poisson, 60, measure=interrupt, checkpoints=tmp_path, checkpoint_every=1000)
    assert part.interrupted
    assert Checkpoints(tmp_path).steps == [30]
    assert same_run(train(poisson, 60), train(poisson, 60, resume=tmp_path))


def test_ctrl_c_in_the_middle_of_a_save_waits_until_it_is_complete(poisson, tmp_path, monkeypatch):
    """Ctrl-C during a save takes effect after it: once interrupted in a save, orbax may not be able to save again."""
    save = ocp.CheckpointManager.save

    def interrupted_save(manager, step, **arguments):
        if step == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return save(manager, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted_save)
    part = train(poisson, 60, checkpoints=tmp_path)
    assert part.interrupted
    assert Checkpoints(tmp_path).steps == [20, 40]
    assert same_run(train(poisson, 60), train(poisson, 60, resume=tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def data_files(directory):
    """Return the files that hold the arrays' values, largest first."""
    return sorted((f for f in directory.rglob("d/*") if f.is_file()), key=lambda f: -f.stat().st_size)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_good(poisson, tmp_path, damage):
    train(poisson, 40, checkpoints=tmp_path)
    whole = train(poisson, 60)
    newest = tmp_path / "40"
    for file in data_files(newest):  # orbax writes some arrays twice and may read either copy
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes({"flip": content, "cut": content[: len(content) // 2], "empty": b""}[damage])
    with pytest.raises(pn.CheckpointError, match=rf"{newest} is damaged .*; delete {newest} to resume from step 20"):
        train(poisson, 60, resume=tmp_path)
    subprocess.run(["rm", "-r", newest], check=True)
    assert same_run(whole, train(poisson, 60, resume=tmp_path))


def test_each_flipped_bit_is_noticed_or_harmless(poisson, tmp_path):
    """Restoring a checkpoint with one flipped bit raises an error or returns the saved values.

    On its own, orbax reads many flipped bits without noticing.
    """
    train(poisson, 20, checkpoints=tmp_path)
    expected, rng, noticed = Checkpoints(tmp_path).restore(), random.Random(0), 0
    for file in (f for f in (tmp_path / "20").rglob("*") if f.is_file()):
        content = file.read_bytes()
        for _ in range(10 if file in data_files(tmp_path) else 2):
            damaged = bytearray(content)
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            try:
                assert same(Checkpoints(tmp_path).restore(), expected)
            except pn.CheckpointError:
                noticed += 1
        file.write_bytes(content)
    assert noticed > 10


def test_a_full_disk_loses_nothing(poisson, tmp_path):
    """When a checkpoint cannot be written, the one before and the run's result stay usable.

    A limit on file size stands in for a full disk.
    """
    model, _, problem, points = poisson
    model = pn.MLP(width=5000)  # 160 kB per checkpoint
    setup = model, model.init(jax.random.key(0)), problem, points
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    calls = []

    def fill_the_disk(params):
        calls.append(1)
        if len(calls) == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        return {}

    try:
        with pytest.raises(pn.CheckpointError) as caught:
            train(setup, 60, measure=fill_the_disk, checkpoints=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = str(caught.value)
    assert "the checkpoint of step 40 could not be written" in message
    assert "the checkpoint of step 20 is intact" in message
    assert caught.value.result.history["step"].tolist() == [0, 10, 20, 30, 40]
    whole = train(setup, 60)
    assert same_run(whole, train(setup, 60, resume=tmp_path))
    assert same_run(whole, train(setup, 60, resume=caught.value.result))


@pytest.mark.slow
def test_forty_kills_lose_only_what_came_since_the_last_checkpoint(tmp_path):
    """A run killed at random moments, often during a save, and resumed each time ends as an uninterrupted run does.

    Each kill loses at most the steps since the last checkpoint.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pinnntk_lib.training"])  # imported once, not by every child
    rows, rng = tmp_path / "rows", random.Random(0)
    rows.touch()

    def started():
        child = processes.Process(target=killed_program.run, args=(tmp_path,))
        child.start()
        return child

    reached = 0
    for _ in range(40):
        before = rows.stat().st_size
        child = started()
        while rows.stat().st_size == before:  # wait until it trains
            assert child.is_alive(), "the run failed, as it has said"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.4))
        assert child.is_alive(), "the run is over before it could be killed: give it more steps"
        child.kill()
        child.join()
        made = (rows.stat().st_size - before) // 2
        last_row = reached + killed_program.LOG_EVERY * (made - 1)
        left = [*Checkpoints(tmp_path / "checkpoints").steps, 0]
        lost = last_row - max(left)
        assert lost <= killed_program.CHECKPOINT_EVERY
        reached = max(left)
    assert reached > 0
    child = started()
    child.join()
    assert child.exitcode == 0
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.steps[-1] == killed_program.STEPS
    alone = killed_program.train(note=None)
    assert same(store.restore(), packed(alone))
