"""Is a user's own network told right? Unmodified PyTorch models, three added lines, optimizers known and unknown.

Models and training loops are written here with torch alone. Known: SGD, SGD with momentum, Adam, and feedback alignment
and its direct form by hand; unknown to the bank: six other optimizers. Every case with several seeds and two depths.

    python analysis/own_networks.py runs/analysis/own_networks --seeds 10
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from asked import parser, written
from sklearn.datasets import load_digits
from torch import nn

import metarule as mr
from metarule.identification.metrics import grouped_interval
from metarule.identification.recorder import Recorder

UPDATES, BATCH, EVERY = 200, 16, 10
DEPTHS: tuple[tuple[int, ...], ...] = ((48,), (48, 32))

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

KNOWN: dict[str, Optimizer] = {
    "backprop": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=1e-3),
}
"""Class of the bank -> the optimizer that makes it."""

FOREIGN: dict[str, Optimizer] = {
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=1e-3),
    "Adagrad": functools.partial(torch.optim.Adagrad, lr=1e-2),
    "Adadelta": functools.partial(torch.optim.Adadelta, lr=1.0),
    "Adamax": functools.partial(torch.optim.Adamax, lr=2e-3),
    "Rprop": functools.partial(torch.optim.Rprop, lr=1e-3),
    "Nesterov": functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9, nesterov=True),
}
"""Optimizers that the bank does not know."""


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797 64) in [0, 1] and labels."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def perceptron(seed: int, hidden: tuple[int, ...], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """An ordinary multi-layer perceptron as PyTorch initialises it."""
    torch.manual_seed(seed)
    sizes = (64, *hidden, 10)
    parts = [part for below, above in itertools.pairwise(sizes) for part in (nn.Linear(below, above), activation())]
    return nn.Sequential(*parts[:-1])


def trained(
    optimizer: Optimizer, hidden: tuple[int, ...], seed: int = 0, activation: type[nn.Module] = nn.Tanh
) -> Recorder:
    """A user's training loop; the lines that were added are marked."""
    images, labels = digits()
    model = perceptron(seed, hidden, activation)
    stepper = optimizer(model.parameters())
    recorder = mr.Recorder(model, every=EVERY)  # added
    for _ in range(UPDATES):
        chosen = torch.randint(len(images), (BATCH,))
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        recorder.snapshot(images[chosen], labels[chosen])  # added
    return recorder  # mr.classify(recorder) is the third


def aligned(hidden: tuple[int, ...], direct: bool, seed: int = 0, rate: float = 0.1) -> Recorder:
    """Feedback alignment (Lillicrap et al., 2016) or its direct form (Nokland, 2016), with plain tensors."""
    images, labels = digits()
    model = perceptron(seed, hidden)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    back = [
        0.3 * torch.randn(below.out_features, 10 if direct else above.out_features)
        for below, above in itertools.pairwise(layers)
    ]
    recorder = mr.Recorder(model, every=EVERY)
    with torch.no_grad():
        for _ in range(UPDATES):
            chosen = torch.randint(len(images), (BATCH,))
            rates = [images[chosen]]
            for layer in layers[:-1]:
                rates.append(torch.tanh(layer(rates[-1])))
            wrong = torch.softmax(layers[-1](rates[-1]), dim=1) - nn.functional.one_hot(labels[chosen], 10)
            errors = [wrong]
            for matrix, above in zip(back[::-1], rates[:0:-1], strict=True):
                errors.insert(0, ((wrong if direct else errors[0]) @ matrix.T) * (1 - above**2))
            for layer, error, below in zip(layers, errors, rates, strict=True):
                layer.weight.sub_(rate * error.T @ below / BATCH)
                layer.bias.sub_(rate * error.mean(dim=0))
            recorder.snapshot(images[chosen], labels[chosen])
    return recorder


def told(recorder: Recorder, wanted: str) -> tuple[bool, str]:
    """Whether the verdict is `wanted` or its declared equivalent ("unknown": nothing is named), and what was said."""
    verdict = mr.classify(recorder, equation=False)
    said = verdict.label if verdict.verdict in ("identified", "unknown") else f"{verdict.verdict}: {verdict.label}"
    right = verdict.verdict == "unknown" if wanted == "unknown" else verdict.verdict == "identified"
    return right and (wanted == "unknown" or wanted in verdict.equivalence_class), str(said)


def cases() -> dict[str, tuple[str, Callable[[tuple[int, ...], int], Any]]]:
    """Case -> what ought to be said, and the recorder of a network of some depth and seed."""
    found: dict[str, tuple[str, Callable[[tuple[int, ...], int], Any]]] = {}
    for name, optimizer in KNOWN.items():
        for activation in (nn.Tanh, nn.ReLU):
            found[f"{name}, {activation.__name__}"] = (
                name, lambda hidden, seed, o=optimizer, a=activation: trained(o, hidden, seed, a),
            )  # fmt: skip
    for name, direct in (("feedback_alignment", False), ("direct_feedback_alignment", True)):
        found[f"{name}, by hand"] = name, lambda hidden, seed, d=direct: aligned(hidden, d, seed)
    for name, optimizer in FOREIGN.items():
        found[name] = "unknown", lambda hidden, seed, o=optimizer: trained(o, hidden, seed)
    return found


def main() -> None:
    options = parser(__doc__, workers=False)
    options.add_argument("--seeds", type=int, default=10)
    asked = options.parse_args()
    figures: dict[str, Any] = {}
    for name, (wanted, made) in cases().items():
        answers = [told(made(hidden, seed), wanted) for hidden in DEPTHS for seed in range(asked.seeds)]
        right = [answer for answer, _ in answers]
        figures[name] = {
            "wanted": wanted,
            "told": grouped_interval(right, range(len(right)), seed=0),  # pyright: ignore[reportArgumentType]
            "said": dict(Counter(said for _, said in answers)),
        }
        print(f"{name:36s} {figures[name]['told'][0]:.2f}  {figures[name]['said']}", flush=True)
    written(asked.folder, figures)


if __name__ == "__main__":
    main()
