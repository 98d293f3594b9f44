"""What an episode shows and asks by index in the fused engine: its own data, and nothing beyond their end."""

from __future__ import annotations

import pytest
import torch
from building import EXACT, start_row, train
from test_fused import FUSED, needs_kernel

from metarule.credit.backprop import Backprop
from metarule.inner import Inner
from metarule.learner import ANY, Learner
from metarule.network import Network
from metarule.rules.textbook import Delta
from metarule.synapses.sgd import Sgd
from metarule.tasks.base import Rows
from metarule.tasks.digits import Digits, DigitsEpisode

pytestmark = needs_kernel


def of_digits(kind, inputs=64, outputs=10, engine: Inner = FUSED):
    """A chain that learns from digits of this kind of episode."""

    class Changed(Digits):
        def sample(self, noise, batch):
            episode = super().sample(noise, batch)
            episode.__class__ = kind
            return episode

    learner = Learner(Network.chain((inputs, 9, outputs)), Backprop(), {ANY: Delta()}, {ANY: Sgd()})
    return train(learner, start_row(learner), 9, Changed(), engine)


class Dimmed(DigitsEpisode):
    def train(self, step):
        batch = super().train(step)
        return batch._replace(x=batch.x * 0.5)


class Strict(DigitsEpisode):
    def score(self, respond, weights):
        return {name: 2 * value for name, value in super().score(respond, weights).items()}


@pytest.mark.parametrize("kind", [Dimmed, Strict])
def test_an_episode_with_batches_or_scores_of_its_own_is_believed_over_the_tables_that_it_inherits(kind):
    expected = of_digits(kind, engine=EXACT)
    assert not torch.equal(expected.loss, of_digits(DigitsEpisode, engine=EXACT).loss)
    torch.testing.assert_close(of_digits(kind).loss, expected.loss, rtol=1e-10, atol=0)


class Beyond(DigitsEpisode):
    def rows(self, steps):
        x, x_rows, y, y_rows = super().rows(steps)
        return Rows(x, x_rows + 10_000, y, y_rows)


class Short(DigitsEpisode):
    def rows(self, steps):
        x, x_rows, y, _ = super().rows(steps)
        return Rows(x, x_rows, y, x_rows)  # the very indices of the images, for a table of 10 targets


class Unknown(DigitsEpisode):
    def asked(self):
        asked = super().asked()
        assert asked is not None
        return asked._replace(answers=asked.answers - 1)


@pytest.mark.parametrize(
    ("kind", "sizes", "sentence"),
    [
        (DigitsEpisode, {"inputs": 60}, "gives 64 numbers per event to the 60 units of 'input'"),
        (DigitsEpisode, {"outputs": 4}, "names 0 to 9 of 4 units of the output"),
        (Dimmed, {"outputs": 11}, "gives 10 numbers per event to the 11 units of 'output'"),
        (Beyond, {}, "of 1797 rows of a table"),
        (Short, {}, "of 10 rows of a table"),
        (Unknown, {}, "names -1 to 8 of 10 units of the output; it counts them from 0 to 9"),
    ],
)
def test_what_would_be_read_beyond_its_end_is_refused(kind, sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        of_digits(kind, **sizes)
