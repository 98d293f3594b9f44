"""Files of recordings: what is written is what is read, whatever holds it; what is none is refused with the cure."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metarule.identification import files, hdf5
from metarule.identification.recording import Recording, RecordingError, load

EDGE, LAST = "input->hidden1", "hidden1->output"
SUFFIXES = sorted(files.WRITERS)


@dataclass(frozen=True)
class Bomb:
    """What a pickle can do: where it is loaded, the folder `crater` appears."""

    crater: Path

    def __reduce__(self):
        return os.mkdir, (str(self.crater),)


@pytest.fixture
def crater(tmp_path) -> Path:
    return tmp_path / "crater"


def numbers(*shape: int, dtype: str = "f8") -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


@pytest.fixture(scope="module")
def good() -> Recording:
    """A 5-4-3 network over 6 snapshots of 2 samples: every part, four dtypes, and NaN with a payload of its own."""
    weights = {EDGE: numbers(6, 4, 5), LAST: numbers(6, 3, 4, dtype="f4")}
    weights[EDGE][2, 1, 3] = np.array([0x7FF8_0000_0000_0123], dtype=np.uint64).view(np.float64)[0]
    weights[LAST][4] = np.nan
    return Recording(
        np.array([0, 1, 2, 10, 11, 12]),
        weights,
        {"hidden1": numbers(6, 4)},
        {"hidden1": numbers(6, 2, 4, dtype="f2")},
        numbers(6, 2, 5),
        numbers(6, 2, 3),
        numbers(6, 2),
        {"nonlinearity": "tanh", "beta": 1.5, "source": "a λ of mine", "probes": 1, "rat": {"age": [3, None]}},
    )


def assert_the_same_bits(one: Recording, other: Recording) -> None:
    assert one.arrays.keys() == other.arrays.keys()
    for path, array in one.arrays.items():
        assert (array.dtype, array.shape) == (other.arrays[path].dtype, other.arrays[path].shape), path
        assert array.tobytes() == other.arrays[path].tobytes(), path


def refused(path: Path, *sentences: str, mapping: Path | None = None) -> str:
    """What `load` says, which has all the sentences in it."""
    with pytest.raises(RecordingError) as caught:
        load(path, mapping)
    said = str(caught.value)
    for sentence in sentences:
        assert sentence in said
    return said


# .npz, .h5, .hdf5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recording_comes_back_bit_by_bit(good, tmp_path, suffix):
    path = good.save(tmp_path / f"mine{suffix}")
    again = load(path)
    assert_the_same_bits(good, again)
    assert again.meta == {**good.meta, "schema": "metarule/1"}
    assert again.structure == good.structure
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recording_of_activity_alone_comes_back(good, tmp_path, suffix):
    names = ["input", "hidden1", "output"]
    silent = replace(good, weights={}, bias={}, meta={"populations": names})
    again = load(silent.save(tmp_path / f"mine{suffix}"))
    assert_the_same_bits(silent, again)
    assert list(again.structure.sizes.items()) == [("input", 5), ("hidden1", 4), ("output", 3)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_in_the_other_byte_order_are_read_in_this_machines(good, tmp_path, suffix):
    swapped = {path: array.astype(array.dtype.newbyteorder("S")) for path, array in good.arrays.items()}
    files.write(tmp_path / f"other{suffix}", swapped, good.meta)
    assert_the_same_bits(good, load(tmp_path / f"other{suffix}"))


def test_a_file_written_with_numpy_or_h5py_alone_is_a_recording(good, tmp_path):
    arrays = dict(good.arrays)
    np.savez(tmp_path / "mine.npz", **arrays, meta=np.array(json.dumps(good.meta)))
    assert_the_same_bits(good, load(tmp_path / "mine.npz"))
    for number, text in enumerate((json.dumps(good.meta), np.bytes_(json.dumps(good.meta).encode()))):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            for path, array in arrays.items():
                file[path] = array
            file.attrs["meta"] = text
        again = load(tmp_path / f"{number}.h5")
        assert_the_same_bits(good, again)
        assert again.meta == good.meta


def test_what_is_no_part_of_a_recording_is_passed_over_and_meta_may_be_missing(good, tmp_path):
    arrays = {**good.arrays, "notes": np.zeros(3), "feedback/B": np.zeros((2, 2))}
    np.savez(tmp_path / "more.npz", **arrays)
    again = load(tmp_path / "more.npz")
    assert_the_same_bits(good, again)
    assert again.meta == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(good, tmp_path, monkeypatch, suffix):
    path = good.save(tmp_path / f"mine{suffix}")
    before = path.read_bytes()

    def half(part, arrays, meta):
        part.write_bytes(b"half a file")
        raise OSError("no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setitem(files.WRITERS, suffix, half)
        with pytest.raises(OSError, match="no space left"):
            good.save(path)
    with pytest.raises(RecordingError, match=r"/meta cannot be written .*int64 is not JSON"):
        replace(good, meta={"neurons": np.int64(3)}).save(path)
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], before)


def test_a_missing_folder_is_made_and_an_unknown_suffix_is_refused_before_anything_is_written(good, tmp_path):
    assert_the_same_bits(good, load(good.save(tmp_path / "a" / "b" / "mine.h5")))
    with pytest.raises(RecordingError, match=r"mine.hdf: the suffix = '.hdf' is not one of .*; did you mean '.hdf5'"):
        good.save(tmp_path / "c" / "mine.hdf")
    assert not (tmp_path / "c").exists()


def test_the_suffix_says_what_a_file_is(good, tmp_path):
    path = good.save(tmp_path / "mine.npz")
    for suffix, sentence in ((".csv", "the suffix = '.csv' is not one of .h5, .hdf5, .npz, .nwb"), ("", "suffix = ''")):
        refused(path.rename(path.with_suffix(suffix)), sentence)
        path.with_suffix(suffix).rename(path)
    refused(
        path.rename(tmp_path / "mine.h5"), "mine.h5 is damaged or not an HDF5 recording", "write it again with h5py"
    )
    refused(tmp_path / "none.h5", "none.h5 does not exist; give the file of a recording", "a folder of checkpoints")
    torch.save({}, tmp_path / "step_1.pt")
    refused(tmp_path / "step_1.pt", "one checkpoint shows no change: give the folder")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("path", "change", "sentence"),
    [
        ("time", lambda a: a[::-1], "/time[1] = 11 does not come after its predecessor; sort the snapshots"),
        ("time", lambda a: a[:4], f"/weights/{EDGE} has 6 entries in time, /time has 4; time is axis 0"),
        (
            f"weights/{EDGE}",
            lambda a: a[:, :, :0],
            f"/weights/{EDGE} has shape (6, 4, 0), which is empty; leave it out",
        ),
        (f"weights/{EDGE}", lambda a: a * np.inf, f"/weights/{EDGE}[0, 0, 0] = "),
        (f"weights/{EDGE}", lambda a: a * np.nan, f"/weights/{EDGE} is NaN everywhere"),
        (f"weights/{EDGE}", lambda a: np.moveaxis(a, 0, 2), "axis 2 is time: numpy.moveaxis(array, 2, 0)"),
        (f"weights/{LAST}", lambda a: a[:, :, 1:], "units here, elsewhere "),
        (f"weights/{LAST}", lambda a: a[0], f"/weights/{LAST} has 2 axes; 3 are needed, time first"),
        ("input", lambda a: a[:, 1:], "has 1 samples, "),
        ("target", lambda a: a[:, :, :2], "/target has 2 units, population 'output' has 3; units are the last axis"),
        ("bias/hidden1", lambda a: a > 0, "/bias/hidden1 is dtype bool; an array of real numbers"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_path_its_place_and_the_cure(
    good, tmp_path, suffix, path, change, sentence
):
    files.write(tmp_path / f"bad{suffix}", {**good.arrays, path: change(good.arrays[path])}, good.meta)
    refused(tmp_path / f"bad{suffix}", f"bad{suffix} cannot be used:", sentence)


@pytest.mark.parametrize(
    ("meta", "sentence"),
    [
        ({"updates_per_snapshot": 10**400}, "is not a whole number from 1 on; count the updates"),
        ({"beta": 10**400}, "is not a positive number; give the steepness"),
        ({"clock": "second"}, "/meta: clock = 'second' is not one of epoch, update"),
        ({"snapshot": "during"}, "/meta: snapshot = 'during' is not one of after, before"),
        ({"probes": 3}, "/meta: probes = 3, but each snapshot has 2 samples; probes are the first samples"),
        ({"probes": -1}, "/meta: probes = -1 is not a whole number from 0 on"),
    ],
)
def test_what_meta_says_is_checked(good, meta, sentence):
    with pytest.raises(RecordingError) as caught:
        replace(good, meta=meta)
    assert sentence in str(caught.value)


def test_what_a_file_says_cannot_break_a_message_or_reach_the_terminal(good, tmp_path):
    name = "\x1b[2J\r\n"
    with pytest.raises(RecordingError) as caught:
        Recording(good.time, {name: good.weights[EDGE]}, meta={"output": f"{name}softmax"})
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert len(str(caught.value).splitlines()) == 3
    assert r"/weights/\x1b[2J\r\n does not say which way it runs" in str(caught.value)
    members: dict[str, Any] = {name: np.zeros(3)}
    np.savez(tmp_path / "mine.npz", **members)
    assert "\x1b" not in refused(tmp_path / "mine.npz", r"mine.npz has no /time; it holds \x1b[2J")


def test_time_in_epochs_has_no_single_updates(good):
    assert list(good.singles) == [0, 1, 3, 4]
    epochs = replace(good, meta={"clock": "epoch"})
    assert np.isnan(epochs.gaps).all()
    assert len(epochs.singles) == 0
    # where an epoch is one batch they are known again
    assert list(replace(good, meta={"clock": "epoch", "updates_per_snapshot": 1}).singles) == [0, 1, 3, 4]


def test_objects_in_an_npz_are_refused_and_nothing_is_run(good, tmp_path, crater):
    objects = np.array([Bomb(crater), None], dtype=object)
    np.savez(tmp_path / "objects.npz", **{**good.arrays, f"weights/{EDGE}": objects})
    refused(tmp_path / "objects.npz", f"/weights/{EDGE} cannot be read", "save it again with numpy.savez, arrays of")
    assert not crater.exists()


def test_values_that_lie_in_other_files_are_not_read(good, tmp_path):
    good.save(tmp_path / "other.h5")
    path = f"weights/{EDGE}"
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        for name, array in good.arrays.items():
            if name != path:
                file[name] = array
        layout = h5py.VirtualLayout((6, 4, 5), "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", path, (6, 4, 5))
        file.create_virtual_dataset(path, layout)
    refused(tmp_path / "mine.h5", f"/{path} cannot be read (its values lie in another file, which is not opened)")
    with h5py.File(tmp_path / "mine.h5", "a") as file:
        del file[path]
        file[path] = h5py.ExternalLink(str(tmp_path / "other.h5"), path)
    # the link is passed over: it is as if there were no such edge
    refused(tmp_path / "mine.h5", "/input has 5 units, population 'hidden1' has 4")


def test_a_text_in_hdf5_that_would_be_read_for_ever_is_refused(good, tmp_path):
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        for name, array in good.arrays.items():
            file[name] = array
        file.attrs["meta"] = "{}"
    content = bytearray(path.read_bytes())
    heap = content.index(hdf5.HEAP)
    free = heap + 16 + 16 + 8  # behind the heap's head, and the text "{}" with its own
    content[free + 8 : free + 16] = bytes(8)
    path.write_bytes(content)
    refused(path, "its heap of texts is damaged", "write it again with h5py")


def test_an_array_in_hdf5_whose_name_is_no_text_is_refused(good, tmp_path):
    path = good.save(tmp_path / "mine.h5")
    with h5py.File(path, "a") as file:
        file[b"\xff\xfe"] = np.zeros(3)
    refused(path, "b'\\xff\\xfe' is no text in UTF-8; name each array by its path")


def test_a_text_in_hdf5_is_refused_as_an_array(good, tmp_path):
    path = good.save(tmp_path / "mine.h5")
    with h5py.File(path, "a") as file:
        file["notes"] = "a rat"
        file.create_dataset("promised", (1000, 1000), "f8", chunks=(10, 10))
    refused(path, "/notes cannot be read (it holds object, not numbers)", "/promised cannot be")


@pytest.mark.parametrize("meta", ["[1]", "{", "\xff", "9" * 5000, "[" * 100_000])
def test_meta_in_hdf5_that_is_no_object_is_refused(good, tmp_path, meta):
    path = good.save(tmp_path / "mine.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["meta"]
        file.attrs["meta"] = meta
    refused(path, "/meta ", "json.dumps")


# NWB, and any HDF5 file, by a mapping

MAPPING = f"""
time = {{ path = "/processing/learning/weights", per_update = 0.1 }}
"weights/{EDGE}" = {{ path = "/processing/learning/weights", shape = [4, 5] }}
"weights/{LAST}" = "/scratch/last"
"activity/hidden1" = {{ path = "/acquisition/hidden1", shape = [2, 4] }}

