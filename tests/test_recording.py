"""Recordings: what is one, how it comes back from an .npz, and that everything else is refused with its cure."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from metarule.identification.record import record
from metarule.identification.recording import Recording, RecordingError, load
from metarule.identification.structure import ends, of_edges
from metarule.tasks.digits import Digits
from metarule.tasks.teacher import Teacher


@pytest.fixture(scope="module")
def good():
    return record("backprop", Teacher(inputs=5, outputs=3), (4,), 6, 2)


@pytest.fixture
def file(good, tmp_path):
    return good.save(tmp_path / "good.npz")


def assert_same(one, other):
    assert np.array_equal(one.time, other.time)
    for part in ("weights", "bias", "activity"):
        assert getattr(one, part).keys() == getattr(other, part).keys()
        for name, array in getattr(one, part).items():
            assert np.array_equal(array, getattr(other, part)[name])
            assert array.dtype == getattr(other, part)[name].dtype
    assert np.array_equal(one.input, other.input)
    assert np.array_equal(one.target, other.target)


# files


def test_a_recording_comes_back_from_its_file_as_it_was(tmp_path):
    recording = record("backprop", Digits(), (12, 8), 4, 8)
    again = load(recording.save(tmp_path / "recording.npz"))
    assert_same(recording, again)
    assert again.meta == {**recording.meta, "schema": "metarule/1"}
    assert load(again.save(tmp_path / "again.npz")).meta == again.meta


def test_a_file_with_any_byte_damaged_is_refused_or_says_the_same(good, file):
    content = file.read_bytes()
    places = [*range(0, len(content), 53), *range(len(content) - 60, len(content))]
    refused = []
    for place in places:
        for mask in (0xFF, 0x01):
            file.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
            try:
                assert_same(good, load(file))
            except RecordingError as error:
                refused.append(str(error))
    assert len(refused) > len(places)
    assert all(str(file) in sentence for sentence in refused)


@pytest.mark.parametrize(
    "shape",
    ["(6, 4, 5", "(6, 4, '5)", "(6, -4, 5)", "(6, 10**9, 5)", f"({10**30},)", f"({10**15},)", "open('x')", "(6, 4)"],
)
def test_a_header_that_promises_something_else_is_refused(good, tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(800)
    with zipfile.ZipFile(tmp_path / "crafted.npz", "w") as archive:
        archive.writestr("weights/input->hidden1.npy", member)
    with pytest.raises(RecordingError, match=r"/weights/input->hidden1 cannot be read|has no /time"):
        load(tmp_path / "crafted.npz")


@pytest.mark.parametrize("method", [12, 14, 99])
def test_a_member_that_claims_another_compression_is_refused(file, method):
    content = bytearray(file.read_bytes())
    at = content.index(b"PK\x01\x02") + 10  # the compression of the first member in the central directory
    content[at : at + 2] = method.to_bytes(2, "little")
    file.write_bytes(content)
    with pytest.raises(RecordingError, match="cannot be read"):
        load(file)


def test_what_is_wrong_inside_a_file_is_said_with_its_name(good, tmp_path):
    arrays = {f"weights/{edge}": array for edge, array in good.weights.items()}
    np.savez(tmp_path / "it.npz", **{"time": np.array(1.0), **arrays})
    with pytest.raises(RecordingError, match=r"it.npz cannot be used:\n  /time has 0 axes"):
        load(tmp_path / "it.npz")


def test_a_truncated_file_is_refused(file):
    content = file.read_bytes()
    for length in (0, 1, 2, 4, 30, 200, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(RecordingError, match=r"good.npz is damaged or not an .npz recording .*; save it again"):
            load(file)


def test_what_is_no_archive_is_refused(tmp_path, good):
    def refused(name, message):
        with pytest.raises(RecordingError, match=message) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)

    refused("nothing.npz", "does not exist; give the file of a recording")
    refused(".", "no file ends in .pt, .pth, .ckpt, .safetensors")
    (tmp_path / "garbage.npz").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    refused("garbage.npz", "damaged or not an .npz recording")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    refused("list.pkl", "the suffix = '.pkl' is not one of")
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused("one.npy", "the suffix = '.npy' is not one of")
    (tmp_path / "text.npz").write_text("time,weight\n")
    refused("text.npz", "damaged or not an .npz recording")
    with zipfile.ZipFile(tmp_path / "text_inside.npz", "w") as archive:
        archive.writestr("time.npy", "no array")
        archive.writestr("notes.txt", "no array either")
    refused("text_inside.npz", r"/time cannot be read .*\n.*/notes.txt cannot be read")
    np.savez(tmp_path / "empty.npz")
    refused("empty.npz", "has no /time; it holds nothing")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    refused("other.npz", "has no /time; it holds x")


class Bomb:
    """What a pickle can do; the test fails where it is set off."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_pickled_objects_are_never_loaded(good, tmp_path):
    path = tmp_path / "objects.npz"
    objects = np.array([Bomb(), None], dtype=object)
    np.savez(path, **{"time": good.time, "weights/a->b": objects, "bias/b": objects})
    with pytest.raises(RecordingError, match=r"/weights/a->b cannot be read .*numbers only\n.*/bias/b cannot be read"):
        load(path)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{not json", "/meta is not JSON .* json.dumps"),
        ("[1]", "/meta holds list, not an object"),
        ("3", "/meta holds int, not an object"),
        ('{"schema": "metarule/9"}', "schema = 'metarule/9'; this version reads 'metarule/1'"),
        ('{"nonlinearity": "tan"}', "/meta: nonlinearity = 'tan' is not one of .* did you mean 'tanh'"),
        ('{"nonlinearity": ["tanh"]}', "/meta: nonlinearity = .* is not one of"),
        ('{"output": "softmx"}', "did you mean 'softmax'"),
        ('{"beta": "steep"}', "/meta: beta = 'steep' is not a positive number"),
        ('{"beta": NaN}', "/meta: beta = nan is not a positive number"),
        ('{"updates_per_snapshot": "two"}', "/meta: updates_per_snapshot = 'two' is not a whole number"),
        ('{"updates_per_snapshot": 0}', "/meta: updates_per_snapshot = 0 is not a whole number"),
    ],
)
def test_what_a_file_says_about_itself_is_checked(good, tmp_path, meta, message):
    arrays = {f"weights/{edge}": array for edge, array in good.weights.items()}
    np.savez(tmp_path / "it.npz", **{"time": good.time, "meta": np.array(meta), **arrays})
    with pytest.raises(RecordingError, match=message):
        load(tmp_path / "it.npz")


