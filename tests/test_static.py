"""Functions as static arguments: equal while they read equal values, different after any change.

A wrong "equal" would answer from code compiled for other values, without any sign of it; the first half of this file
looks for such changes. A wrong "different" only compiles again; the second half asserts that common code does not.
"""

import argparse
import array
import collections
import ctypes
import enum
import functools
import gc
import importlib
import operator
import random
import sys
import types
import weakref
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pinnntk_lib as pn
from pinnntk_lib import _static
from pinnntk_lib._static import KEPT, Static, compiled

NU = 1.0  # the global variable that the tests change


def set_nu(value):
    globals()["NU"] = value


@pytest.fixture(autouse=True)
def old_nu():
    yield
    set_nu(1.0)


class Box:
    """An object with attributes."""

    def __init__(self, **values):
        self.__dict__.update(values)


def setter(owner, name="nu", value=3.0):
    return lambda: setattr(owner, name, value)


def put(container, key=0, value=3.0):
    return lambda: container.__setitem__(key, value)


# ---------------------------------------------------------------- changes that must count

CHANGES = {}


def change(maker):
    """Register a function that returns ``(function, change)``, where the change alters what the function returns."""
    CHANGES[maker.__name__] = maker
    return maker


@change
def instance_attribute():
    box = Box(nu=1.0)
    return lambda: box.nu, setter(box)


@change
def attribute_of_self():
    class PDE:
        def __init__(self):
            self.nu = 1.0

        def residual(self):
            return self.nu

    pde = PDE()
    return pde.residual, setter(pde)


@change
def attribute_of_an_attribute():
    box = Box(a=Box(b=Box(nu=1.0)))
    return lambda: box.a.b.nu, setter(box.a.b)


@change
def attribute_read_by_getattr():
    box = Box(nu=1.0)
    name = "nu"
    return lambda: getattr(box, name), setter(box)


@change
def class_attribute():
    class PDE:
        nu = 1.0

    pde = PDE()
    return lambda: pde.nu, setter(PDE)


@change
def inherited_class_attribute():
    class Base:
        nu = 1.0

    class PDE(Base):
        pass

    pde = PDE()
    return lambda: pde.nu, setter(Base)


@change
def metaclass_attribute():
    class Meta(type):
        nu = 1.0

    class PDE(metaclass=Meta):
        pass

    return lambda: PDE.nu, setter(Meta)


@change
def metaclass_property():
    class Meta(type):
        @property
        def nu(cls):
            return NU

    class PDE(metaclass=Meta):
        pass

    return lambda: PDE.nu, lambda: set_nu(3.0)


@change
def global_variable():
    return lambda: NU, lambda: set_nu(3.0)


@change
def global_variable_by_its_name():
    return lambda: globals()["NU"], lambda: set_nu(3.0)


@change
def helper():
    def scaled():
        return 2 * NU

    return lambda: scaled(), lambda: set_nu(3.0)


@change
def code_of_a_helper():
    def scaled():
        return 1.0

    return lambda: scaled(), setter(scaled, "__code__", (lambda: 3.0).__code__)


@change
def closure_cell():
    nu = 1.0

    def change():
        nonlocal nu
        nu = 3.0

    return lambda: nu, change


@change
def default_argument():
    def f(nu=1.0):
        return nu

    return f, setter(f, "__defaults__", (3.0,))


@change
def mutable_default_argument():
    def f(nu=[1.0]):  # noqa: B006
        return nu[0]

    return f, put(f.__defaults__[0])


@change
def keyword_default():
    def f(*, nu=1.0):
        return nu

    return f, put(f.__kwdefaults__, "nu")


@change
def function_attribute():
    def f():
        return f.nu

    f.nu = 1.0
    return f, setter(f)


@change
def array_in_place():
    nu = np.ones(3)
    return lambda: nu[1], put(nu, 1)


@change
def element_of_an_object_array():
    nu = np.array([[1.0], None], object)
    return lambda: nu[0][0], put(nu[0])


