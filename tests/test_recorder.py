"""The Recorder: exact updates of a stranger's own model, which trains as if nobody looked."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metarule as mr
from metarule.identification.problems import RANKS, RecordingError, part_of
from metarule.identification.recorder import BURST, Recorder
from metarule.identification.recording import load
from metarule.nonlinearities import NONLINEARITIES, OUTPUTS

EDGES = ("input->hidden1", "hidden1->hidden2", "hidden2->output")
BATCH = 8


def multilayer(middle: type[nn.Module] = nn.Tanh, outputs: int = 3) -> nn.Sequential:
    """A stranger's model, 6-5-4-O, of which one layer has no bias."""
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Linear(6, 5), middle(), nn.Linear(5, 4, bias=False), middle(), nn.Linear(4, outputs)),
    )


def batches(count: int, outputs: int = 3, sizes: tuple[int, ...] = (BATCH,)) -> list[tuple[Tensor, Tensor]]:
    """Inputs (S, 6) and classes (S,), the sizes of batches in turns."""
    generator = torch.Generator().manual_seed(2)
    drawn = [sizes[place % len(sizes)] for place in range(count)]
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(outputs, (size,), generator=generator))
        for size in drawn
    ]


def states_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().clone().numpy() for name, value in model.named_parameters()}


def train(
    model: nn.Module,
    shown: list[tuple[Tensor, Tensor]],
    recorder: Recorder | None = None,
    loss=nn.functional.cross_entropy,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> list[dict[str, np.ndarray]]:
    """An ordinary loop of training; its parameters before every update and after the last one."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    states = [states_of(model)]
    for x, y in shown:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        if recorder is not None:
            recorder.snapshot(x, y)
        states.append(states_of(model))
    return states


def recorded(count: int, every: int = 10, sizes: tuple[int, ...] = (BATCH,), **settings):
    """A recording of `count` updates, what was shown, and the parameters before each."""
    model, shown = multilayer(), batches(count, sizes=sizes)
    recorder = mr.Recorder(model, every=every, **settings)
    states = train(model, shown, recorder)
    return recorder.recording, shown, states


def times(recording: mr.Recording) -> list[int]:
    return recording.time.astype(int).tolist()


# what is kept


def test_three_lines_record_an_unmodified_model_and_save_it(tmp_path):
    model, shown = multilayer(), batches(24)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = mr.Recorder(model, every=10)
    for x, y in shown:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        recorder.snapshot(x, y)
    paths = [recorder.save(tmp_path / name) for name in ("mine.h5", "mine.npz")]
    for path in paths:
        read = load(path)
        assert read.arrays.keys() == recorder.recording.arrays.keys()
        for name, array in recorder.recording.arrays.items():
            assert np.array_equal(array, read.arrays[name], equal_nan=True)
            assert array.dtype == read.arrays[name].dtype
        assert read.meta == {**recorder.recording.meta, "schema": "metarule/1"}
    assert recorder.recording.structure.sizes == {"input": 6, "hidden1": 5, "hidden2": 4, "output": 3}
    assert recorder.recording.meta == {
        "source": "recorder",
        "snapshot": "before",
        "nonlinearity": "tanh",
        "beta": 1.0,
        "output": "softmax",
        "populations": ["input", "hidden1", "hidden2", "output"],
        "probes": 0,
        "updates_per_snapshot": 1,
    }


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 0.01}])
def test_snapshots_precede_their_update_and_their_differences_are_what_the_optimizer_did(settings):
    model, shown = multilayer(), batches(25)
    recorder = mr.Recorder(model, every=10)
    states = train(model, shown, recorder, **settings)
    recording = recorder.recording
    names = dict(zip(EDGES, ("0.weight", "2.weight", "4.weight"), strict=True))
    assert [*recording.weights] == [*names]
    assert {*recording.bias} == {"hidden1", "output"}
    for place, time in enumerate(times(recording)):
        for edge, name in names.items():
            assert np.array_equal(recording.weights[edge][place], states[time][name])
        assert np.array_equal(recording.bias["hidden1"][place], states[time]["0.bias"])
    for single in recording.singles:
        time = times(recording)[single]
        for edge, name in names.items():
            change = recording.weights[edge][single + 1] - recording.weights[edge][single]
            assert np.array_equal(change, states[time + 1][name] - states[time][name])
            assert np.abs(change).max() > 0


def test_plain_gradient_descent_is_minus_the_rate_times_the_gradient_of_what_was_recorded():
    recording, _, _ = recorded(12, every=1)
    assert recording.input is not None
    assert recording.target is not None
    for single in recording.singles:
        made = {edge: torch.tensor(recording.weights[edge][single], requires_grad=True) for edge in EDGES}
        rate = drive = torch.tensor(recording.input[single])
        for edge, bias in zip(EDGES, ("hidden1", None, "output"), strict=True):
            drive = rate @ made[edge].T + (torch.tensor(recording.bias[bias][single]) if bias else 0)
            rate = torch.tanh(drive)
        nn.functional.cross_entropy(drive, torch.tensor(recording.target[single])).backward()
        for edge, weight in made.items():
            assert weight.grad is not None
            change = recording.weights[edge][single + 1] - recording.weights[edge][single]
            # float32 has 7 digits, weights are of order 0.1 and changes of order 1e-3
            np.testing.assert_allclose(change, -0.1 * weight.grad.numpy(), atol=1e-7)


def test_what_is_shown_and_the_rates_belong_to_the_weights_before_the_update():
    recording, shown, states = recorded(23)
    assert recording.input is not None
    assert recording.target is not None
    for place, time in enumerate(times(recording)):
        if place not in recording.singles:
            continue
        x, y = shown[time]
        twin = multilayer()
        twin.load_state_dict({name: torch.tensor(value) for name, value in states[time].items()})
        assert np.array_equal(recording.input[place], x)
        assert np.array_equal(recording.target[place], nn.functional.one_hot(y, 3).float())
        for population, depth in (("hidden1", 2), ("hidden2", 4)):
            rates = twin[:depth](x).detach().numpy()
            np.testing.assert_allclose(recording.activity[population][place], rates, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(recording.activity["output"][place], twin(x).softmax(-1).detach().numpy(), rtol=1e-5)


# which updates


def test_bursts_are_three_updates_in_a_row_and_the_weights_after_them():
    recording, _, _ = recorded(33)
    assert times(recording) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33]
    assert len(recording.singles) == 4 * BURST
    assert recording.input is not None
    # the last snapshot of all is taken when the recording is read: its batch is not known yet
    assert np.isnan(recording.input[-1]).all()
    assert np.isfinite(recording.input[:-1]).all()


@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_up_to_four_every_update_is_kept(every):
    recording, _, _ = recorded(9, every=every, most=8)
    assert times(recording) == [*range(10)]


def test_a_recording_can_be_read_in_the_middle_of_training_and_goes_on():
    model, shown = multilayer(), batches(15)
    recorder = mr.Recorder(model)
    train(model, shown[:2], recorder)
    assert times(recorder.recording) == [0, 1, 2]
    train(model, shown[2:], recorder)
    assert times(recorder.recording) == [0, 1, 2, 3, 10, 11, 12, 13]


def test_beyond_most_every_second_burst_is_dropped_and_every_doubles():
    model = multilayer()
    recorder = mr.Recorder(model, every=10, most=16)
    states = train(model, batches(205), recorder)
    recording = recorder.recording
    assert recorder.every == 80
    assert times(recording) == [0, 1, 2, 3, 80, 81, 82, 83, 160, 161, 162, 163]
    for place, time in enumerate(times(recording)):
        assert np.array_equal(recording.weights[EDGES[0]][place], states[time]["0.weight"])


@pytest.mark.parametrize("every", [1, 5])
def test_a_last_batch_of_another_size_is_passed_over_and_bounds_no_false_single_update(every):
    recording, shown, states = recorded(30, every=every, sizes=(BATCH, BATCH, BATCH, BATCH, 3))
    assert recording.input is not None
    assert recording.input.shape == (len(recording.time), BATCH, 6)
    whole = np.isfinite(recording.input).all(axis=(1, 2))
    for place, time in enumerate(times(recording)):
        assert np.array_equal(recording.weights[EDGES[0]][place], states[time]["0.weight"])
        if whole[place]:
            assert np.array_equal(recording.input[place], shown[time][0])
        else:
            assert place not in recording.singles
    assert len(recording.singles) > 5


# stimuli, targets, outputs


def test_probes_lead_the_batch_and_are_shown_at_every_snapshot():
    probes = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    recording, shown, states = recorded(23, probes=probes)
    assert recording.probes == 4
    assert recording.input is not None
    assert recording.target is not None
    assert recording.input.shape[1] == 4 + BATCH
    assert np.array_equal(recording.input[:, :4], probes.expand(len(recording.time), 4, 6))
    assert np.isfinite(recording.activity["hidden2"][:, :4]).all()  # where the batch is not known, too
    assert np.isnan(recording.target[:, :4]).all()
    for single in recording.singles:
        assert np.array_equal(recording.input[single, 4:], shown[times(recording)[single]][0])
    first = torch.tanh(probes @ torch.tensor(states[10]["0.weight"]).T + torch.tensor(states[10]["0.bias"]))
    np.testing.assert_allclose(recording.activity["hidden1"][4, :4], first, rtol=1e-5, atol=1e-6)


def one_hot(y: Tensor) -> Tensor:
    return nn.functional.one_hot(y, 3).float()


@pytest.mark.parametrize(
    ("last", "loss", "given", "output", "found"),
    [
        (None, nn.functional.cross_entropy, None, None, "softmax"),
        (nn.LogSoftmax(-1), nn.functional.nll_loss, None, None, "softmax"),
        (None, nn.functional.mse_loss, one_hot, None, "linear"),
        (nn.Sigmoid(), nn.functional.binary_cross_entropy, one_hot, None, "sigmoid"),
        (nn.Softmax(-1), nn.functional.mse_loss, one_hot, None, "softmax"),
        (None, nn.functional.cross_entropy, one_hot, "softmax", "softmax"),
        (None, nn.functional.binary_cross_entropy_with_logits, one_hot, "sigmoid", "sigmoid"),
    ],
)
def test_the_output_is_found_or_said(last, loss, given, output, found):
    model = multilayer() if last is None else multilayer().append(last)
    shown = [(x, y if given is None else given(y)) for x, y in batches(4)]
    recorder = mr.Recorder(model, output=output)
    train(model, shown, recorder, loss)
    recording = recorder.recording
    assert recording.meta["output"] == found
    assert recording.target is not None
    assert np.array_equal(recording.target[0], nn.functional.one_hot(batches(4)[0][1], 3))
    assert recording.input is not None
    weight, bias = recording.weights[EDGES[2]][0], recording.bias["output"][0]
    drive = torch.tensor(recording.activity["hidden2"][0] @ weight.T + bias)
    np.testing.assert_allclose(recording.activity["output"][0], OUTPUTS[found](drive), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("target", "shape"), [(lambda y: y.float(), (BATCH,)), (lambda y: y.float()[:, None], (BATCH, 1))]
)
def test_values_of_a_single_output_are_targets_with_and_without_their_axis(target, shape):
    model = multilayer(outputs=1)
    shown = [(x, target(y)) for x, y in batches(4, outputs=2)]
    assert shown[0][1].shape == shape
    recorder = mr.Recorder(model)
    train(model, shown, recorder, lambda made, y: nn.functional.mse_loss(made.reshape(y.shape), y))
    assert recorder.recording.target is not None
    assert np.array_equal(recorder.recording.target[0, :, 0], shown[0][1].reshape(-1))


MIDDLES = {"linear": nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "tanh": nn.Tanh}


@pytest.mark.parametrize("name", sorted(NONLINEARITIES))
def test_the_nonlinearity_is_found(name):
    model = multilayer(MIDDLES[name])
    recorder = mr.Recorder(model)
    train(model, batches(2), recorder)
    assert (recorder.recording.meta["nonlinearity"], recorder.recording.meta["beta"]) == (name, 1.0)


class Images(nn.Module):
    """A stranger's class: layers in no order, flattened images, a soft plus of its own steepness, 64 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = nn.Linear(5, 3)
        self.first = nn.Linear(6, 5)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(nn.functional.softplus(self.first(x.flatten(1)), beta=1.0))


def test_a_class_of_ones_own_on_images_in_64_bits_is_recorded():
    model = Images()
    recorder = mr.Recorder(model)
    train(model, [(x.reshape(-1, 1, 2, 3).double(), y) for x, y in batches(5)], recorder)
    recording = recorder.recording
    assert recording.structure.sizes == {"input": 6, "hidden1": 5, "output": 3}
    assert recording.weights["input->hidden1"].dtype == np.float64
    assert recording.input is not None
    assert np.array_equal(recording.input[0], batches(5)[0][0].double())


@pytest.mark.parametrize("training", [True, False])
def test_what_enters_the_first_layer_behind_layers_that_do_not_learn_is_the_input(training):
    front = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten())
    front.requires_grad_(False)
    model = nn.Sequential(front, nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)).train(training)
    recorder = mr.Recorder(model)
    averages = front.state_dict()["2.running_mean"]
    before = averages.clone()
    x, y = batches(1)[0]
    train(model, [(x, y)], recorder)
    assert torch.equal(averages, before) is not training  # the model's own forward pass moves them, once
    assert recorder.recording.structure.sizes == {"input": 8, "hidden1": 5, "output": 3}
    seen = front(x)
    np.testing.assert_allclose(recorder.recording.arrays["input"][0], seen, rtol=1e-5, atol=1e-6)


