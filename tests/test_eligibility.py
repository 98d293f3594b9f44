"""What a synapse remembers until it is judged is the gradient of the chance of what was drawn."""

from __future__ import annotations

import pytest
import torch
from building import Imitation, address, start_row

from metarule.credit.characteristic_eligibility import CharacteristicEligibility
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.terms import Terms
from metarule.synapses.sgd import Sgd

SIZES, EVENTS, RUNS = (4, 3, 2), 3, 2
JUDGED = Terms(("reward_eligibility", "eligibility"), normalise=False, start={"reward_eligibility": 1.0})


def staged(output, k=1):
    credit = CharacteristicEligibility()
    network = Network.chain(SIZES, "tanh", output)
    learner = Learner(network, credit, {ANY: JUDGED}, {ANY: Sgd()})
    columns = learner.columns(start_row(learner).repeat(RUNS, 1))
    noise = address("eligibility", runs=RUNS)
    state = learner.init(columns, noise)
    batch = Imitation(SIZES[0], SIZES[-1]).sample(noise, EVENTS).train(0)
    assert credit.stages(network, batch) == EVENTS
    signals, _ = credit.stage(
        k, columns.credit, network, state["weights"], state["credit"], batch, 0, noise, learner.wanted
    )
    return network, state["weights"], batch, signals


def log_chance(network, weights, x, signals, sigma=0.1):
    """Of the rates that were drawn, each given those below it."""
    first, last = (signals[projection.name] for projection in network.projections)
    names = [projection.name for projection in network.projections]
    hidden = torch.tanh(x @ weights[names[0]].transpose(1, 2))
    drive = first.post @ weights[names[1]].transpose(1, 2)
    total = -((first.post - hidden) ** 2).sum() / (2 * sigma**2)
    if network.output == "softmax":
        return total + (last.post * torch.log_softmax(drive, -1)).sum()
    if network.output == "sigmoid":
        chance = torch.sigmoid(drive)
        return total + (last.post * chance.log() + (1 - last.post) * (1 - chance).log()).sum()
    return total - ((last.post - drive) ** 2).sum() / (2 * sigma**2)


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
def test_eligibility_is_the_gradient_of_the_log_chance_of_what_was_drawn(output):
    network, weights, batch, signals = staged(output)
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    log_chance(network, leaves, batch.x[:, 1:2], signals).backward()
    for name, seen in signals.items():
        torch.testing.assert_close(seen.eligibility, leaves[name].grad, rtol=1e-10, atol=1e-12)


def test_the_reward_is_what_the_trial_of_its_stage_was_paid():
    network, _, batch, signals = staged("linear", k=2)
    action = signals[network.projections[-1].name].post
    assert action is not None
    assert batch.y is not None
    expected = -(action - batch.y[:, 2:3]).square().sum(-1, keepdim=True)
    for seen in signals.values():
        assert seen.reward is not None
        assert torch.equal(seen.reward, expected)


def test_reward_times_eligibility_is_a_term_and_so_is_the_eligibility_alone():
    network, weights, _, signals = staged("sigmoid")
    name = network.projections[0].name
    seen, theta = signals[name], torch.tensor([[2.0, -3.0]] * RUNS, dtype=torch.float64)
    assert seen.reward is not None
    assert seen.eligibility is not None
    change, _ = JUDGED.delta(theta, seen, {}, address("rule", runs=RUNS))
    torch.testing.assert_close(change.tensor(weights[name]), (2 * seen.reward - 3) * seen.eligibility)