@change
def field_of_a_structured_array():
    nu = np.array([(1.0, [1.0])], [("a", float), ("b", object)])
    return lambda: nu[0]["b"][0], put(nu[0]["b"])


@change
def mask():
    nu = np.ma.array([1.0, 2.0])
    return lambda: nu.sum(), put(nu, 0, np.ma.masked)


@change
def attribute_of_an_array():
    class Field(np.ndarray):
        pass

    nu = np.ones(1).view(Field)
    nu.nu = 1.0
    return lambda: nu.nu, setter(nu)


@change
def list_in_place():
    nu = [1.0]
    return lambda: nu[0], put(nu)


@change
def list_in_a_tuple():
    nu = ([1.0],)
    return lambda: nu[0][0], put(nu[0])


@change
def dict_in_place():
    nu = {"nu": 1.0}
    return lambda: nu["nu"], put(nu, "nu")


@change
def set_in_place():
    nu = {1.0}
    return lambda: len(nu), lambda: nu.add(3.0)


@change
def object_in_a_set():
    box = Box(nu=1.0)
    nu = {box}
    return lambda: next(iter(nu)).nu, setter(box)


@change
def class_of_a_dict():
    class Parameters(dict):
        nu = 1.0

    nu = Parameters()
    return lambda: nu.nu, setter(Parameters)


@change
def attribute_of_a_list():
    class Parameters(list):
        pass

    nu = Parameters()
    nu.nu = 1.0
    return lambda: nu.nu, setter(nu)


@change
def attribute_of_a_number():
    class Parameter(float):
        pass

    nu = Parameter(1.0)
    nu.nu = 1.0
    return lambda: nu.nu, setter(nu)


@change
def simple_namespace():
    nu = types.SimpleNamespace(nu=1.0)
    return lambda: nu.nu, setter(nu)


@change
def subclass_of_simple_namespace():
    class Config(types.SimpleNamespace):
        pass

    nu = Config(nu=1.0)
    return lambda: nu.nu, setter(nu)


@change
def parsed_arguments():
    nu = argparse.Namespace(nu=1.0)
    return lambda: nu.nu, setter(nu)


@change
def deque():
    nu = collections.deque([1.0])
    return lambda: nu[0], put(nu)


@change
def chain_map():
    under = {"nu": 1.0}
    nu = collections.ChainMap({}, under)
    return lambda: nu["nu"], put(under, "nu")


@change
def user_list():
    nu = collections.UserList([1.0])
    return lambda: nu[0], put(nu)


@change
def mapping_proxy():
    under = {"nu": 1.0}
    nu = types.MappingProxyType(under)
    return lambda: nu["nu"], put(under, "nu")


@change
def view_of_values():
    under = {"nu": 1.0}
    nu = under.values()
    return lambda: sum(nu), put(under, "nu")


@change
def array_of_numbers():
    nu = array.array("d", [1.0])
    return lambda: nu[0], put(nu)


@change
def bytes_in_place():
    nu = bytearray(b"a")
    return lambda: nu[0], put(nu, 0, 3)


@change
def memory_view():
    under = np.ones(1)
    nu = memoryview(under)
    return lambda: nu[0], put(under)


@change
def c_number():
    nu = ctypes.c_double(1.0)
    return lambda: nu.value, setter(nu, "value")


@change
def c_structure():
    class Parameters(ctypes.Structure):
        _fields_ = (("nu", ctypes.c_double),)

    nu = Parameters(1.0)
    return lambda: nu.nu, setter(nu)


@change
def weak_reference():
    box = Box(nu=1.0)
    nu = weakref.ref(box)
    return lambda: nu().nu, setter(box)


@change
def method_of_a_dict():
    under = {"nu": 1.0}
    get = under.get
    return lambda: get("nu"), put(under, "nu")


@change
def attrgetter():
    box, get = Box(nu=1.0), operator.attrgetter("nu")
    return lambda: get(box), setter(box)


@change
def partial_with_a_list():
    nu = [1.0]
    return functools.partial(lambda nu: nu[0], nu), put(nu)