# what it costs the model: nothing


@pytest.mark.parametrize("training", [True, False])
def test_training_is_bit_by_bit_the_same_with_a_recorder_and_without(training):
    def run(watched: bool):
        model = nn.Sequential(*multilayer(), nn.Dropout(0.0)).train(training)
        torch.manual_seed(5)
        recorder = mr.Recorder(model, every=1, probes=torch.ones(2, 6)) if watched else None
        noisy = [(x + 0.1 * torch.randn(x.shape), y) for x, y in batches(3)]
        states = train(model, noisy, recorder)
        states += train(model, [(x + 0.1 * torch.randn(x.shape), y) for x, y in batches(3)], recorder)
        grads = [value.grad.clone() for value in model.parameters() if value.grad is not None]
        return states, grads, torch.get_rng_state(), model

    (alone, grads, state, _), (watched, grads_watched, state_watched, model) = run(False), run(True)
    for one, other in zip(alone, watched, strict=True):
        for name, value in one.items():
            assert np.array_equal(value, other[name])
    assert all(torch.equal(one, other) for one, other in zip(grads, grads_watched, strict=True))
    assert torch.equal(state, state_watched)
    assert model.training is training
    assert not any(part._forward_hooks for part in model.modules())


def test_a_model_that_draws_random_numbers_draws_the_same_ones():
    class Noisy(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input + 0.0 * torch.randn(input.shape))

    def run(watched: bool) -> Tensor:
        model = Noisy(*multilayer())
        torch.manual_seed(6)
        train(model, batches(4), mr.Recorder(model, every=1) if watched else None)
        return torch.get_rng_state()

    assert torch.equal(run(False), run(True))


