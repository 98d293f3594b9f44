"""Malformed files: each is refused in sentences with its path and the cure, and nothing that a file holds is run."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save_file
from torch import Tensor

from metarule.cli import main
from metarule.identification import bank, files
from metarule.identification.recording import Recording, RecordingError, load

EDGE, LAST = "input->hidden1", "hidden1->output"
META = {"nonlinearity": "tanh", "output": "softmax", "beta": 1.0, "probes": 1, "updates_per_snapshot": 1}
T = 6

_GENERATOR = np.random.default_rng(0)
# no two axes of a part have the same size, so that swapped ones always show
ARRAYS: dict[str, np.ndarray] = {
    "time": np.arange(T) * 1.0,
    f"weights/{EDGE}": _GENERATOR.normal(size=(T, 4, 5)),
    f"weights/{LAST}": _GENERATOR.normal(size=(T, 3, 4)),
    "bias/hidden1": _GENERATOR.normal(size=(T, 4)),
    "activity/hidden1": _GENERATOR.normal(size=(T, 2, 4)),
    "input": _GENERATOR.normal(size=(T, 2, 5)),
    "target": _GENERATOR.normal(size=(T, 2, 3)),
    "reward": _GENERATOR.normal(size=(T, 2)),
}

Draw = Callable[[SearchStrategy[Any]], Any]
PATHS = st.sampled_from(sorted(ARRAYS))
WHOLE = st.sampled_from(sorted(files.WRITERS))
STATES = st.sampled_from([".pt", ".pth", ".ckpt"])


class Bomb:
    """What a pickle can do: where it is loaded, a folder `crater` appears in the working folder."""

    def __reduce__(self):
        return os.mkdir, ("crater",)


def written(draw: Draw, folder: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any] = META) -> Path:
    """A file of any kind that holds these arrays, whatever they are."""
    path = folder / f"mine{draw(WHOLE)}"
    files.write(path, arrays, meta)
    return path


def with_text(path: Path, meta: str) -> Path:
    """A file whose meta is this text."""
    if path.suffix == ".npz":
        members: dict[str, Any] = {**ARRAYS, "meta": np.array(meta)}
        np.savez(path, **members)
        return path
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array
        file.attrs["meta"] = meta
    return path


def state(step: int, sizes: tuple[int, ...] = (5, 4, 3)) -> dict[str, Tensor]:
    """What nn.Sequential of linear layers saves."""
    generator = torch.Generator().manual_seed(step)
    made: dict[str, Tensor] = {}
    for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        made[f"{place}.weight"] = torch.randn(outputs, inputs, generator=generator)
        made[f"{place}.bias"] = torch.randn(outputs, generator=generator)
    return made


def saved(path: Path, held: object) -> Path:
    if path.suffix == ".safetensors":
        assert isinstance(held, dict)
        save_file(held, path)
    else:
        torch.save(held, path)
    return path


def checkpoints(draw: Draw, folder: Path, strategy: SearchStrategy[str] = STATES) -> list[Path]:
    suffix = draw(strategy)
    return [saved(folder / f"step_{step}{suffix}", state(step)) for step in range(3)]


# each makes a file, or a folder of checkpoints, that is no recording


def swapped_axes(draw: Draw, folder: Path) -> Path:
    name = draw(PATHS.filter(lambda name: ARRAYS[name].ndim > 1))
    axes = range(ARRAYS[name].ndim)
    order = draw(st.permutations(axes).filter(lambda order: order != [*axes]))
    return written(draw, folder, {**ARRAYS, name: ARRAYS[name].transpose(order)})


def time_that_is_not_finite(draw: Draw, folder: Path) -> Path:
    time = ARRAYS["time"].copy()
    time[draw(st.lists(st.integers(0, T - 1), min_size=1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return written(draw, folder, {**ARRAYS, "time": time})


def time_that_stands_still_or_goes_back(draw: Draw, folder: Path) -> Path:
    time = ARRAYS["time"].copy()
    time[draw(st.integers(1, T - 1))] -= draw(st.floats(1.0, 1e300))
    return written(draw, folder, {**ARRAYS, "time": time})


def an_infinite_value(draw: Draw, folder: Path) -> Path:
    name = draw(PATHS)
    array = ARRAYS[name].copy()
    array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([np.inf, -np.inf]))
    return written(draw, folder, {**ARRAYS, name: array})


def nan_alone(draw: Draw, folder: Path) -> Path:
    names = draw(st.sets(PATHS, min_size=1))
    return written(draw, folder, {name: a * np.nan if name in names else a for name, a in ARRAYS.items()})


def a_wrong_dtype(draw: Draw, folder: Path) -> Path:
    name = draw(PATHS)
    return written(draw, folder, {**ARRAYS, name: ARRAYS[name].astype(draw(st.sampled_from(["?", "c8", "c16", "S8"])))})


def a_wrong_shape(draw: Draw, folder: Path) -> Path:
    name = draw(PATHS)
    array = ARRAYS[name]
    axis = draw(st.integers(0, array.ndim - 1))
    size = draw(st.integers(0, 9).filter(lambda size: size != array.shape[axis]))
    # 2 snapshots of the one part that is a prefix of nothing are as wrong as 9
    return written(
        draw, folder, {**ARRAYS, name: np.resize(array, (*array.shape[:axis], size, *array.shape[axis + 1 :]))}
    )


def a_wrong_rank(draw: Draw, folder: Path) -> Path:
    name = draw(PATHS)
    array = ARRAYS[name]
    shapes = [(1, *array.shape), (*array.shape, 1), (1, 1, *array.shape), (len(array), *array.shape[2:])]
    shape = draw(st.sampled_from(shapes if array.ndim > 1 else shapes[:-1]))
    return written(draw, folder, {**ARRAYS, name: np.resize(array, shape)})


def a_part_that_is_missing(draw: Draw, folder: Path) -> Path:
    gone = {"time", *draw(st.sets(PATHS))}
    return written(draw, folder, {name: array for name, array in ARRAYS.items() if name not in gone})


def one_snapshot(draw: Draw, folder: Path) -> Path:
    place = draw(st.integers(0, T - 1))
    return written(draw, folder, {name: array[place : place + 1] for name, array in ARRAYS.items()})


def weights_that_never_change(draw: Draw, folder: Path) -> Path:
    place = draw(st.integers(0, T - 1))
    learned = ("weights", "bias")
    still = {name: np.repeat(a[place][None], T, 0) for name, a in ARRAYS.items() if name.startswith(learned)}
    return written(draw, folder, {**ARRAYS, **still})


def an_edge_without_ends(draw: Draw, folder: Path) -> Path:
    text = st.text("ab1", max_size=3)
    names = st.one_of(text.filter(bool), st.builds("{}->".format, text), st.builds("->{}".format, text))
    name = draw(st.one_of(names, st.builds("{}->b->{}".format, text, text)))
    return written(draw, folder, {**ARRAYS, f"weights/{name}": ARRAYS[f"weights/{EDGE}"]})


def a_broken_text(draw: Draw, folder: Path) -> Path:
    text = json.dumps(META)
    return with_text(folder / f"mine{draw(WHOLE)}", text[: draw(st.integers(0, len(text) - 1))])


# NUL ends a text in HDF5
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


def a_text_that_is_no_object(draw: Draw, folder: Path) -> Path:
    plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(LETTERS), st.lists(st.integers()))
    text = st.one_of(plain.map(json.dumps), st.text(LETTERS).filter(lambda text: "{" not in text))
    return with_text(folder / f"mine{draw(WHOLE)}", draw(text))


def nonsense_in_meta(draw: Draw, folder: Path) -> Path:
    name = draw(st.sampled_from([*META, "schema", "clock", "snapshot"]))
    values = st.one_of(
        st.none(), st.text(LETTERS), st.floats(max_value=0), st.just(10**400), st.lists(st.integers(1, 2)), st.just({})
    )
    path = folder / f"mine{draw(WHOLE)}"
    return with_text(path, json.dumps({**META, name: draw(values)}))


def objects_in_an_archive(draw: Draw, folder: Path) -> Path:
    name = draw(st.one_of(PATHS, st.just("meta"), st.just("notes")))
    members: dict[str, Any] = {**ARRAYS, name: np.array([Bomb(), None], dtype=object)}
    np.savez(folder / "mine.npz", **members)
    return folder / "mine.npz"


def a_pickle(draw: Draw, folder: Path) -> Path:
    path = folder / f"mine{draw(st.one_of(WHOLE, st.sampled_from(['.pkl', '.npy', '.pt'])))}"
    path.write_bytes(pickle.dumps(draw(st.sampled_from([Bomb(), [Bomb()], ARRAYS])), draw(st.integers(0, 5))))
    return path


def a_truncated_file(draw: Draw, folder: Path) -> Path:
    path = written(draw, folder, ARRAYS)
    content = path.read_bytes()
    path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
    return path


def no_file_of_any_kind(draw: Draw, folder: Path) -> Path:
    suffixes = st.one_of(WHOLE, st.sampled_from([".nwb", ".csv", ".mat", ".pt", ""]))
    path = folder / f"mine{draw(suffixes)}"
    begin = draw(st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"\x80\x02"]))
    path.write_bytes(begin + draw(st.binary(max_size=200)))
    return path


def a_wrong_suffix(draw: Draw, folder: Path) -> Path:
    path = written(draw, folder, ARRAYS)
    taken = {".npz"} if path.suffix == ".npz" else {".h5", ".hdf5"}
    others = {*files.WRITERS, ".nwb", ".NPZ", ".mat", ".pt", ".npy", ".zip", ""} - taken
    return path.rename(path.with_suffix(draw(st.sampled_from(sorted(others)))))


def a_bomb_of_another_compression(draw: Draw, folder: Path) -> Path:
    method = draw(st.sampled_from([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    path = folder / "mine.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("time.npy", bytes(draw(st.integers(1, 10**6))))
    return path


def an_archive_that_promises_more_than_it_holds(draw: Draw, folder: Path) -> Path:
    name = draw(PATHS)
    shape = (T, *draw(st.lists(st.integers(10, 10**9), min_size=1, max_size=3)))
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    written(lambda _: ".npz", folder, {path: array for path, array in ARRAYS.items() if path != name})
    with zipfile.ZipFile(folder / "mine.npz", "a") as archive:
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(800))
    return folder / "mine.npz"


def a_dataset_that_promises_more_than_it_holds(draw: Draw, folder: Path) -> Path:
    path = folder / f"mine{draw(st.sampled_from(['.h5', '.hdf5']))}"
    name = draw(PATHS)
    with h5py.File(path, "w") as file:
        for other, array in ARRAYS.items():
            if other != name:
                file[other] = array
        file.create_dataset(name, (draw(st.integers(1, 10**9)), 10**3, 10**3), "f8", chunks=(1, 10, 10), fillvalue=1.0)
    return path


def a_dataset_of_texts(draw: Draw, folder: Path) -> Path:
    path = written(lambda _: ".h5", folder, ARRAYS)
    name = draw(PATHS)
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = draw(st.lists(st.text(LETTERS), min_size=1, max_size=3))
    return path


def truncated_checkpoints(draw: Draw, folder: Path) -> Path:
    path = draw(st.sampled_from(checkpoints(draw, folder, st.one_of(STATES, st.just(".safetensors")))))
    content = path.read_bytes()
    path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
    return folder


def checkpoints_with_objects(draw: Draw, folder: Path) -> Path:
    path = draw(st.sampled_from(checkpoints(draw, folder)))
    key = draw(st.sampled_from(["x", "state_dict", "0.weight", "optimizer"]))
    saved(path, {**state(9), key: draw(st.sampled_from([Bomb(), [Bomb()], {"x": Bomb()}]))})
    return folder


def checkpoints_of_no_chain(draw: Draw, folder: Path) -> Path:
    shape = draw(
        st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda shape: len(shape) != 2 or shape[1] != 3)
    )
    for step in range(3):
        saved(folder / f"step_{step}.safetensors", {**state(step), "9.weight": torch.ones(shape) * step})
    return folder


def checkpoints_of_two_networks(draw: Draw, folder: Path) -> Path:
    path = draw(st.sampled_from(checkpoints(draw, folder)))
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4).filter(lambda sizes: sizes != [5, 4, 3]))
    saved(path, state(9, tuple(sizes)))
    return folder


MALFORMED: list[Callable[[Draw, Path], Path]] = [
    *(swapped_axes, time_that_is_not_finite, time_that_stands_still_or_goes_back, an_infinite_value, nan_alone),
    *(a_wrong_dtype, a_wrong_shape, a_wrong_rank, a_part_that_is_missing, one_snapshot, weights_that_never_change),
    *(an_edge_without_ends, a_broken_text, a_text_that_is_no_object, nonsense_in_meta, objects_in_an_archive, a_pickle),
    *(a_truncated_file, no_file_of_any_kind, a_wrong_suffix, a_bomb_of_another_compression),
    *(an_archive_that_promises_more_than_it_holds, a_dataset_that_promises_more_than_it_holds, a_dataset_of_texts),
    *(truncated_checkpoints, checkpoints_with_objects, checkpoints_of_no_chain, checkpoints_of_two_networks),
]

EACH = 8
"""Files of each kind: 28 kinds make 224."""

ALWAYS = {"deadline": None, "derandomize": True, "database": None}
# the fixture is a folder in which every file gets one of its own
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]

# "; do this" or ": do this", or the list of what is allowed
CURE = re.compile(r"[;:] \w|is not one of")


@pytest.fixture
def ground(tmp_path, monkeypatch) -> Path:
    """The working folder, in which a Bomb would leave its crater."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fresh(ground: Path) -> Path:
    folder = ground / "files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@pytest.mark.parametrize("make", MALFORMED, ids=lambda make: make.__name__)
