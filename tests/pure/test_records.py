"""Our `dataclass` is the library's in all that one sees of it; only when it compiles differs."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from typing import Any, ClassVar

import pytest

from hikube_local import records
from tests.conftest import ROOT

OPTIONS = [
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "kw_only": True},
    {"slots": True, "eq": False},
]


def pair(options: dict[str, Any], make: Any) -> list[Any]:
    """The same class by the library's decorator and by ours."""
    found = []
    for decorate in (dataclasses.dataclass, records.dataclass):
        cls = make(lambda c, d=decorate: d(**options)(c) if options else d(c))
        cls.__qualname__ = cls.__name__
        found.append(cls)
    return found


def plain(decorate: Any) -> Any:
    @decorate
    class Thing:
        kind: ClassVar[str] = "thing"
        name: str
        sizes: list[int] = dataclasses.field(default_factory=list)
        secret: str = dataclasses.field(default="", repr=False)
        seen: float = dataclasses.field(default=0.0, compare=False)

        @property
        def long(self) -> str:
            return self.name * 2

    return Thing


def tried(action: Any) -> Any:
    try:
        return action()
    except Exception as e:
        return type(e), str(e).split("<locals>.")[-1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_the_library_makes(options):
    named = options.get("kw_only")

    def make(cls: Any, name: str, **more: Any) -> Any:
        return cls(name=name, **more) if named else cls(name, **more)

    said = []
    for cls in pair(options, plain):
        a, b, other = make(cls, "a"), make(cls, "a", seen=3.0), make(cls, "b", sizes=[1], secret="s")
        said.append(
            [
                repr(a),
                repr(other),
                a == b,
                a == other,
                a == "a",
                a != b,
                tried(lambda x=a, y=b: hash(x) == hash(y)) if options.get("eq", True) else hash(a) == hash(b),
                a.sizes is not b.sizes,
                tried(lambda x=a: setattr(x, "name", "z")),
                tried(lambda x=a: delattr(x, "sizes")),
                tried(lambda x=a: setattr(x, "unknown", 1)) is None,
                tried(cls)[0],
                tried(lambda c=cls: c("x", "y", "z", "q", "too many"))[0],
                tried(lambda c=cls: c(name="x", odd=1)),
                [f.name for f in dataclasses.fields(cls)],
                dataclasses.asdict(other),
                repr(dataclasses.replace(other, name="c")),
                other.long,
                cls.kind,
                cls.__match_args__,
                hasattr(other, "__dict__"),
                repr(copy.copy(other)),
                repr(copy.deepcopy(other)),
            ]
        )
    library, ours = said
    assert ours == library


@records.dataclass(frozen=True, slots=True)
class Kept:
    name: str
    more: tuple[Kept, ...] = ()


@records.dataclass
class Trouble(Exception):
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class Worse(Trouble):
    def __init__(self, what: str) -> None:
        super().__init__(what, "worse")


def test_kept_in_a_pickle():
    thing = Kept("a", (Kept("b"),))
    assert pickle.loads(pickle.dumps(thing)) == thing
    assert copy.deepcopy({thing}) == {thing}


def test_a_class_below_it_and_what_it_says_itself():
    assert str(Worse("disk")) == "disk: worse" and repr(Worse("disk")) == "Worse(what='disk', why='worse')"

    def make(decorate: Any) -> Any:
        @decorate
        class Even:
            n: int

            def __post_init__(self) -> None:
                if self.n % 2:
                    raise ValueError(f"{self.n} is odd")

            def __repr__(self) -> str:
                return f"<{self.n}>"

            def __eq__(self, other: object) -> bool:
                return True

        return Even

    for options in OPTIONS[:4]:
        said = [
            [repr(cls(4)), cls(2) == 7, tried(lambda c=cls: c(3)), tried(lambda c=cls: hash(c(2)) == hash(c(2)))]
            for cls in pair(options, make)
        ]
        assert said[0] == said[1], options


def test_a_class_that_stands_on_another():
    def make(decorate: Any) -> Any:
        @decorate
        class Below:
            name: str = "n"

        @decorate
        class Above(Below):
            size: int = 3

        Above.below = Below
        return Above

    for options in OPTIONS:
        said = [
            [
                repr(cls(name="x", size=4)),
                [f.name for f in dataclasses.fields(cls)],
                cls() == cls.below(),
                repr(cls.below()),
            ]
            for cls in pair(options, make)
        ]
        assert [str(s).replace("Above", "A") for s in said[:1]] == [str(s).replace("Above", "A") for s in said[1:]], (
            options
        )


def test_one_that_holds_itself_is_shown():
    @records.dataclass
    class Ring:
        next: Any = None

    ring = Ring()
    ring.next = ring
    assert "..." in repr(ring)


def test_a_look_loads_what_it_needs(tmp_path):
    """Each of these is two to seven milliseconds of every command, and a look needs none."""
    code = (
        "import sys; from hikube_local.cli.main import run; run(['get', '--all-namespaces']); "
        "print(sorted({'yaml', 'logging', 'concurrent.futures', 'pydantic_core', 'fractions', 'requests', 'libvirt',"
        " 'aiohttp', 'rich'} & set(sys.modules)))"
    )
    env = {**os.environ, "HIKUBE_LOCAL_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, env=env)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


@pytest.mark.parametrize(
    ("more", "code", "out"),
    [
        ("", 7, "said at exit\n"),
        ("threading.Thread(target=lambda: (time.sleep(0.2), print('worked'))).start()", 7, "worked\nsaid at exit\n"),
        ("sys.stdout = None", 7, None),
    ],
)
def test_the_way_out(more, code, out):
    """What runs at exit runs, what was printed goes out, and a thread that is at work ends its work."""
    program = (
        "import atexit, sys, threading, time; from hikube_local.__main__ import leave; "
        f"atexit.register(print, 'said at exit'); {more or 'pass'}; leave(7)"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == code and (out is None or done.stdout == out), done


def test_the_way_out_of_a_full_disk():
    program = "import sys; from hikube_local.__main__ import leave; print('x'); leave(0)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )
    assert done.returncode == 120 and "No space left" in done.stderr  # as Python itself says it
