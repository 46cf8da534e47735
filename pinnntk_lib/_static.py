"""Functions as static arguments of compiled code: compared by what they do, not by which object they are.

JAX compares static arguments by ``==`` and ``hash``, which for functions means identity. A function that reads state,
such as ``self.nu`` or a variable of the notebook, would go on running compiled code after the state has changed; and a
cell that is executed again would compile everything anew. A :class:`Static` compares a function's code and the values
that it reads instead.
"""

import hashlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial, update_wrapper
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Compiled code that is kept per kind of computation; with the oldest dropped, memory stays bounded.
KEPT = 12
MOST_VALUES = 10_000  # values that a key may hold; what lies beyond is compared by identity
HEAP_TYPE = 1 << 9  # the flag of classes that Python code defines
PLAIN = (type(None), bool, int, str, bytes, range, type(...), np.dtype)


class Static:
    """A function, or an object with methods, that compares by its code and the values that it reads.

    The values are read once, when this object is made.

    They are those of its arguments' defaults, its closure, the variables of its module that it names, and the
    attributes of the objects and classes among them. Functions and classes of installed packages count as unchanging.
    JAX arrays, and objects whose contents Python code cannot see, are compared by identity.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        try:
            self._key = _Key().of(wrapped)
        except RecursionError:
            self._key = _Same(wrapped)
        self._hash = hash(self._key)

    def __call__(self, *args: Any) -> Any:
        return self.wrapped(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "wrapped"), name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return repr(self.wrapped)


def static(thing: Any) -> Static:
    """Return a function, or an object with methods, as a :class:`Static`, unless it is one."""
    return thing if isinstance(thing, Static) else Static(thing)


def compiled(static_args: int, **options: Any) -> Callable[[Callable], Callable]:
    """Compile a function by ``jax.jit`` for each value of its first ``static_args`` arguments.

    In contrast to ``jax.jit`` with ``static_argnums``, only the newest specialisations are kept, so that programs that
    make new functions again and again need no more and more memory.
    """

    def decorate(function):
        @lru_cache(maxsize=KEPT)
        def specialised(*args):
            return jax.jit(partial(function, *args), **options)

        def call(*args):
            return specialised(*args[:static_args])(*args[static_args:])

        call.specialised = specialised
        return update_wrapper(call, function)

    return decorate


class _Same:
    """An object, compared by identity."""

    def __init__(self, thing):
        self.thing = thing

    def __eq__(self, other):
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self):
        return id(self.thing)


class _Key:
    """Builds the hashable key of one function."""

    def __init__(self):
        self.seen = {}  # {id: number} of the objects met, which keeps them alive and ends cycles
        self.alive = []

    def of(self, thing):
        """Return a key that is equal for equal things, and different after a change."""
        if isinstance(thing, PLAIN):
            return type(thing), thing
        if isinstance(thing, float | complex):
            return type(thing), repr(thing)  # NaN equals itself, and 0.0 differs from -0.0
        if id(thing) in self.seen:
            return "seen", self.seen[id(thing)]
        if len(self.seen) >= MOST_VALUES:
            return _Same(thing)
        self.seen[id(thing)] = len(self.seen)
        self.alive.append(thing)
        return self.of_object(thing)

    def of_object(self, thing):
        kind = type(thing)
        if isinstance(thing, Static):
            return self.of(thing.wrapped)
        if isinstance(thing, np.ndarray | np.generic) and thing.dtype != object:
            contents = hashlib.blake2b(np.ascontiguousarray(thing).tobytes(), digest_size=16).digest()
            return kind, thing.dtype, thing.shape, contents
        if isinstance(thing, types.FunctionType):
            return self.of_function(thing)
        if isinstance(thing, types.MethodType):
            return kind, self.of(thing.__func__), self.of(thing.__self__)
        if isinstance(thing, partial):
            return kind, self.of(thing.func), self.of(thing.args), self.of(thing.keywords)
        if isinstance(thing, staticmethod | classmethod):
            return kind, self.of(thing.__func__)
        if isinstance(thing, property):
            return kind, self.of((thing.fget, thing.fset))
        if isinstance(thing, tuple | list):
            return _Same(kind), tuple(map(self.of, thing)), self.of_attributes(thing)
        if isinstance(thing, Mapping):
            return _Same(kind), tuple((self.of(k), self.of(v)) for k, v in thing.items()), self.of_attributes(thing)
        if isinstance(thing, set | frozenset):
            return kind, frozenset(map(self.of, thing))
        if isinstance(thing, type):
            return self.of_class(thing)
        if isinstance(thing, jax.Array | types.ModuleType):
            return _Same(thing)
        return self.of_instance(thing)

    def of_function(self, function):
        code = function.__code__
        cells = [_contents(cell) for cell in function.__closure__ or ()]
        key = [code, self.of(function.__defaults__), self.of(function.__kwdefaults__), *map(self.of, cells)]
        if not _installed(function.__module__):
            names = _names(code)
            for name in sorted(names & function.__globals__.keys()):
                value = function.__globals__[name]
                if isinstance(value, types.ModuleType) and not _installed(value.__name__):
                    value = [value, {n: vars(value)[n] for n in sorted(names & vars(value).keys())}]
                key.append((name, self.of(value)))
        return types.FunctionType, *key, self.of_attributes(function)

    def of_class(self, cls):
        own = () if _installed(cls.__module__) else [base for base in cls.__mro__ if not _installed(base.__module__)]
        read = [(name, self.of(value)) for base in own for name, value in vars(base).items() if not _special(name)]
        return _Same(cls), *read

    def of_instance(self, thing):
        cls = type(thing)
        if _installed(cls.__module__):
            if is_dataclass(cls):
                compared = [f.name for f in fields(cls) if f.compare]
                return _Same(cls), *(self.of(getattr(thing, name, None)) for name in compared)
            wrapped = getattr(thing, "__wrapped__", None)
            return _Same(thing), self.of(wrapped)
        if not all(base.__flags__ & HEAP_TYPE for base in cls.__mro__[:-1]):
            return _Same(thing)  # a subclass of a type whose contents Python cannot see
        return self.of(cls), self.of_attributes(thing)

    def of_attributes(self, thing):
        values = {name: getattr(thing, name) for name in _slots(type(thing)) if hasattr(thing, name)}
        values |= getattr(thing, "__dict__", {})
        return tuple((name, self.of(value)) for name, value in values.items())


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell: a function that is not defined yet
        return None


@lru_cache(maxsize=1024)
def _slots(cls):
    """Return the names in the ``__slots__`` of a class and its bases."""
    slots = [vars(base).get("__slots__", ()) for base in cls.__mro__]
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    return [name for name in names if not _special(name)]


def _special(name):
    return name.startswith("__") and name.endswith("__") and name != "__call__"


@lru_cache(maxsize=1024)
def _names(code):
    """Return all names that code and the code within it read."""
    return frozenset(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, types.CodeType)))


@lru_cache(maxsize=1024)
def _installed(module):
    """Return whether a module belongs to Python or an installed package, whose functions and classes do not change."""
    root = str(module).partition(".")[0]
    if root in sys.stdlib_module_names and root != "__main__":
        return True
    if root == __name__.partition(".")[0]:
        return True
    path = getattr(sys.modules.get(root), "__file__", None)
    return path is not None and bool({"site-packages", "dist-packages"} & set(Path(path).parts))