@change
def partial_method():
    under = [1.0]

    class PDE:
        def of(self, nu):
            return nu[0]

        nu = functools.partialmethod(of, under)

    pde = PDE()
    return lambda: pde.nu(), put(under)


@change
def slots():
    class PDE:
        __slots__ = ("nu",)

    pde = PDE()
    pde.nu = 1.0
    return lambda: pde.nu, setter(pde)


@change
def private_slots():
    class PDE:
        __slots__ = ("__nu",)

        def set(self, nu):
            self.__nu = nu

        def get(self):
            return self.__nu

    pde = PDE()
    pde.set(1.0)
    return pde.get, lambda: pde.set(3.0)


@change
def property_that_reads_a_global():
    class PDE:
        @property
        def nu(self):
            return NU

    pde = PDE()
    return lambda: pde.nu, lambda: set_nu(3.0)


@change
def cached_property():
    class PDE:
        @functools.cached_property
        def nu(self):
            return NU

    return lambda: PDE().nu, lambda: set_nu(3.0)


@change
def descriptor():
    class Reader:
        def __get__(self, instance, owner):
            return NU

    class PDE:
        nu = Reader()

    return lambda: PDE().nu, lambda: set_nu(3.0)


def special_method(name, use):
    def maker():
        pde = type("PDE", (), {name: lambda self, *_: NU})()
        return lambda: use(pde), lambda: set_nu(3.0)

    maker.__name__ = name
    return change(maker)


special_method("__mul__", lambda pde: pde * 1.0)
special_method("__getitem__", lambda pde: pde[0])
special_method("__getattr__", lambda pde: pde.anything)
special_method("__call__", lambda pde: pde())


@change
def constructor():
    class PDE:
        def __init__(self):
            self.nu = NU

    return lambda: PDE().nu, lambda: set_nu(3.0)


@change
def decorated_by_a_class():
    class Scaled:
        def __init__(self, f):
            functools.update_wrapper(self, f)
            self.f, self.nu = f, 1.0

        def __call__(self):
            return self.nu * self.f()

    f = Scaled(lambda: 1.0)
    return f, setter(f)


@change
def wrapper_with_an_installed_name():
    """``functools.wraps`` gives a function the module name of another, here of JAX."""

    @functools.wraps(jnp.tanh)
    def f():
        return NU

    return f, lambda: set_nu(3.0)


@change
def wrapped_by_lru_cache():
    @functools.lru_cache
    def f():
        return NU

    return lambda: f.__wrapped__(), lambda: set_nu(3.0)


@change
def wrapped_by_vectorize():
    f = np.vectorize(lambda x: NU * x)
    return lambda: float(f(1.0)), lambda: set_nu(3.0)


@change
def rule_of_a_custom_jvp():
    @jax.custom_jvp
    def f(x):
        return x

    f.defjvp(lambda x, v: (x[0], NU * v[0]))
    return lambda: float(jax.jvp(f, (1.0,), (1.0,))[1]), lambda: set_nu(3.0)


@change
def rule_of_a_custom_vjp():
    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, g: (NU * g,))
    return lambda: float(jax.grad(f)(1.0)), lambda: set_nu(3.0)


@change
def coefficients_of_an_installed_class():
    nu = np.polynomial.Polynomial([1.0, 1.0])
    return lambda: nu(1.0), put(nu.coef)


@change
def enum_member():
    class Material(enum.Enum):
        STEEL = 1

    Material.STEEL.nu = 1.0
    return lambda: Material.STEEL.nu, setter(Material.STEEL)


@change
def object_that_denies_its_class():
    class PDE:
        @property
        def __class__(self):
            return int

    pde = PDE()
    pde.nu = 1.0
    return lambda: pde.nu, setter(pde)


@change
def dataclass_that_is_not_frozen():
    @dataclass
    class PDE:
        nu: float = 1.0
        other: list = field(default_factory=list)

        def __call__(self):
            return self.nu

    pde = PDE()
    return pde, setter(pde)