[meta]
nonlinearity = "relu"
"""


@pytest.fixture
def nwb(good, tmp_path) -> Path:
    """What a laboratory's NWB file looks like: TimeSeries of vectors, integers with a conversion, times in seconds."""
    path = tmp_path / "rat.nwb"
    with h5py.File(path, "w") as file:
        series = file.create_group("processing/learning/weights")
        series["data"] = np.round(1000 * np.nan_to_num(good.weights[EDGE])).astype(np.int16).reshape(6, 20)
        series["data"].attrs.update({"conversion": 0.001, "offset": 0.5, "unit": "volts"})
        series["timestamps"] = 7.0 + 0.1 * good.time
        file["scratch/last"] = good.weights[LAST]
        rates = file.create_group("acquisition/hidden1")
        rates["data"] = good.activity["hidden1"].reshape(6, 8)
        rates["data"].attrs["conversion"] = 1.0
        rates["starting_time"] = 7.0
        rates["starting_time"].attrs["rate"] = 10.0
        file["session_description"] = "a rat learns"
    (tmp_path / "mapping.toml").write_text(MAPPING)
    return path


def test_an_nwb_file_is_read_by_a_mapping(good, nwb, tmp_path):
    read = load(nwb, tmp_path / "mapping.toml")
    assert read.time.tolist() == [0, 1, 2, 10, 11, 12]  # the seconds in which the clock counts are no binary fractions
    expected = np.round(1000 * np.nan_to_num(good.weights[EDGE])).astype(np.int16) * 0.001 + 0.5
    assert np.array_equal(read.weights[EDGE], expected)
    assert np.array_equal(read.weights[LAST], good.weights[LAST], equal_nan=True)
    assert np.array_equal(read.activity["hidden1"], good.activity["hidden1"])
    assert read.meta == {"nonlinearity": "relu"}
    assert_the_same_bits(read, load(read.save(tmp_path / "again.h5")))


