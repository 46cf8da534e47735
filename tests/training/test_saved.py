"""Parameters in a file."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pinnntk_lib as pn
from conftest import same

leaves = st.builds(
    lambda shape, dtype: jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(["float32", "float64", "bfloat16", "float16"]),
)
trees = st.recursive(
    leaves,
    lambda children: (
        st.lists(children, min_size=1, max_size=3)
        | st.dictionaries(st.text(max_size=5), children, min_size=1, max_size=3)
        | st.tuples(children, children)
    ),
    max_leaves=8,
)


@given(params=trees.filter(lambda tree: any(leaf.size for leaf in jax.tree.leaves(tree))))
def test_parameters_come_back_as_they_were(tmp_path_factory, params):
    file = tmp_path_factory.mktemp("saved") / "params"
    pn.save_params(file, params)
    assert same(pn.load_params(file), params)
    assert same(pn.load_params(str(file), like=params), params)
    assert [path.name for path in file.parent.iterdir()] == ["params"]


class Pair(NamedTuple):
    a: jax.Array
    b: jax.Array


def test_other_structures_need_a_likeness(tmp_path):
    params = Pair(jnp.ones(2), jnp.zeros(3))
    pn.save_params(tmp_path / "p", params)
    with pytest.raises(
        ValueError, match="like: expected parameters of the saved structure, which has nodes other than"
    ):
        pn.load_params(tmp_path / "p")
    assert same(pn.load_params(tmp_path / "p", like=params), params)
    pn.save_params(tmp_path / "q", {0: jnp.ones(2)})
    with pytest.raises(ValueError, match="like: expected parameters of the saved structure"):
        pn.load_params(tmp_path / "q")


def test_a_trained_model_computes_the_same(poisson, tmp_path):
    model, params, problem, points = poisson
    result = pn.train(model.apply, params, problem, points, pn.kernel_gradient_descent(), 5)
    pn.save_params(tmp_path / "model.npz", result.params)
    loaded = pn.load_params(tmp_path / "model.npz", like=params)
    assert same(loaded, result.params)
    assert same(np.load(tmp_path / "model.npz")["0"], np.asarray(jax.tree.leaves(result.params)[0]))


def test_what_is_wrong_is_said(poisson, tmp_path):
    model, params, *_ = poisson
    file = tmp_path / "p"
    pn.save_params(file, params)
    with pytest.raises(
        ValueError, match=r"file: expected params\[0\]\['W'\] of shape \(7, 1\), as in like, got \(12, 1\)"
    ):
        pn.load_params(file, like=pn.MLP(7).init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"file: expected 6 arrays, as in like, got 4"):
        pn.load_params(file, like=pn.MLP(12, depth=2).init(jax.random.key(0)))
    with pytest.raises(OSError, match="No such file"):
        pn.load_params(tmp_path / "nowhere")
    with pytest.raises(OSError, match="No such file"):
        pn.save_params(tmp_path / "nowhere" / "p", params)
    for text in (b"", b"PK no zip", file.read_bytes()[:200]):
        file.write_bytes(text)
        with pytest.raises(ValueError, match="file: expected one that save_params has written, got"):
            pn.load_params(file)
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="file: expected one that save_params has written, got"):
        pn.load_params(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="params: expected"):
        pn.save_params(file, {})
    with pytest.raises(ValueError, match=r"params\['a'\]: expected finite numbers"):
        pn.save_params(file, {"a": jnp.array([jnp.nan])})


def test_a_failed_save_leaves_the_old_file(poisson, tmp_path, monkeypatch):
    _, params, *_ = poisson
    file = tmp_path / "p"
    pn.save_params(file, params)
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        pn.save_params(file, params)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