@change
def end_of_a_long_chain():
    """1,000 objects, each an attribute of the one before: deeper than Python's recursion limit allows."""
    first = box = Box(nu=1.0)
    for _ in range(1000):
        box = Box(next=box)

    def f():
        at = box
        while hasattr(at, "next"):
            at = at.next
        return at.nu

    return f, setter(first)


@change
def object_behind_a_long_list():
    values, box = [[float(i)] for i in range(20_000)], Box(nu=1.0)
    return lambda: values[0][0] + box.nu, setter(box)


@change
def changed_behind_a_cycle():
    box = Box(nu=1.0)
    box.itself, box.others = box, [box]
    return lambda: box.itself.others[0].nu, setter(box)


def different(name):
    f, change = CHANGES[name]()
    before, again, value = Static(f), Static(f), f()
    assert before == again
    assert hash(before) == hash(again)
    change()
    assert f() != value, "the case is wrong: it changes nothing"
    return before != Static(f)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_counts(name):
    assert different(name)


@pytest.fixture
def user_modules(tmp_path, monkeypatch):
    """Modules as in a user's folder, one of them with the name of one of Python's: ``import_module``."""
    pde = "class PDE:\n    def f(self):\n        return nu\n"
    (tmp_path / "wave.py").write_text("nu = 1.0\ndef f():\n    return nu\n" + pde)
    (tmp_path / "user_config.py").write_text("nu = 1.0\n")
    (tmp_path / "user_package" / "inner").mkdir(parents=True)
    (tmp_path / "user_package" / "__init__.py").write_text("from . import inner\n")
    (tmp_path / "user_package" / "local.py").write_text("def f():\n    from .inner import nu\n    return nu\n")
    (tmp_path / "user_package" / "inner" / "__init__.py").write_text("import user_package\nnu = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = [name for name in sys.modules if name.partition(".")[0] in ("wave", "user_config", "user_package")]
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    _static._installed.cache_clear()
    yield importlib.import_module
    for name in [n for n in sys.modules if n.partition(".")[0] in ("wave", "user_config", "user_package")]:
        del sys.modules[name]
    _static._installed.cache_clear()


def imported_inside():
    import user_config

    return user_config.nu


def imported_name_inside():
    from user_package.inner import nu

    return nu


def named(name, module):
    """Return a function that reads ``name.nu``, a global variable that holds a module."""
    return eval(f"lambda: {name}.nu", {name.partition(".")[0]: module, "__name__": "__main__"})


@pytest.mark.parametrize(
    ("module", "reader"),
    [
        ("user_config", lambda module: lambda: module.nu),  # in a closure
        ("user_config", lambda module: lambda m=module: m.nu),
        ("user_config", lambda module: Box(module=module)),
        ("user_config", lambda module: named("user_config", module)),
        ("user_config", lambda module: imported_inside),
        ("user_package.inner", lambda module: imported_name_inside),
        ("user_package.inner", lambda module: importlib.import_module("user_package.local").f),
        ("user_package.inner", lambda module: named("user_package.inner", sys.modules["user_package"])),
        ("wave", lambda module: module.f),
        ("wave", lambda module: named("wave", module)),
        ("wave", lambda module: module.PDE().f),
    ],
)
def test_a_change_in_a_users_module_counts(user_modules, module, reader):
    module = user_modules(module)
    f = reader(module)
    before = Static(f)
    assert before == Static(f)
    module.nu = 3.0
    assert before != Static(f)


@pytest.mark.parametrize(("a", "b"), [(True, 1), (1, 1.0), (0.0, -0.0), (None, 0), ("1", 1), ([1], (1,))])
def test_equal_numbers_that_are_not_the_same(a, b):
    """JAX computes other things with them: ``1 / x``, or an integer's dtype."""

    def reader(value):
        return lambda: value

    assert Static(reader(a)) != Static(reader(b))
    assert Static(reader(a)) == Static(reader(a))


def test_nan_equals_itself():
    def reader(value):
        return lambda: value

    assert Static(reader(float("nan"))) == Static(reader(float("nan")))
    assert Static(reader(np.array([np.nan]))) == Static(reader(np.array([np.nan])))


def test_arrays_of_equal_bytes_but_other_shapes_or_dtypes():
    def reader(value):
        return lambda: value

    zeros = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.int64), np.zeros(8, np.float32)]
    assert len({Static(reader(z)) for z in zeros}) == 4