def test_the_pages_mapping_reads_what_it_says(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "record_your_own_network.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "rat.toml").write_text(text)
    with h5py.File(tmp_path / "rat.nwb", "w") as file:
        for path, width in (("processing/learning/weights", 200), ("acquisition/hidden1", 80)):
            file[f"{path}/data"] = numbers(6, width)
        file["stimulus/presentation/images"] = numbers(6, 160)
        file["processing/learning/weights/timestamps"] = np.arange(6) * 0.5
    read = load(tmp_path / "rat.nwb", tmp_path / "rat.toml")
    assert read.structure.sizes == {"input": 20, "hidden1": 10}
    assert read.time.tolist() == [0, 1, 2, 3, 4, 5]
    assert read.activity["hidden1"].shape == (6, 8, 10)


def test_time_is_read_from_a_start_and_a_rate_or_counts_updates_as_it_is(nwb, tmp_path):
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        MAPPING.replace('time = { path = "/processing/learning/weights"', 'time = { path = "/acquisition/hidden1"')
    )
    assert load(nwb, mapping).time.tolist() == [0, 1, 2, 3, 4, 5]
    mapping.write_text(MAPPING.replace(", per_update = 0.1", ""))
    assert load(nwb, mapping).time.tolist() == (7.0 + 0.1 * np.array([0, 1, 2, 10, 11, 12])).tolist()
    with h5py.File(nwb, "a") as file:
        file["updates"] = np.array([3, 4, 5, 9, 10, 11], dtype=np.uint8)
    mapping.write_text(
        MAPPING.replace('time = { path = "/processing/learning/weights", per_update = 0.1 }', 'time = "/updates"')
    )
    assert load(nwb, mapping).time.tolist() == [3, 4, 5, 9, 10, 11]