# recordings

EDGE, LAST = "input->hidden1", "hidden1->output"


def changed(good, part, name, array):
    return replace(good, **{part: {**getattr(good, part), name: array}})


def poked(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda g: replace(g, time=np.array(3.0)), ["/time has 0 axes; 1 are needed"]),
        (lambda g: replace(g, time=list(g.time)), ["/time is list; an array of real numbers"]),
        (lambda g: replace(g, time=g.time.astype(str)), ["/time is dtype <U"]),
        (lambda g: replace(g, time=g.time[::-1]), [r"/time\[1\] = 4.0 does not come after its predecessor; sort"]),
        (lambda g: replace(g, time=0 * g.time), [r"/time\[1\] = 0.0 does not come after"]),
        (lambda g: replace(g, time=poked(g.time, 2, np.nan)), [r"/time\[2\] = nan is not finite"]),
        (lambda g: replace(g, time=g.time[:1]), ["/time has 1 snapshots; at least two", "has 6 entries in time"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE].astype(complex)), [f"/weights/{EDGE} is dtype complex"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE] > 0), ["is dtype bool; an array of real numbers"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE].astype(object)), ["is dtype object"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE].astype("datetime64[s]")), ["is dtype datetime64"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE][0]), [f"/weights/{EDGE} has 2 axes; 3 are needed"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE][1:]), ["has 5 entries in time, /time has 6"]),
        (lambda g: changed(g, "weights", EDGE, g.weights[EDGE][:, :0]), ["which is empty"]),
        (
            lambda g: changed(g, "weights", EDGE, poked(g.weights[EDGE], (2, 1, 3), np.inf)),
            [rf"/weights/{EDGE}\[2, 1, 3\] = inf is not finite \(1 in all\); cut"],
        ),
        (
            lambda g: changed(g, "weights", EDGE, g.weights[EDGE].transpose(0, 2, 1)),
            ["population 'hidden1' has 4 units here, elsewhere 5; weights are .time, post, pre."],
        ),
        (lambda g: replace(g, weights={}), ["/weights is empty; name each edge 'pre->post'"]),
        (lambda g: changed(g, "weights", "a->b->c", g.weights[EDGE]), ["/weights/a->b->c does not say which way"]),
        (lambda g: changed(g, "weights", "hidden2", g.weights[EDGE]), ["/weights/hidden2 does not say which way"]),
        (lambda g: changed(g, "weights", "->output", g.weights[EDGE]), ["/weights/->output does not say which way"]),
        (
            lambda g: changed(g, "weights", "output->hidden1", g.weights[LAST].transpose(0, 2, 1)),
            ["the edges form a loop through hidden1, output"],
        ),
        (
            lambda g: changed(g, "weights", "more->output", g.weights[LAST]),
            ["/weights: input, more receive nothing; a network with one input"],
        ),
        (
            lambda g: changed(g, "weights", "hidden1->more", g.weights[LAST]),
            ["/weights: output, more send nothing; a network with one output"],
        ),
        (
            lambda g: replace(g, weights={edge: 0 * array + 1 for edge, array in g.weights.items()}, bias={}),
            ["nothing ever changes; record while the network learns"],
        ),
        (lambda g: replace(g, input=g.input[:, :, 1:]), ["/input has 4 units, population 'input' has 5"]),
        (lambda g: replace(g, target=g.target[:, :, 1:]), ["/target has 2 units, population 'output' has 3"]),
        (lambda g: replace(g, target=g.target[:, 1:]), ["/target has 1 samples, .* has 2; axis 1 is the batch"]),
        (
            lambda g: changed(g, "activity", "hidden1", g.activity["hidden1"][:, :1]),
            ["/activity/hidden1 has 1 samples"],
        ),
        (lambda g: changed(g, "bias", "hidden1", g.bias["hidden1"][:, 1:]), ["/bias/hidden1 has 3 units, .* has 4"]),
        (lambda g: changed(g, "bias", "hiden1", g.bias["hidden1"]), ["/bias/hiden1: .* did you mean 'hidden1'"]),
        (lambda g: changed(g, "bias", "input", g.input[:, 0]), ["/bias/input: .* has no bias; leave it out"]),
        (
            lambda g: changed(g, "activity", "hidden9", g.activity["hidden1"]),
            ["/activity/hidden9: a population of /activity = 'hidden9' is not one of hidden1, input, output"],
        ),
        (
            lambda g: replace(
                g, time=g.time[::-1], input=g.input[:, :, 1:], target=g.target > 0, meta={"output": "tanh"}
            ),
            [r"/time\[1\]", "/input has 4 units", "/target is dtype bool", "/meta: output = 'tanh'"],
        ),
    ],
)
def test_a_bad_recording_is_refused_with_every_problem_its_place_and_its_cure(good, change, messages):
    with pytest.raises(RecordingError) as caught:
        change(good)
    for message in messages:
        with pytest.raises(RecordingError, match=message):
            raise caught.value