def test_what_is_kept_shares_no_memory_with_the_model_or_the_batch():
    model, shown = multilayer(), batches(4)
    recorder = mr.Recorder(model)
    train(model, shown, recorder)
    before = copy.deepcopy(recorder.recording.arrays)
    for value in (*model.parameters(), *(x for x, _ in shown)):
        value.data.fill_(7.0)
    for path, array in recorder.recording.arrays.items():
        assert np.array_equal(array, before[path], equal_nan=True)


def test_its_cost_is_told():
    model = multilayer()
    recorder = mr.Recorder(model, every=10)
    assert "not seen yet" in repr(recorder)
    train(model, batches(24), recorder)
    kept = recorder.recording
    seconds, size = recorder.cost
    assert 0 < seconds < 5
    # the copy of the weights before the next update comes on top of the arrays, and what is not known takes no place
    assert 0.8 * sum(array.nbytes for array in kept.arrays.values()) < size
    assert size < 1.2 * sum(array.nbytes for array in kept.arrays.values())
    said = repr(recorder)
    assert "Recorder(Sequential 6-5-4-3: 3 updates in a row of every 10" in said
    assert "24 updates seen" in said
    assert "every update" in repr(mr.Recorder(model, every=1))


def test_a_model_that_diverged_is_kept_until_then(tmp_path):
    model, shown = multilayer(nn.Identity), batches(12)
    recorder = mr.Recorder(model, every=1)
    train(model, shown[:5], recorder)
    with torch.no_grad():
        model[2].weight.fill_(torch.inf)  # pyright: ignore[reportCallIssue, reportArgumentType]
    train(model, shown[5:], recorder)
    with pytest.warns(UserWarning, match=r"the model diverged by update 6; what follows is left out"):
        path = recorder.save(tmp_path / "mine.h5")
    assert times(load(path)) == [0, 1, 2, 3, 4, 5]


