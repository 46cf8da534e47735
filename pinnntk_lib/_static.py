"""Functions as static arguments of compiled code: compared by what they do, not by which object they are.

JAX compares static arguments by ``==`` and ``hash``, which for functions means identity. A function that reads state,
such as ``self.nu`` or a variable of the notebook, would go on running compiled code after the state has changed; and a
cell that is executed again would compile everything anew. A :class:`Static` compares a function's code and the values
that it reads instead.
"""

import argparse
import array
import collections
import ctypes
import functools
import hashlib
import os
import sys
import types
import weakref
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial, update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

# Compiled code that is kept per kind of computation; with the oldest dropped, memory stays bounded.
KEPT = 12
MOST_VALUES = 200_000  # objects that a key may hold; a function that reads more equals no other
HEAP_TYPE = 1 << 9  # the flag of classes that Python code defines
PLAIN = frozenset({type(None), bool, int, str, bytes, range, type(...)})
LISTS = (tuple, list, collections.deque, KeysView, ValuesView, ItemsView)
BUFFERS = (bytearray, memoryview, array.array, ctypes._SimpleCData, ctypes.Array, ctypes.Structure, ctypes.Union)
# Python's own classes whose instances hold what is put there, as instances of a user's class do.
OPEN = (types.SimpleNamespace, argparse.Namespace, collections.UserList, collections.UserString)
CODE = (types.FunctionType, staticmethod, classmethod, property)
READ = (*CODE, types.MethodType, partial, np.ndarray, jax.Array)  # in instances of installed classes
STDLIB = Path(os.__file__).parent


class Static:
    """A function, or an object with methods, that compares by its code and the values that it reads.

    The values are read once, when this object is made.

    They are those of its arguments' defaults, its closure, the variables of its module that it names, and the
    attributes of the objects and classes among them. Functions and classes of installed packages count as unchanging;
    of their instances only arrays, functions and, in dataclasses, fields are read. JAX arrays, and objects whose
    contents Python code cannot see, are compared by identity.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self._key = _key_of(wrapped)
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
            def traced(*others):
                return function(*traced.newest, *others)

            traced.newest = args
            return jax.jit(traced, **options)

        def call(*args):
            run = specialised(*args[:static_args])
            # JAX traces again for other shapes. Equal functions of an earlier call may have changed since.
            run.__wrapped__.newest = args[:static_args]
            return run(*args[static_args:])

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


class _Named(NamedTuple):
    """The variables of a user's module with some names."""

    module: types.ModuleType
    names: frozenset[str]


def _key_of(thing):
    """Return a hashable key that is equal for things that read equal values, and different after a change.

    The key lists everything that is reached from the thing, each object once and followed by its parts. A list rather
    than recursion: users' structures may be deep.
    """
    key, seen, stack = [], {}, [thing]
    while stack:
        thing = stack.pop()
        kind = type(thing)
        if kind in PLAIN:
            key.append((kind, thing))
            continue
        if kind is float or kind is complex:
            key.append((kind, repr(thing)))  # NaN equals itself, and 0.0 differs from -0.0
            continue
        identity = (id(thing.module), thing.names) if kind is _Named else id(thing)
        if identity in seen:
            key.append(("seen", seen[identity][0]))
            continue
        if len(seen) >= MOST_VALUES:
            return (object(),)
        seen[identity] = len(seen), thing  # kept alive, so that no other object gets its id
        head, parts = _parts(thing, kind)
        key.append((head, len(parts)))
        stack.extend(reversed(parts))
    return tuple(key)


def _parts(thing, kind):
    """Return what identifies an object by itself, hashable, and the list of its parts.

    All decisions go by ``kind``, since an object's ``__class__`` may be that of another.
    """
    if kind is Static:
        return kind, [thing.wrapped]
    if kind is types.FunctionType:
        return _function_parts(thing)
    if kind is types.MethodType:
        return kind, [thing.__func__, thing.__self__]
    if kind in (types.BuiltinFunctionType, types.MethodWrapperType):
        owner = thing.__self__
        is_plain = owner is None or isinstance(owner, types.ModuleType)
        return (_Same(thing), []) if is_plain else ((kind, thing.__name__), [owner])
    if kind is _Named:
        found = vars(thing.module)
        names = sorted(thing.names & found.keys())
        return (_Same(thing.module), *names), [_named(found[name], thing.names) for name in names]
    if issubclass(kind, types.ModuleType):
        own = () if _installed(thing.__name__) else [n for n in vars(thing) if not _special(n)]
        return _Same(thing), [_Named(thing, frozenset(own))] if own else []
    if issubclass(kind, type):
        return _class_parts(thing)
    if issubclass(kind, np.dtype):
        return thing, []
    if kind is slice:
        return kind, [thing.start, thing.stop, thing.step]
    if kind is property:
        return kind, [thing.fget, thing.fset]
    if kind in (staticmethod, classmethod):
        return kind, [thing.__func__]
    names, values = _attributes(thing)
    own = [kind, *values]
    if issubclass(kind, partial | functools.partialmethod):
        return names, [*own, thing.func, thing.args, thing.keywords]
    if issubclass(kind, np.ndarray | np.generic):
        array = np.asarray(thing)
        if array.dtype.hasobject:
            return (array.dtype, array.shape, *names), [*own, *array.ravel().tolist()]
        contents = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
        return (array.dtype, array.shape, contents, *names), own
    if issubclass(kind, BUFFERS):
        return (bytes(memoryview(thing).tobytes()), *names), own
    if issubclass(kind, LISTS):
        return names, [*own, *thing]
    if issubclass(kind, Mapping):
        return names, [*own, *(part for item in thing.items() for part in item)]
    if issubclass(kind, set | frozenset):
        plain = frozenset((type(part), part) for part in thing if type(part) in PLAIN)
        return (plain, *names), [*own, *(part for part in thing if type(part) not in PLAIN)]
    if issubclass(kind, weakref.ref):
        return names, [*own, thing()]
    if issubclass(kind, OPEN) or not _installed(kind.__module__):
        # of a subclass of a type whose contents Python cannot see, the identity counts too
        is_seen = issubclass(kind, OPEN) or not any(map(_opaque, kind.__mro__[:-1]))
        return names if is_seen else (_Same(thing), *names), own
    if is_dataclass(kind):
        return kind, [getattr(thing, f.name, None) for f in fields(kind) if f.compare]
    return _Same(thing), [v for n, v in zip(names, values) if n == "__wrapped__" or isinstance(v, READ)]