@settings(max_examples=EACH, suppress_health_check=SHARED, **ALWAYS)
@given(data=st.data())
def test_a_malformed_file_is_refused_with_its_path_and_the_cure_and_nothing_is_run(make, ground, data):
    path = make(data.draw, fresh(ground))
    with pytest.raises(RecordingError) as caught:
        load(path)
    first, *rest = str(caught.value).splitlines()
    assert str(path) in first
    assert all(line.startswith("  ") and CURE.search(line) for line in rest)
    assert rest or CURE.search(first)
    assert [*ground.iterdir()] == [ground / "files"]


@pytest.mark.parametrize("make", MALFORMED[::2], ids=lambda make: make.__name__)
@settings(max_examples=1, phases=[Phase.generate], suppress_health_check=SHARED, **ALWAYS)
@given(data=st.data())
def test_the_command_line_refuses_it_with_one_message_and_exit_code_2(make, ground, capsys, monkeypatch, data):
    path = make(data.draw, fresh(ground))
    # with what recordings are compared is nothing to these
    monkeypatch.setattr(bank, "opened", lambda path: None)
    monkeypatch.setattr(sys, "argv", ["metarule", "classify", str(path)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capsys.readouterr()
    assert (exit.value.code, out) == (2, "")
    assert err.count("error:") == 1
    assert err.startswith(f"error: {path}")
    assert "Traceback" not in err
    assert [*ground.iterdir()] == [ground / "files"]


FLIPS = st.lists(st.tuples(st.integers(0, 2**32), st.integers(1, 255)), min_size=1, max_size=8)


SAID = {name: array.tobytes() for name, array in ARRAYS.items()}


@contextmanager
def refusals_of(path: Path) -> Iterator[None]:
    """Lets a RecordingError pass that names the file, and nothing else."""
    try:
        yield
    except RecordingError as error:
        if str(path) not in str(error):
            raise


def flipped(content: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, mask in flips:
        changed[place % len(changed)] ^= mask
    return bytes(changed)


@pytest.mark.parametrize("suffix", sorted(files.WRITERS))
@settings(max_examples=60, suppress_health_check=SHARED, **ALWAYS)
@given(flips=FLIPS)
def test_flipped_bytes_are_refused_or_change_no_number(suffix, ground, flips):
    # both kinds of file have checksums of every array; a flip may hit what says nothing of the numbers: padding, a date
    path = written(lambda _: suffix, fresh(ground), ARRAYS)
    path.write_bytes(flipped(path.read_bytes(), flips))
    with refusals_of(path):
        read = load(path)
        assert {name: array.tobytes() for name, array in read.arrays.items()} == SAID
        assert read.meta == META


@pytest.mark.parametrize("suffix", [".h5", ".pt", ".safetensors"])
@settings(max_examples=60, suppress_health_check=SHARED, **ALWAYS)
@given(flips=FLIPS)
def test_flipped_bytes_of_others_files_are_refused_or_make_another_recording(suffix, ground, flips):
    # files that others write have no checksums: a flipped bit of a number is another number, which nobody can know
    folder = fresh(ground)
    if suffix == ".h5":
        path = flawed = with_text(folder / "mine.h5", json.dumps(META))
    else:
        path, flawed = folder, checkpoints(lambda _: suffix, folder)[1]
    flawed.write_bytes(flipped(flawed.read_bytes(), flips))
    with refusals_of(path):
        assert isinstance(load(path), Recording)
    assert [*ground.iterdir()] == [folder]


def test_the_bomb_is_live(ground):
    pickle.loads(pickle.dumps(Bomb()))
    assert (ground / "crater").is_dir()


def test_what_the_malformed_files_are_made_of_is_a_recording(ground):
    for suffix in files.WRITERS:
        assert load(written(lambda _, suffix=suffix: suffix, fresh(ground), ARRAYS)).arrays.keys() == ARRAYS.keys()
        assert load(with_text(ground / f"mine{suffix}", json.dumps(META))).meta == META
    for suffix in (".pt", ".safetensors"):
        folder = fresh(ground)
        checkpoints(lambda _, suffix=suffix: suffix, folder)
        assert load(folder).structure.sizes == {"input": 5, "hidden1": 4, "output": 3}