# mistakes


def test_a_snapshot_before_the_update_is_warned_of():
    model, (x, y) = multilayer(), batches(1)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = mr.Recorder(model)
    nn.functional.cross_entropy(model(x), y).backward()
    with pytest.warns(
        UserWarning, match=r"no weight has changed since .* call recorder.snapshot\(x, y\) after the"
    ) as told:
        recorder.snapshot(x, y)
    assert told[0].filename == __file__  # the line of the training loop that is to be moved
    optimizer.step()


def test_a_snapshot_after_the_update_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded(5)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.same(torch.tanh(self.same(x)))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x.reshape(-1, 3, 2)).sum(1)


REFUSED = {
    "a convolution": (
        nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)),
        r"1.weight, 1.bias are learned but belong to no nn.Linear; a Recorder follows a chain of nn.Linear with one of",
    ),
    "dropout": (
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.1), nn.Linear(5, 3)),
        r"^2 drops units at random, which is not recorded; set p = 0",
    ),
    "batch norm": (
        nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)),
        r"1.weight, 1.bias are learned but belong to no nn.Linear",
    ),
    "batch norm that learns nothing": (
        nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False), nn.Tanh(), nn.Linear(5, 3)),
        r"between '0' and '3' stands a nonlinearity that is unknown or differs from that of earlier layers",
    ),
    "an unknown nonlinearity": (
        nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)),
        r"between '0' and '2' stands a nonlinearity that is unknown",
    ),
    "two nonlinearities": (
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
        r"between '2' and '4' stands a nonlinearity that .* differs from that of earlier layers",
    ),
    "a layer twice": (Twice(), r"the layer 'same' acts twice"),
    "a layer that does nothing": (Unused(), r"the layers spare are never called"),
    "a layer shared over space": (Rows(), r"the layer 'each' makes \(\d+, 3, 3\), not \(samples, units\)"),
    "another answer": (
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh()),
        r"the model does not return its last layer's drive, .* let it return logits, the loss apart",
    ),
    "no layer": (nn.Sequential(nn.Flatten()), r"the model has no nn.Linear"),
}


