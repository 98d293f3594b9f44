"""Complex synapses keep memories as their theory says: power laws, exponentials, and the bounds of Markov chains."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from building import address
from torch import Tensor

from metarule.collect import load_file
from metarule.inspection.figures import keep
from metarule.signals import Change
from metarule.synapses.benna_fusi import BennaFusi
from metarule.synapses.fast_slow import FastSlow
from metarule.synapses.markov import Markov, MarkovCascade, MarkovSerial

analysis = load_file(Path(__file__).parent.parent / "analysis" / "memory_lifetime.py")
ONE = torch.ones(1, 1, dtype=torch.float64)
SILENCE = Change(full=torch.zeros(1, 1, 1, dtype=torch.float64))
CHAINS: list[Markov] = [MarkovSerial(8), MarkovSerial(8, chance=0.4), MarkovCascade(8), MarkovCascade(12, ratio=0.4)]
every_chain = pytest.mark.parametrize("chain", CHAINS, ids=repr)


def transition(model: BennaFusi) -> Tensor:
    """The matrix of one silent step over the variables u_1..u_m: synapse j starts with u_j = 1, all others 0."""
    start = torch.eye(model.variables, dtype=torch.float64)
    weight, state = start[None, :1], {"hidden": start[None, 1:, None]}
    change, state = model.step(ONE, weight, SILENCE, 1.0, state, address("silent"))
    return torch.cat((change.apply(weight)[:, None], state["hidden"]), dim=1)[0, :, 0]


def remembered(matrix: Tensor, times: Tensor) -> Tensor:
    """What is left at u_1 of a unit change, at whole times."""
    values, vectors = torch.linalg.eig(matrix)
    left = torch.linalg.inv(vectors)[:, 0]
    return ((vectors[0] * left) * values ** times[:, None]).real.sum(1)


def slope(matrix: Tensor, first: float, last: float) -> float:
    """d log u_1 / d log t between two times, by least squares over times spread evenly in log t."""
    times = torch.logspace(math.log10(first), math.log10(last), 60, dtype=torch.float64).round()
    return float(np.polyfit(times.log().numpy(), remembered(matrix, times).log().numpy(), 1)[0])


def test_a_benna_fusi_memory_fades_as_the_inverse_root_of_time_over_the_chains_whole_range():
    matrix = transition(BennaFusi(variables=8))
    for first, last in ((30, 7900), (30, 300), (300, 2500), (2500, 7900)):
        assert slope(matrix, first, last) == pytest.approx(-0.5, abs=0.03)
    assert slope(transition(BennaFusi(variables=5)), 1000, 4000) < -0.6  # a shorter chain bends at n^(2m) = 1024


def test_a_chain_whose_charges_grow_but_whose_couplings_do_not_shrink_would_fade_as_the_inverse_of_time():
    # the easy error: n^-(k-1) in place of n^-2(k-1), without n between a variable and the one before it
    size = 20
    speeds = 0.25 * 2.0 ** -torch.arange(size, dtype=torch.float64)
    path = torch.diag_embed(torch.ones(size - 1, dtype=torch.float64), 1)
    flows = path + path.T - 2 * torch.eye(size, dtype=torch.float64)
    flows[0, 0] = -1
    assert slope(torch.eye(size, dtype=torch.float64) + speeds[:, None] * flows, 100, 5000) == pytest.approx(
        -1, abs=0.1
    )


def test_one_variable_forgets_exponentially():
    times = torch.arange(0, 40, dtype=torch.float64)
    found = remembered(transition(BennaFusi(variables=1, coupling=0.2)), times)
    torch.testing.assert_close(found, 0.8**times, rtol=1e-12, atol=0)


def test_a_change_moves_the_weight_at_once_by_the_rate_and_flows_on_without_loss_but_at_the_end():
    model = BennaFusi(variables=6)
    weight = torch.zeros(1, 1, 1, dtype=torch.float64)
    state = model.init(ONE, weight)
    charges = 2.0 ** torch.arange(6, dtype=torch.float64)
    change, state = model.step(0.3 * ONE, weight, Change(full=ONE[None]), 0.5, state, address("n"))
    weight = change.apply(weight)
    assert weight.item() == pytest.approx(0.15, abs=1e-15)
    for _ in range(20):
        chain = torch.cat((weight[0, 0], state["hidden"][0, :, 0, 0]))
        change, state = model.step(ONE, weight, SILENCE, 1.0, state, address("n"))
        weight = change.apply(weight)
        after = torch.cat((weight[0, 0], state["hidden"][0, :, 0, 0]))
        leaked = 0.25 * 2.0**-10 * 2.0**5 * chain[5]
        assert float((charges * (after - chain)).sum() + leaked) == pytest.approx(0, abs=1e-15)


def bits(size: int, step: int) -> Tensor:
    """The pattern of +-1 stored at a step, one bit per synapse, (1 1 N)."""
    return torch.sign(address("patterns", step).uniform(1, size) - 0.5)


def test_overlaps_with_a_stream_of_memories_are_the_impulse_response_and_their_noise_its_power():
    # u_1 = sum over s of h(T - s) xi(s): signal h(t) per synapse, variance sum h^2, whoever the memories are
    size, steps, model = 2000, 400, BennaFusi(variables=8)
    weight = torch.zeros(1, 1, size, dtype=torch.float64)
    state = model.init(ONE, weight)
    for step in range(steps):
        change, state = model.step(ONE, weight, Change(full=bits(size, step)), 1.0, state, address("n"))
        weight = change.apply(weight)
    found = torch.stack([(bits(size, steps - 1 - lag) * weight).mean() for lag in range(steps)])
    ages = torch.arange(steps, dtype=torch.float64)
    expected = remembered(transition(model), ages)
    power = float(expected.square().sum())
    assert float(weight.square().mean()) == pytest.approx(power, rel=5 * (2 / size) ** 0.5)
    ratio = []
    for first, last in ((0, 4), (4, 30), (64, 97), (256, 385)):
        error = (power / size / (last - first)) ** 0.5
        assert float((found - expected)[first:last].mean()) == pytest.approx(0, abs=4 * error)
        ratio.append(float(expected[first:last].mean()) * (size / power) ** 0.5)
    assert ratio[2] / ratio[3] == pytest.approx(2, rel=0.02)  # four times older, half the signal to noise


def test_fast_and_slow_parts_forget_along_two_exponentials_exactly():
    fading, consolidation, leak = 0.2, 0.07, 0.003
    model = FastSlow(fading=fading, consolidation=consolidation, leak=leak)
    weight = torch.zeros(1, 1, 2, dtype=torch.float64)
    state, size = model.init(ONE, weight), torch.tensor([[[1.0, -0.5]]], dtype=torch.float64)
    change, state = model.step(0.4 * ONE, weight, Change(full=size), 0.5, state, address("n"))
    weight, share = change.apply(weight), consolidation / (fading - leak)
    for age in range(400):
        kept = (1 - share) * (1 - fading) ** age + share * (1 - leak) ** age
        torch.testing.assert_close(weight, 0.2 * size * kept, rtol=1e-11, atol=1e-14)
        change, state = model.step(ONE, weight, SILENCE, 1.0, state, address("n"))
        weight = change.apply(weight)


def test_what_consolidates_all_that_fades_and_never_leaks_forgets_nothing():
    model = FastSlow(fading=0.1, consolidation=0.1, leak=0.0)
    weight = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    state = model.init(ONE, weight)
    for step in range(50):
        given = torch.ones_like(weight) if step < 10 else torch.zeros_like(weight)
        change, state = model.step(0.02 * ONE, weight, Change(full=given), 1.0, state, address("n"))
        weight = change.apply(weight)
    assert weight.item() == pytest.approx(0.5, abs=1e-14)
    assert state["fast"].item() == pytest.approx(0.02 * sum(0.9**age for age in range(40, 50)), abs=1e-14)


def curve(chain: Markov, ages: int) -> tuple[Tensor, Tensor]:
    """p_inf, and the mean of xi w at every age: 1/2 p_inf (M^pot - M^dep) M_F^t w, M_F = (M^pot + M^dep) / 2."""
    potentiation, depression = chain.matrices()
    forgetting = (potentiation + depression) / 2
    size = len(forgetting)
    ones = torch.ones(size, 1, dtype=torch.float64)
    balance = torch.cat((forgetting.T - torch.eye(size, dtype=torch.float64), ones.T))
    goal = torch.zeros(size + 1, dtype=torch.float64)
    goal[-1] = 1
    resting = torch.linalg.lstsq(balance, goal).solution
    signs = torch.sign(torch.arange(size, dtype=torch.float64) - (size - 1) / 2)
    row, found = resting @ (potentiation - depression) / 2, []
    for _ in range(ages):
        found.append(row @ signs)
        row = row @ forgetting
    return resting, torch.stack(found)


@every_chain
def test_a_population_of_markov_synapses_remembers_as_the_matrices_say(chain):
    size, steps = 10000, 40
    resting, expected = curve(chain, steps)
    start = torch.searchsorted(resting.cumsum(0), torch.linspace(1e-9, 1 - 1e-9, size, dtype=torch.float64))
    weight = torch.sign(start - (chain.states - 1) / 2)[None, None].double()
    state = chain.init(ONE, weight) | {"state": start[None, None].double()}
    noise = address("markov")
    for step in range(steps):
        change, state = chain.step(ONE, weight, Change(full=bits(size, step)), 1.0, state, noise.at(step))
        weight = change.apply(weight)
        assert torch.equal(weight.abs(), torch.ones_like(weight))
    found = torch.stack([(bits(size, steps - 1 - age) * weight).mean() for age in range(steps)])
    worst = float((found - expected).abs().max()) * size**0.5
    assert worst < 4  # standard errors of a mean of N signs, the largest of forty
    visited = torch.bincount(state["state"].long().flatten(), minlength=chain.states) / size
    torch.testing.assert_close(visited.double(), resting, rtol=0, atol=5 * (0.25 / size) ** 0.5)


@every_chain
def test_no_chain_beats_the_bounds_on_its_first_moment_and_on_its_area(chain):
    # Lahiri and Ganguli 2013: SNR(0) <= sqrt N, area under the curve <= sqrt N (M - 1), here with N = 1
    _, found = curve(chain, 4000)
    assert 0 < float(found[0]) <= 1
    assert float(found[-1]) < 1e-4
    assert float(found.sum()) <= chain.states - 1


def test_two_states_reach_the_bound_on_the_start_and_the_area_of_a_row_is_half_its_length():
    assert float(curve(MarkovSerial(2), 3)[1][0]) == pytest.approx(1, abs=1e-12)
    for states in (2, 10, 16):
        # a uniform row rests in all states alike; the bound M - 1 is only met in the limit of sticky ends
        assert float(curve(MarkovSerial(states), 4000)[1].sum()) == pytest.approx(states / 2, abs=1e-9)


def test_a_row_of_states_remembers_more_early_on_and_a_cascade_more_late():
    serial, cascade = (curve(chain, 1500)[1] for chain in (MarkovSerial(20), MarkovCascade(20)))
    assert (serial[20:150] > cascade[20:150]).all()
    assert (cascade[600:] > 3 * serial[600:]).all()


@every_chain
def test_potentiation_and_depression_are_mirror_images_and_conserve_probability(chain):
    potentiation, depression = chain.matrices()
    assert torch.equal(potentiation, depression.flip(0, 1))
    torch.testing.assert_close(potentiation.sum(1), torch.ones(chain.states, dtype=torch.float64))
    assert ((potentiation >= 0) & (potentiation <= 1)).all()


def test_the_size_of_a_change_times_the_rate_is_the_chance_of_an_event():
    size, model = 40000, MarkovSerial(2)
    weight = -torch.ones(1, 1, size, dtype=torch.float64)
    change = Change(full=torch.full_like(weight, 0.6))
    step, _ = model.step(0.5 * ONE, weight, change, 0.5, model.init(ONE, weight), address("chance"))
    assert float((step.apply(weight) > 0).double().mean()) == pytest.approx(0.15, abs=5 * (0.15 * 0.85 / size) ** 0.5)


def test_the_analysis_of_lifetimes_knows_the_same_curves(tmp_path):
    ages = torch.arange(40, dtype=torch.float64)
    model = BennaFusi(variables=4)
    response = remembered(transition(model), torch.arange(20000, dtype=torch.float64))
    found = analysis.linear(model)
    assert found.std == pytest.approx(float(response.square().sum().sqrt()), rel=1e-9)
    torch.testing.assert_close(found.snr(ages, 1.0) * found.std, response[:40], rtol=1e-9, atol=1e-12)
    share = analysis.linear(FastSlow(fading=0.2, consolidation=0.1, leak=0.01))
    expected = (1 - 0.1 / 0.19) * 0.8**ages + 0.1 / 0.19 * 0.99**ages
    torch.testing.assert_close(share.snr(ages, 1.0) * share.std, expected, rtol=1e-9, atol=1e-12)
    for chain in CHAINS:
        torch.testing.assert_close(analysis.markov(chain).snr(ages, 4.0), 2 * curve(chain, 40)[1], rtol=1e-9, atol=1e-9)
    exponential = analysis.Curve(torch.ones(1), torch.tensor([0.9], dtype=torch.float64), 1.0)
    last = math.log(100) / -math.log(0.9)  # 100 0.9^t is 1 at t = 43.7
    assert exponential.lifetime(1e4) == float(analysis.TIMES[analysis.TIMES.le(last)].max())
    files = keep(tmp_path, "memory_lifetime", analysis.numbers(200, 2, 30), analysis.figure)
    assert [file.name for file in files] == ["memory_lifetime.json", "memory_lifetime.png"]
    models = json.loads(files[0].read_text())["models"]
    for name, model in models.items():
        assert model["lifetimes"] == sorted(model["lifetimes"]), name
    reached = {name: model["lifetimes"][8] for name, model in models.items()}
    assert max(reached, key=lambda name: reached[name]).startswith("Benna-Fusi")


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: BennaFusi(variables=0), "synapse.variables = 0 must be at least 1"),
        (lambda: BennaFusi(ratio=0.5), "synapse.ratio = 0.5 must be at least 1"),
        (lambda: BennaFusi(coupling=0.7), r"synapse.coupling = 0.7 must lie in \(0, 0.5\]"),
        (lambda: FastSlow(leak=0.2), "0 <= leak < fading <= 1"),
        (lambda: FastSlow(consolidation=0.5), r"synapse.consolidation = 0.5 must lie in \[0, fading = 0.1\]"),
        (lambda: MarkovSerial(states=5), "synapse.states = 5 must be even"),
        (lambda: MarkovSerial(chance=0.0), r"synapse.chance = 0.0 must lie in \(0, 1\]"),
        (lambda: MarkovSerial(strength=-1.0), "synapse.strength = -1.0 must be positive"),
        (lambda: MarkovCascade(states=0), "synapse.states = 0 must be even"),
        (lambda: MarkovCascade(ratio=0.7), r"synapse.ratio = 0.7 must lie in \(0, 0.5\]"),
    ],
)
def test_synapses_that_make_no_sense_are_refused_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