def test_objects_whose_contents_cannot_be_seen():
    """Two generators of random numbers with other seeds: what C code holds is compared by identity."""

    class Numbers(random.Random):
        pass

    def reader(value):
        return lambda: value

    a, b = Numbers(1), Numbers(2)
    assert Static(reader(a)) == Static(reader(a))
    assert Static(reader(a)) != Static(reader(b))
    assert Static(reader(random.Random(1))) != Static(reader(random.Random(2)))


def test_too_much_to_compare_is_never_equal(monkeypatch):
    """Beyond a limit the answer is "different", which costs time, and never "equal", which would be wrong."""
    monkeypatch.setattr(_static, "MOST_VALUES", 100)

    def reader(count):
        values = [[] for _ in range(count)]
        return lambda: values

    few, many = reader(90), reader(100)
    assert Static(few) == Static(few)
    assert Static(many) != Static(many)


# ---------------------------------------------------------------- what must not count


class Wave:
    """A user's class, whose objects are equal if their attributes are."""

    def __init__(self, c):
        self.c = c
        self.itself = self

    def residual(self, u, x):
        return pn.dd(u, 0)(x) - self.c**2 * pn.dd(u, 1)(x)


@dataclass
class Heat:
    nu: float

    def __call__(self, u, x):
        return pn.d(u, 0)(x) - self.nu * pn.dd(u, 1)(x)


@dataclass(frozen=True)
class FrozenHeat:
    nu: float

    def __call__(self, u, x):
        return pn.d(u, 0)(x) - self.nu * pn.dd(u, 1)(x)


def nested():
    here = []
    for _ in range(5):
        here = [here, {"a": here}]
    return lambda: here


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda u, x: NU * u(x),
        lambda: Wave(2.0).residual,
        lambda: Heat(0.1),
        lambda: FrozenHeat(0.1),
        lambda: functools.partial(lambda nu, u, x: nu * u(x), 2.0),
        lambda: optax.adam(1e-3),
        lambda: optax.adam(optax.exponential_decay(1e-3, 100, 0.9)),
        lambda: optax.chain(optax.clip(1.0), optax.lbfgs()),
        lambda: pn.NTKWeights(),
        lambda: pn.MLP(7).apply,
        lambda: pn.System(lambda u, x: jnp.stack([u(x), u(x)]), 2),
        lambda: pn.problems.Poisson1D(a=4).operators["r"],
        lambda: jax.tree_util.Partial(lambda u, x: u(x)),
        lambda: types.SimpleNamespace(nu=np.ones(3)),
        lambda: slice(0, 3),
        nested,
    ],
)
def test_made_twice(make):
    assert Static(make()) == Static(make())
    assert hash(Static(make())) == hash(Static(make()))


def test_made_with_other_values():
    assert Static(optax.adam(1e-3)) != Static(optax.adam(2e-3))
    assert Static(pn.NTKWeights(every=5)) != Static(pn.NTKWeights(every=6))
    assert Static(pn.MLP(7).apply) != Static(pn.MLP(8).apply)
    assert Static(Heat(0.1)) != Static(Heat(0.2))
    assert Static(Heat(0.1)) != Static(FrozenHeat(0.1))


def test_another_global_than_those_read_does_not_count():
    f = lambda u, x: NU * u(x)  # noqa: E731
    before = Static(f)
    globals()["UNREAD"] = object()
    try:
        assert before == Static(f)
    finally:
        del globals()["UNREAD"]