def test_a_recording_of_biases_alone_and_of_integers_is_one(good):
    still = {edge: np.broadcast_to(array[:1], array.shape) for edge, array in good.weights.items()}
    assert replace(good, weights=still).problems() == []
    assert replace(good, time=np.arange(6), activity={}).problems() == []


def test_the_order_of_populations_is_found_from_edges_in_any_order():
    weights = {"b->c": np.zeros((2, 3, 4)), "a->c": np.zeros((2, 3, 5)), "a->b": np.zeros((2, 4, 5))}
    found, problems = of_edges(weights)
    assert problems == []
    assert found is not None
    assert list(found.sizes.items()) == [("a", 5), ("b", 4), ("c", 3)]
    assert (found.input, found.output) == ("a", "c")
    assert [ends(edge) for edge in ("a->b", "a", "->b", "a->", "a->b->c")] == [("a", "b"), None, None, None, None]


def test_a_recording_is_what_its_fields_say(good):
    assert isinstance(good, Recording)
    assert good.structure.sizes == {"input": 5, "hidden1": 4, "output": 3}
    assert {edge: array.shape for edge, array in good.weights.items()} == {EDGE: (6, 4, 5), LAST: (6, 3, 4)}
    assert {name: array.shape for name, array in good.bias.items()} == {"hidden1": (6, 4), "output": (6, 3)}