def test_a_mapping_reads_an_hdf5_file_of_any_suffix(nwb, tmp_path):
    other = nwb.rename(tmp_path / "rat.mat")
    assert load(other, tmp_path / "mapping.toml").structure.sizes == {"input": 5, "hidden1": 4, "output": 3}


def test_an_nwb_file_without_a_mapping_says_what_to_write_and_what_it_holds(nwb):
    refused(
        nwb, "give a mapping, a TOML file with lines such as", "it holds /acquisition/hidden1/data, /acquisition/hid"
    )
    nwb.write_bytes(b"")
    refused(nwb, "it holds nothing that can be read")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "time =",
            "tim =",
            "a path = 'tim' is not one of activity, bias, input, reward, target, time, weights; did you",
        ),
        ("time =", "time = = 3", "mapping.toml is no mapping ("),
        (", per_update = 0.1", ", per_update = 0", "time.per_update = 0 is not a positive number; give the seconds of"),
        (", per_update = 0.1", ", per_update = '1'", "time.per_update = '1' is not a positive number"),
        (", per_update = 0.1", ", shape = [6]", "is not a path in the file nor a table of path, per_update"),
        ('"/scratch/last"', "3", f"weights/{LAST} = 3 is not a path in the file nor a table of path, shape"),
        ("[meta]", "[[meta]]", "meta is no table; write [meta] and below it what is known"),
        ("/scratch/last", "/scratch/lost", f"/weights/{LAST} cannot be read from /scratch/lost ("),
        ("/scratch/last", "/scratch", f"/weights/{LAST} cannot be read from /scratch ("),
        ("/scratch/last", "/session_description", "it holds object, not numbers"),
        ("/scratch/last", "/one", f"/weights/{LAST} has 0 axes; 3 are needed, time first"),
        ("shape = [4, 5]", "shape = [4, 6]", "cannot reshape array of size 120 into shape (6,4,6)); correct "),
        ("shape = [4, 5]", "shape = [5, 4]", "elsewhere"),
        ("shape = [4, 5]", "shape = ['a']", "); correct "),
        ('{ path = "/processing/learning/weights", per_update = 0.1 }', '"/one"', "/time has 0 axes; 1 are needed"),
        ('path = "/processing/learning/weights", per', 'path = "/one", per', "/time cannot be read from /one ("),
        ('path = "/processing/learning/weights", per', 'path = "/scratch", per', "/time cannot be read from /scratch"),
        (
            'path = "/processing/learning/weights", per',
            'path = "/still", per',
            "its rate is 0.0, not a positive number",
        ),
        ("/scratch/last", "/soft", f"/weights/{LAST} cannot be read from /soft (it leads to another file"),
        ("/scratch/last", "/away/last", "cannot be read from /away/last (it leads to another file, which is not read)"),
        ("/scratch/last", "/kind", "cannot be read from /kind (it is no dataset)"),
    ],
)
def test_what_a_mapping_gets_wrong_is_said_with_its_cure(nwb, tmp_path, old, new, sentence):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["last"] = numbers(6, 3, 4)
    with h5py.File(nwb, "a") as file:
        file["one"] = 1.0
        file["away"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["soft"] = h5py.SoftLink("/away/last")
        file["kind"] = np.dtype("f8")
        file["still/starting_time"] = 0.0
        file["still/starting_time"].attrs["rate"] = 0.0
        file["still/data"] = np.zeros(6)
    assert old in MAPPING
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(MAPPING.replace(old, new, 1))
    said = refused(nwb, sentence, mapping=mapping)
    assert str(nwb) in said or str(mapping) in said


def test_a_mapping_that_is_missing_or_no_hdf5_file_is_refused(good, nwb, tmp_path):
    refused(nwb, "none.toml is no mapping (", mapping=tmp_path / "none.toml")
    refused(
        good.save(tmp_path / "mine.npz"), "damaged or not an NWB file", "export it", mapping=tmp_path / "mapping.toml"
    )


# folders of checkpoints


def layers(seed: int = 0, sizes: tuple[int, ...] = (5, 4, 3)) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Sequential()
    for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        made.append(nn.Linear(inputs, outputs, bias=place > 0)).append(nn.Tanh())
    for value in made.parameters():
        value.data = torch.randn(value.shape, generator=generator)
    return made


def named(model: nn.Sequential) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


Save = Callable[[nn.Sequential, Path], object]

SAVES: dict[str, Save] = {
    "state.pt": lambda model, path: torch.save(model.state_dict(), path),
    "state.pth": lambda model, path: torch.save({"model_state_dict": model.state_dict(), "epoch": 3}, path),
    "wrapped.ckpt": lambda model, path: torch.save({"state_dict": model.state_dict(), "lr": [0.1]}, path),
    "model.pt": lambda model, path: torch.save({"model": model.state_dict(), "optimizer": {"state": {}}}, path),
    "parameters.pt": lambda model, path: torch.save(named(model), path),
    "state.safetensors": lambda model, path: save_file(model.state_dict(), path),
}


def checkpoints(folder: Path, names: list[str], save: Save = SAVES["state.pt"]) -> list[nn.Sequential]:
    models = [layers(seed) for seed in range(len(names))]
    for name, model in zip(names, models, strict=True):
        save(model, folder / name)
    return models


@pytest.mark.parametrize("kind", SAVES)
def test_a_folder_of_checkpoints_is_a_recording_sorted_by_number(tmp_path, kind):
    suffix = Path(kind).suffix
    (tmp_path / "notes_3.txt").write_text("passed over")
    models = checkpoints(tmp_path, [f"net5_step{step}{suffix}" for step in (100, 9, 10)], SAVES[kind])
    read = load(tmp_path)
    assert read.time.tolist() == [9, 10, 100]
    assert list(read.singles) == [0]
    for place, model in zip((2, 0, 1), models, strict=True):
        for path, name in ((f"weights/{EDGE}", "0.weight"), (f"weights/{LAST}", "2.weight"), ("bias/output", "2.bias")):
            assert np.array_equal(read.arrays[path][place], model.state_dict()[name].double())
    assert [*read.bias] == ["output"]
    assert read.meta["clock"] == "update"
    assert read.meta["missing"] == ["input", "target", "activity", "reward"]
    assert_the_same_bits(read, load(read.save(tmp_path / "all.h5")))


@pytest.mark.parametrize(
    ("name", "clock", "times"),
    [
        ("epoch_{}.pt", "epoch", [1, 2, 3]),
        ("net7-Epoch={}-best.pt", "epoch", [1, 2, 3]),
        ("epoch=0-step={}.pt", "update", [1, 2, 3]),
        ("{}.pt", "update", [1, 2, 3]),
    ],
)
def test_the_last_number_of_a_name_is_the_time_and_the_word_before_it_the_clock(tmp_path, name, clock, times):
    checkpoints(tmp_path, [name.format(number) for number in (1, 2, 3)])
    read = load(tmp_path)
    assert (read.time.tolist(), read.meta["clock"]) == (times, clock)
    assert len(read.singles) == (2 if clock == "update" else 0)


def test_weights_of_16_bits_and_counters_are_read(tmp_path):
    for step in (1, 2):
        state = {name: value.bfloat16() for name, value in layers(step).state_dict().items()}
        torch.save({**state, "steps": torch.tensor([step]), "rate": torch.tensor(0.1)}, tmp_path / f"{step}.pt")
    assert load(tmp_path).weights[EDGE].dtype == np.float64


def altered(**extra):
    return lambda path: torch.save({**layers().state_dict(), **extra}, path)


@pytest.mark.parametrize(
    ("name", "save", "sentence"),
    [
        ("last.pt", SAVES["state.pt"], "last.pt has no number in its name; name it by its update, as in step_120.pt"),
        ("b_1.pt", SAVES["state.pt"], "has the number of "),
        ("3.pt", lambda _, path: path.write_bytes(b""), "3.pt is damaged or holds more than tensors (EOFError); save"),
        ("3.pt", lambda _, path: torch.save([1], path), "3.pt holds list, not a state_dict; save model.state_dict()"),
        ("3.safetensors", lambda _, path: path.write_bytes(b"abc"), "3.safetensors is damaged ("),
        ("3.pt", lambda _, path: torch.save(layers(0, (5, 4, 2)).state_dict(), path), "3.pt has other tensors than "),
        ("3.pt", lambda model, path: torch.save(model, path), "GLOBAL torch.nn.modules.container.Sequential was not"),
        (
            "3.pt",
            lambda _, path: altered(**{"0.weight": torch.eye(4).to_sparse()})(path),
            "3.pt: 0.weight is sparse or has no values; save dense tensors",
        ),
        (
            "3.pt",
            lambda _, path: altered(**{"0.weight": torch.zeros(4, 5, device="meta")})(path),
            "3.pt: 0.weight is sparse or has no values",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, name, save, sentence):
    checkpoints(tmp_path, ["a_1.pt", "a_2.pt"])
    save(layers(), tmp_path / name)
    refused(tmp_path, f"{tmp_path} cannot be used:", sentence)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(5, 3)),
            "'0.weight' has shape (2, 1, 3, 3) and belongs to no linear",
        ),
        (
            nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
            "'1.weight' has shape (4,) and belongs to no",
        ),
        (
            nn.Sequential(nn.Linear(5, 4), nn.Linear(3, 2)),
            "'0.weight' has 4 units and '1.weight' takes 3, so that they",
        ),
        (nn.ParameterList([torch.zeros(3)]), "no tensor is a weight; only chains of nn.Linear can be read"),
    ],
)
def test_checkpoints_of_what_is_no_chain_of_layers_are_refused(tmp_path, model, sentence):
    for step in (1, 2):
        torch.save(model.state_dict(), tmp_path / f"{step}.pt")
    refused(tmp_path, sentence, "only chains of nn.Linear can be read: 2-D weights in order")


def test_a_folder_with_less_than_two_checkpoints_that_differ_is_refused(tmp_path):
    refused(tmp_path, "no file ends in .pt, .pth, .ckpt, .safetensors; give a folder of checkpoints, or the file of a")
    checkpoints(tmp_path, ["1.pt"])
    refused(tmp_path, "/time has 1 snapshots; at least two are needed: record longer")
    (tmp_path / "2.pt").write_bytes((tmp_path / "1.pt").read_bytes())
    refused(tmp_path, "/weights: nothing ever changes; record while the network learns")


@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: {"state_dict": layers().state_dict(), "x": bomb}])
def test_objects_in_checkpoints_are_refused_and_nothing_is_run(tmp_path, crater, wrap):
    folder = tmp_path / "net"
    folder.mkdir()
    for step in (1, 2):
        torch.save(wrap(Bomb(crater)), folder / f"step_{step}.pt")
    refused(folder, "step_1.pt is damaged or holds more than tensors (", "mkdir", "step_2.pt is", "state_dict() alone")
    assert not crater.exists()
    torch.load(folder / "step_1.pt", weights_only=False)  # the bomb is live
    assert crater.exists()