def test_a_static_is_what_it_wraps():
    wrapped = Static(pn.System(lambda u, x: u(x), 2))
    assert wrapped.outputs == 2
    assert wrapped(lambda x: 2 * x, 3.0) == 6.0
    assert wrapped != wrapped.wrapped
    with pytest.raises(AttributeError):
        wrapped.nothing  # noqa: B018


def test_only_the_newest_specialisations_are_kept():
    """Functions that are not used any more are freed, and the memory of their compiled code with them."""

    @compiled(1)
    def applied(f, x):
        return f(x)

    def made(i):
        return lambda x: i * x

    functions = [made(i) for i in range(2 * KEPT)]
    alive = [weakref.ref(f) for f in functions]
    for i, f in enumerate(functions):
        assert applied(Static(f), 1.0) == i
    del functions, f
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * KEPT + [True] * KEPT


def test_equal_functions_of_which_one_changed_before_another_shape():
    """JAX traces again for a new shape: from the function that is passed now, not from an equal one of long ago."""

    @compiled(1)
    def applied(f, x):
        return f(x)

    first, second = Box(nu=2.0), Box(nu=2.0)

    def reader(box):
        return lambda x: box.nu * x

    assert applied(Static(reader(first)), jnp.ones(1)).tolist() == [2.0]
    first.nu = 5.0
    assert applied(Static(reader(second)), jnp.ones(2)).tolist() == [2.0, 2.0]


# ---------------------------------------------------------------- from end to end

MODEL = pn.MLP(4, dim=2)
PARAMS = MODEL.init(jax.random.key(0))
X = jnp.full((3, 2), 0.3)


class Scaled:
    nu = 1.0

    def residual(self, u, x):
        return self.nu * u(x)


def problem_of(operator):
    condition = pn.Condition(operator, lambda x: 0.0, lambda n, key: X)
    return pn.Problem({"r": condition}, (0.0, 0.0), (1.0, 1.0))


OPTIMIZER = optax.sgd(1e-9)


def first_loss(operator, points=X):
    result = pn.train(MODEL.apply, PARAMS, problem_of(operator), {"r": points}, OPTIMIZER, 2, progress=False)
    return result.history["losses"]["r"][0]


def quantity(f):
    def value(operator):
        return float(f(MODEL.apply, PARAMS, {"r": operator}, {"r": X}))

    return value


QUANTITIES = {
    "ntk": quantity(lambda *setting: pn.ntk(*setting).matrix[0, 0]),
    "jacobian": quantity(lambda *setting: pn.ntk(*setting, "jacobian").matrix[0, 0]),
    "diagonal": quantity(lambda *setting: pn.ntk_diagonal(*setting)["r"][0]),
    "product": quantity(lambda *setting: pn.ntk_vector_product(*setting, jnp.ones(3))[0]),
    "eigenpairs": quantity(lambda *setting: pn.ntk_eigenpairs(*setting, 1, jax.random.key(0))[0][0]),
    "limit": lambda operator: float(pn.limit.ntk(MODEL, {"r": operator}, {"r": X}).matrix[0, 0]),
    "train": first_loss,
}


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("kind", ["attribute", "closure", "global"])
def test_answers_after_a_change(name, kind):
    """All these quantities are quadratic in the operator, so nu = 3 gives 9 times as much and nu = 10 100 times."""
    pde, cell = Scaled(), np.ones(())
    operators = {"attribute": pde.residual, "closure": lambda u, x: cell[()] * u(x), "global": lambda u, x: NU * u(x)}
    changes = {"attribute": setter(pde), "closure": lambda: cell.fill(3.0), "global": lambda: set_nu(3.0)}
    value, operator = QUANTITIES[name], operators[kind]
    before = value(operator)
    changes[kind]()
    assert np.isclose(value(operator), 9 * before, rtol=1e-9)
    if kind == "attribute":
        pde.nu = 10.0
        assert np.isclose(value(operator), 100 * before, rtol=1e-9)
        pde.nu = 1.0
        assert np.isclose(value(operator), before, rtol=1e-9)


