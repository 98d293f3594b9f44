"""The compiled kernel: built with the package, or at its first use into a cache folder; absent without harm.

Nothing here imports the package: its build does the same by the same code. A library carries the digest of its sources
in its name, so that one of other sources is never taken.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

KERNELS = Path(__file__).parent / "kernels"
BUILT = Path(__file__).parent / "built"
"""Where the package's own build leaves the library."""

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti")

AVX512 = ("avx512f", "avx512dq", "avx512vl", "avx512bw", "avx2", "fma", "prefer-vector-width=512")


class Variant(NamedTuple):
    """The kernel for one set of instructions: bytes of a vector, registers, and what the compiler may use."""

    name: str
    width: int
    registers: int
    machine: tuple[str, ...] = ()


PORTABLE = Variant("portable", 16, 32 if platform.machine() in ("aarch64", "arm64") else 16)
X86 = (Variant("avx2", 32, 16, ("avx2", "fma")), Variant("avx512", 64, 32, AVX512))


class Library(NamedTuple):
    """The loaded kernel: the variant that this processor runs fastest, and the functions of dispatch.cpp."""

    path: Path
    variant: str
    place: int
    train: Callable[..., int]
    back: Callable[..., int]
    round_trip: Callable[..., int]
    tape: Callable[..., int]
    threads: int = 1  # that runs are spread over


class Missing(Exception):  # noqa: N818 - a state of the machine, said in a sentence
    """There is no kernel here, and why."""


def variants() -> tuple[Variant, ...]:
    """The variants that this machine's compiler is asked for."""
    return (PORTABLE, *X86) if platform.machine() in ("x86_64", "AMD64") else (PORTABLE,)


def library() -> Library:
    """The kernel of this process, built if need be; raises Missing where there is none and none can be built."""
    there = found()
    if isinstance(there, Missing):
        raise there
    return there


@functools.lru_cache(maxsize=1)
def found() -> Library | Missing:
    """The kernel, or why there is none: looked for once, as a failed try to build takes seconds."""
    try:
        for folder in (BUILT, cache()):
            if (folder / name()).is_file():
                return _loaded(folder / name())
        return _loaded(built(cache()))
    except Missing as missing:
        return missing


def reason() -> str | None:
    """Why there is no kernel on this machine; None where there is one."""
    there = found()
    return str(there) if isinstance(there, Missing) else None


def cache() -> Path:
    """The user's folder for what can be made again."""
    home = os.environ.get("METARULE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "metarule"


def compiler() -> list[str] | None:
    """The C++ compiler as a command: what $CXX says, else the first one found."""
    commands = [shlex.split(said)] if (said := os.environ.get("CXX")) else [[each] for each in COMPILERS]
    return next((command for command in commands if shutil.which(command[0])), None)


def built(folder: Path) -> Path:
    """Compile the kernel into a folder; raises Missing where there is no compiler or it fails."""
    command = compiler()
    if command is None:
        raise Missing("no C++ compiler was found (c++, g++, clang++, or what CXX names)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _compiled(command, Path(scratch))
            # in one step: processes that build at once leave one whole library
            return (Path(scratch) / name()).replace(folder / name())
    except OSError as error:
        raise Missing(f"the kernel cannot be written to {folder}: {error.strerror or error}") from error
    except subprocess.CalledProcessError as error:
        raise Missing(f"{command[0]} does not compile the kernel: {_complaint(error.stderr or '')}") from error


def _complaint(said: str) -> str:
    """The first line that names an error, else the last one: what comes after an error only shows its place."""
    lines = said.strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if "error" in line), lines[-1])


def _compiled(command: list[str], scratch: Path) -> None:
    chosen = variants()
    dispatch = ["-DWITH_X86"] if len(chosen) > 1 else []
    objects = [
        [
            *(f"-m{flag}" for flag in each.machine), f"-DVARIANT={each.name}", f"-DWIDTH={each.width}",
            f"-DREGISTERS={each.registers}", str(KERNELS / "train.cpp"), "-o", str(scratch / f"{each.name}.o"),
        ]
        for each in chosen
    ]  # fmt: skip
    objects.append([*dispatch, str(KERNELS / "dispatch.cpp"), "-o", str(scratch / "dispatch.o")])
    running = [
        subprocess.Popen([*command, *FLAGS, "-c", *arguments], stderr=subprocess.PIPE, text=True)
        for arguments in objects
    ]
    for process in running:
        _, said = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args, stderr=said)
    linked = [*command, "-shared", *(arguments[-1] for arguments in objects), "-o", str(scratch / name())]
    subprocess.run(linked, check=True, capture_output=True, text=True)


@functools.lru_cache(maxsize=1)
def name() -> str:
    """The library's file, by its sources and how they are compiled."""
    digest = hashlib.sha256(repr((FLAGS, variants(), platform.machine(), platform.system())).encode())
    for source in sorted(KERNELS.glob("*")):
        digest.update(source.name.encode() + source.read_bytes())
    return f"fused-{digest.hexdigest()[:16]}.so"


def _loaded(path: Path) -> Library:
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise Missing(f"{path} cannot be loaded: {error}") from error
    handle.metarule_fastest.restype = ctypes.c_int64
    asked_of = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)  # a plan, whether it is in doubles, the variant
    train, back, tape = handle.metarule_train, handle.metarule_back, handle.metarule_tape
    round_trip = handle.metarule_round_trip
    for function, runs in ((train, 2), (back, 2), (round_trip, 2), (tape, 0)):
        function.restype, function.argtypes = ctypes.c_int64, asked_of + runs * (ctypes.c_int64,)
    names = [each.name for each in variants()]
    asked = os.environ.get("METARULE_INSTRUCTIONS") or names[-1]
    if asked not in names:
        raise ValueError(f"METARULE_INSTRUCTIONS = {asked} is none of {', '.join(names)}; unset it for the fastest")
    fastest = names[: min(handle.metarule_fastest(), names.index(asked)) + 1]
    return Library(path, fastest[-1], len(fastest) - 1, train, back, round_trip, tape)