@pytest.mark.filterwarnings("ignore:no weight has changed")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chain_of_linear_layers_is_refused_by_the_layers_name_and_left_as_it_was(name):
    model, message = REFUSED[name]
    before = copy.deepcopy(model.state_dict())
    recorder = mr.Recorder(model)
    x, y = batches(1)[0]
    with pytest.raises(RecordingError, match=message):
        recorder.snapshot(x, y)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, r"every = 0 is not a whole number from 1 on; 10 keeps 3 updates of 10"),
        ({"every": 2.5}, r"every = 2.5 is not a whole number"),
        ({"every": True}, r"every = True is not a whole number"),
        ({"output": "softmx"}, r"output = 'softmx' is not one of softmax, sigmoid, linear"),
        ({"most": 7}, r"most = 7 holds less than two bursts; give 8 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(RecordingError, match=message):
        mr.Recorder(multilayer(), **settings)


@pytest.mark.filterwarnings("ignore:no weight has changed")
@pytest.mark.parametrize(
    "y", [torch.full((BATCH,), 3), torch.full((BATCH,), -1), torch.zeros(BATCH, 2), torch.zeros(BATCH, 2, 3)]
)
def test_targets_that_fit_no_output_are_refused(y):
    with pytest.raises(RecordingError, match=r"y has shape .* give classes \(S,\) from 0 to 2, or values \(S, 3\)"):
        mr.Recorder(multilayer()).snapshot(batches(1)[0][0], y)


def test_nothing_recorded_is_said():
    recorder = mr.Recorder(multilayer())
    with pytest.raises(
        RecordingError, match=r"nothing was recorded; call recorder.snapshot\(x, y\) after every update"
    ):
        recorder.recording  # noqa: B018


# the page


def test_the_page_shows_code_that_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "record_your_own_network.md").read_text()
    shown: dict[str, object] = {}
    codes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for code in codes:
        exec(code, shown)
    # the import apart, three lines are the Recorder's
    recording = next(code for code in codes if "Recorder(" in code)
    assert sum("ecorder" in line for line in recording.splitlines()) == 3
    assert times(load("mine.h5"))[:12] == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert list(load("by_hand.h5").singles) == [*range(199)]


def test_the_page_has_every_array_and_every_key_of_meta():
    page = (Path(__file__).parent.parent / "docs" / "record_your_own_network.md").read_text()
    arrays, keys = (re.findall(r"^\| `([\w>/-]+)` \|", part, re.MULTILINE) for part in page.split("| key |"))
    assert [part_of(name) for name in arrays] == [*RANKS]
    recording, _, _ = recorded(4)
    assert {*recording.meta, "schema", "clock", "missing"} == {*keys}
    for name in (*NONLINEARITIES, *OUTPUTS):
        assert f'`"{name}"`' in page