@pytest.mark.parametrize("name", ["train", "jacobian", "limit"])
def test_an_equal_operator_that_changed_before_other_shapes(name):
    """Code compiled for the first operator serves the second, equal one; other shapes must not read the first again."""
    first, second = Scaled(), Scaled()
    values = {
        "train": lambda operator, n: first_loss(operator, X[:n]),
        "jacobian": lambda operator, n: float(
            pn.ntk(MODEL.apply, PARAMS, {"r": operator}, {"r": X}, "jacobian", memory=2**30 if n == 3 else 450).matrix[
                0, 0
            ]
        ),
        "limit": lambda operator, n: float(pn.limit.ntk(MODEL, {"r": operator}, {"r": X[:n]}).matrix[0, 0]),
    }
    before = values[name](first.residual, 3)
    first.nu = 7.0
    assert np.isclose(values[name](second.residual, 2), before, rtol=1e-9)


def test_a_model_that_reads_state():
    net = Box(nu=1.0)
    value = lambda: float(  # noqa: E731
        pn.ntk(lambda p, x: net.nu * MODEL.apply(p, x), PARAMS, {"r": lambda u, x: u(x)}, {"r": X}).matrix[0, 0]
    )
    before = value()
    net.nu = 3.0
    assert np.isclose(value(), 9 * before)


def test_an_optimiser_that_reads_state():
    rates = [1e-3]

    def update(gradient, state, params=None):
        return jax.tree.map(lambda g: -rates[0] * g, gradient), state

    optimizer = optax.GradientTransformation(lambda params: (), update)

    def moved():
        problem = problem_of(lambda u, x: u(x))
        result = pn.train(MODEL.apply, PARAMS, problem, {"r": X}, optimizer, 1, progress=False)
        return result.params[0]["W"] - PARAMS[0]["W"]

    before = moved()
    rates[0] = 2e-3
    assert np.allclose(moved(), 2 * before, rtol=1e-6, atol=1e-15)


def test_an_unhashable_operator():
    """An ordinary dataclass has no hash."""
    heat = Heat(0.1)
    with pytest.raises(TypeError):
        hash(heat)
    expected = pn.ntk(MODEL.apply, PARAMS, {"r": lambda u, x: Heat(0.1)(u, x)}, {"r": X}).matrix
    assert np.allclose(pn.ntk(MODEL.apply, PARAMS, {"r": heat}, {"r": X}).matrix, expected, rtol=1e-12)
    assert np.isclose(first_loss(heat), first_loss(lambda u, x: Heat(0.1)(u, x)), rtol=1e-12)
    found = pn.diagnose(MODEL.apply, PARAMS, problem_of(heat), {"r": X})
    assert np.allclose(found.K.matrix, expected, rtol=1e-12)
    limit = pn.limit.ntk(MODEL, {"r": heat}, {"r": X}).matrix
    assert np.allclose(limit, pn.limit.ntk(MODEL, {"r": lambda u, x: Heat(0.1)(u, x)}, {"r": X}).matrix, rtol=1e-12)


class Tracings:
    """Counts how often residuals are traced, which is by ``jax.make_jaxpr``."""

    def __enter__(self):
        self.count, self.patch = 0, pytest.MonkeyPatch()
        make = jax.make_jaxpr

        def counted(*args, **options):
            self.count += 1
            return make(*args, **options)

        self.patch.setattr(jax, "make_jaxpr", counted)
        return self

    def __exit__(self, *_):
        self.patch.undo()


@pytest.mark.parametrize("name", sorted(QUANTITIES.keys() - {"limit"}))
def test_the_same_lambda_made_again_is_not_traced_again(name):
    """As when a cell of a notebook is executed again."""

    def made(nu):
        return lambda u, x: (nu, name) and nu * u(x) ** 2  # the name, because some quantities share what is traced

    value = QUANTITIES[name]
    value(made(2.0))
    with Tracings() as again:
        for _ in range(3):
            value(made(2.0))
    with Tracings() as other:
        value(made(2.5))
    assert again.count == 0
    assert other.count > 0