def _function_parts(function):
    code, variables = function.__code__, function.__globals__
    reads, parts = _names(code), [function.__defaults__, function.__kwdefaults__]
    parts += [_named(_contents(cell), reads) for cell in function.__closure__ or ()]
    names, values = _attributes(function)
    read = []
    if not _installed(variables.get("__name__")):  # functools.wraps changes the function's own __module__
        read = [(name, _variable(name, variables)) for name in sorted(reads)]
        read = [(name, _named(value, reads)) for name, value in read if value is not _MISSING]
    head = types.FunctionType, code, len(parts), *names, *(name for name, _ in read)
    return head, [*parts, *values, *(value for _, value in read)]


def _variable(name, variables):
    """Return a global variable, or a user's module that a function imports itself."""
    if name in variables:
        return variables[name]
    for full in (name, f"{variables.get('__package__')}.{name}"):
        if full in sys.modules and not _installed(full):
            return sys.modules[full]
    return _MISSING


_MISSING = object()


def _named(value, names):
    """Return a user's module as its variables with these names, and everything else as it is."""
    is_own = isinstance(value, types.ModuleType) and not _installed(value.__name__)
    return _Named(value, names) if is_own else value


def _class_parts(cls):
    if _installed(cls.__module__):
        return _Same(cls), []
    found = [
        (name, value)
        for base in cls.__mro__
        if not _installed(base.__module__)
        for name, value in vars(base).items()
        if not _special(name) or isinstance(value, CODE)
    ]
    return (_Same(cls), *(name for name, _ in found)), [type(cls), *(value for _, value in found)]


def _attributes(thing):
    """Return the names and the values of an object's own attributes, without running its code."""
    found = {}
    for name, slot in _slots(type(thing)):
        try:
            found[name] = slot.__get__(thing)
        except AttributeError:  # not set
            continue
    with suppress(AttributeError):
        found |= object.__getattribute__(thing, "__dict__")
    return tuple(found), list(found.values())


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell: a function that is not defined yet
        return None


@lru_cache(maxsize=1024)
def _slots(cls):
    """Return the names and descriptors of the ``__slots__`` of a class and its bases."""
    bases = [base for base in cls.__mro__ if base.__flags__ & HEAP_TYPE]
    found = [item for base in bases for item in vars(base).items()]
    return [(name, slot) for name, slot in found if isinstance(slot, types.MemberDescriptorType)]


def _opaque(cls):
    """Return whether a class is written in C, as the module ``copyreg`` finds out; its contents cannot be seen."""
    return not cls.__flags__ & HEAP_TYPE or isinstance(vars(cls).get("__new__"), types.BuiltinFunctionType)


def _special(name):
    return name.startswith("__") and name.endswith("__")


@lru_cache(maxsize=1024)
def _names(code):
    """Return all names that code and the code within it read, and all texts, which may be names for ``getattr``."""
    texts = (text for text in code.co_consts if isinstance(text, str))
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return frozenset(code.co_names).union(texts, *inner)


@lru_cache(maxsize=1024)
def _installed(module):
    """Return whether a module belongs to Python or an installed package, whose functions and classes do not change."""
    root = str(module).partition(".")[0]
    if root in ("__main__", "__mp_main__"):
        return False
    if root == __name__.partition(".")[0]:
        return True
    path = getattr(sys.modules.get(root), "__file__", None)
    if path is None:
        return root in sys.stdlib_module_names
    # a user's wave.py hides Python's module of that name
    return STDLIB in Path(path).parents or bool({"site-packages", "dist-packages"} & set(Path(path).parts))
