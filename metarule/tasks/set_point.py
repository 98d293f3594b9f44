"""Set-point: neurons are driven at random, differently in every episode, and are to end up at one and the same rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from metarule.collect import unknown
from metarule.signals import Batch
from metarule.tasks import scores
from metarule.tasks.base import Episode, Respond, Task


@dataclass(frozen=True, eq=False)
class SetPointEpisode(Episode):
    """One pattern of input rates per run, `rates`, in spikes per time step of `step` ms."""

    rates: Float[Tensor, "R J"]
    target: float
    step: float
    batch: int

    def train(self, step):
        return Batch(self.rates[:, None].expand(-1, self.batch, -1))

    def score(self, respond, weights):
        away = self.mean_rate(respond) - self.target
        return {"held_out_loss": away.square(), "rate_error": away.abs()}

    def mean_rate(self, respond: Respond) -> Float[Tensor, "R"]:
        """What the outputs fire at, in Hz, the mean over inputs that fire a tenth less and a tenth more than they did.

        A negative drive is a rate of 0.
        """
        activity = respond(self.rates[:, None] * self.rates.new_tensor(((0.9,), (1.1,)))).rates
        return activity[next(reversed(activity))].clamp(min=0).mean(dim=(1, 2)) * 1000 / self.step


@dataclass(frozen=True)
class SetPoint(Task):
    """Inputs at constant rates; whatever they are, the outputs are to fire at `target` Hz on average.

    Every input's rate is uniform between `low` and `high` Hz, times a gain between 1/2 and 2 that an episode's inputs
    share: what fits one presynaptic rate only does not keep the postsynaptic one elsewhere. A time step lasts `step`
    ms. Loss = (mean rate - target)^2 in Hz^2, "rate_error" is its root; the mean over outputs, as one neuron that
    learns from its own spikes alone cannot know its rate better than it can count them. Held out are other rates.
    Raises ValueError where rates are no probabilities per time step.
    """

    inputs: int = 40  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    outputs: int = 60  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    target: float = 10.0
    low: float = 20.0
    high: float = 100.0
    step: float = 1.0
    split: str = "search"

    kind = "set_point"
    source = "Vogels et al. 2011; Confavreux et al. 2025"
    metrics = {"held_out_loss": "min", "rate_error": "min"}  # noqa: RUF012
    baselines = ()

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"task.low = {self.low} and task.high = {self.high} must be rates, the lower one first")
        if self.step <= 0 or self.target <= 0 or 2 * self.high * self.step > 1000:
            raise ValueError(
                f"task.step = {self.step} ms: with it 2 task.high = {2 * self.high} Hz and task.target = "
                f"{self.target} Hz must be positive and at most one spike per time step"
            )
        if self.split not in scores.SPLITS:
            raise ValueError(unknown("task.split", self.split, scores.SPLITS))

    @property
    def output(self):
        return "linear"

    def sample(self, noise, batch):
        noise = noise.at(self.split)
        gain = 2 ** noise.at("gain").uniform(1, low=-1.0, high=1.0)
        hertz = gain * noise.at("rates").uniform(self.inputs, low=self.low, high=self.high)
        return SetPointEpisode(hertz * self.step / 1000, self.target, self.step, batch)

    @property
    def headline(self):
        return "rate_error"

    def held_out(self):
        return replace(self, split="held_out")

    def seen(self):
        return f"fresh random input rates ({self.split} branch of the addresses)"
