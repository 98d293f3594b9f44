"""The class of an exported learner: a forward pass, errors, one change per layer."""

from __future__ import annotations

from typing import NamedTuple

from metarule.exporting.layout import docstring
from metarule.exporting.torch_credit import Path
from metarule.exporting.torch_rule import Code
from metarule.exporting.torch_synapse import Step
from metarule.portable import Portable

OUTPUTS = {"softmax": "torch.softmax(rates[-1], dim=1)", "sigmoid": "torch.sigmoid(rates[-1])", "linear": ""}
ENDS = {name: f"; {name} is done here" if OUTPUTS[name] else "" for name in OUTPUTS}
LOSSES = {"softmax": "cross-entropy", "sigmoid": "binary cross-entropy", "linear": "half the squared error"}


class Plan(NamedTuple):
    """All that a file is made of; with `readout` the last layer alone learns."""

    known: Portable
    rule: Code
    path: Path | None
    step: Step
    rate: float
    readout: bool

    @property
    def down(self) -> bool:
        """Whether an error reaches the input too."""
        return "pre_error" in self.rule.reads

    @property
    def error_at(self) -> str:
        """The error of the units behind a layer, in the list of all of them."""
        return "errors[place + 1]" if self.down else "errors[place]"


def learner_code(plan: Plan) -> str:
    """The class that trains a model."""
    path = plan.path
    seeded = path is not None and path.made
    keeps = "self.memory" in "".join(plan.step.lines)
    loss = f" Its output learns by {LOSSES[plan.known.network.output]}." if path else ""
    lines = [
        "class LocalLearner:",
        *docstring([f"Trains the linear layers of an nn.Sequential in place.{loss}"], "    ").splitlines(),
        "",
        f"    def __init__(self, model: nn.Sequential, lr: float = 1.0{', seed: int = 0' if seeded else ''}) -> None:",
        "        self.lr = lr  # multiplies the rate",
        "        self.layers: list[nn.Linear] = []",
        "        self.activations: list[nn.Module] = []",
        "        for module in model:",
        "            bare = bool(self.layers) and isinstance(self.activations[-1], nn.Identity)",
        "            if isinstance(module, nn.Linear):",
        "                self.layers.append(module)",
        "                self.activations.append(nn.Identity())",
        "            elif bare and isinstance(module, ACTIVATIONS):",
        "                self.activations[-1] = module",
        "            elif not isinstance(module, (nn.Flatten, nn.Identity)):",
        '                raise ValueError(f"{module} is no Linear, and no Tanh, ReLU, Sigmoid or Softplus after one")',
        "        if not self.layers or not isinstance(self.activations[-1], nn.Identity):",
        f'            raise ValueError("the model must end in an nn.Linear{ENDS[plan.known.network.output]}")',
    ]
    if path is not None and path.made:
        lines += [
            "        self.draw = torch.Generator().manual_seed(seed)",
            f"        self.feedback = {path.made}",
        ]
    if keeps:
        kind = "tuple[Tensor, Tensor, int]" if "steps" in "".join(plan.step.lines) else "Tensor"
        lines += [f"        self.memory: dict[str, {kind}] = {{}}"]
    if path is not None and path.made:
        lines += [
            "",
            "    def uniform(self, rows: int, columns: int) -> Tensor:",
            '        """Random weights with standard deviation sqrt(2 / (rows + columns))."""',
            "        bound = math.sqrt(6 / (rows + columns))",
            "        drawn = torch.rand(rows, columns, generator=self.draw, dtype=torch.float64)",
            "        return (bound * (2 * drawn - 1)).to(self.layers[0].weight)",
        ]
    lines += ["", *_step(plan)]
    lines += ["", *_errors(plan, path)] if path is not None and not plan.readout else []
    lines += ["", *_taken(plan)] if plan.step.lines else []
    return "\n".join(lines)


def _step(plan: Plan) -> list[str]:
    path, reads = plan.path, plan.rule.reads
    lines = [
        "    @torch.no_grad()",
        f"    def step(self, x: Tensor{', y: Tensor' if path else ''}) -> None:",
        '        """One update of all layers by a batch."""',
        "        rates = [x.flatten(1)]",
        "        for layer, activation in zip(self.layers, self.activations, strict=True):",
        "            rates.append(activation(layer(rates[-1])))",
    ]
    answer = OUTPUTS[plan.known.network.output]
    lines += [f"        rates[-1] = {answer}"] if answer else []
    if path is not None:
        lines += [
            "        if y.ndim == 1:",
            "            y = functional.one_hot(y, rates[-1].shape[1]).to(x)",
        ]
        heard = "sent, errors" if "feedback" in reads else "errors"
        lines += ["        error = y - rates[-1]" if plan.readout else f"        {heard} = self.errors(rates, y)"]
    if plan.readout:
        lines += ["        place, layer = len(self.layers) - 1, self.layers[-1]"]
        deeper = "        "
    else:
        deeper = "            "
    body = [
        "weight = layer.weight",
        "pre = rates[place]" if "pre" in reads else "",
        "post = rates[place + 1]" if "post" in reads else "",
        f"error = {plan.error_at}" if "error" in reads and not plan.readout else "",
        "pre_error = errors[place]" if plan.down else "",
        f"feedback = {plan.error_at.replace('errors', 'sent')}" if "feedback" in reads else "",
    ]
    if "gain" in reads:
        body += [
            "last = place == len(self.layers) - 1",
            "gain = torch.ones_like(rates[-1]) if last else slope(self.activations[place], rates[place + 1])",
        ]
    body += ["if layer.bias is not None:  # the weights of a unit that is always on"]
    body += ["    weight = torch.cat((weight, layer.bias[:, None]), dim=1)"]
    body += ["    pre = functional.pad(pre, (0, 1), value=1.0)"] if "pre" in reads else []
    body += ["    pre_error = functional.pad(pre_error, (0, 1))"] if plan.down else []
    change = f"change({', '.join(reads)})"
    rate = "" if plan.rate == 1 else "RATE * "
    called = f'self.taken(f"weight {{place}}", weight, {change})' if plan.step.lines else f"self.lr * {rate}{change}"
    body += [
        f"step = {called}",
        "layer.weight += step[:, : layer.in_features]",
        "if layer.bias is not None:",
        "    layer.bias += step[:, -1]",
    ]
    if path is not None and path.learns:
        inner = "" if plan.down else "    "
        back = 'self.taken(f"feedback {place}", back, met)' if plan.step.lines else f"self.lr * {rate}met"
        body += [
            *([] if plan.down else ["if place > 0:"]),
            f"{inner}back = self.feedback[place]",
            f"{inner}met = rates[place].T @ {plan.error_at} / len(x)",
            f"{inner}self.feedback[place] = back + {back}",
        ]
    if not plan.readout:
        counted = any("place" in line for line in body)
        lines += [f"        for {'place, layer in enumerate(self.layers)' if counted else 'layer in self.layers'}:"]
    return [*lines, *(f"{deeper}{line}" for line in body if line)]


def _errors(plan: Plan, path: Path) -> list[str]:
    both = "feedback" in plan.rule.reads
    kind = "tuple[list[Tensor], list[Tensor]]" if both else "list[Tensor]"
    said = "the input first" if plan.down else "the first hidden one first"
    says = docstring([f"Where the units of every layer should move, {said}.", path.says], "        ")
    lines = [
        f"    def errors(self, rates: list[Tensor], y: Tensor) -> {kind}:",
        *says.splitlines(),
        "        top = y - rates[-1]",
        f"        {'sent, errors = [top], [top]' if both else 'errors = [top]'}",
        f"        for place in range(len(self.layers) - 1, {-1 if plan.down else 0}, -1):",
    ]
    if not path.direct:
        lines += ["            error = errors[0]"]
        lines += ["            layer = self.layers[place]"] if "layer." in path.crosses else []
    lines += [f"            arrived = {path.crosses}"]
    lines += ["            sent.insert(0, arrived)"] if both else []
    if plan.down:
        lines += ["            # the input is taken for rates of the nonlinearity that follows the first layer"]
    below = "self.activations[max(place - 1, 0)]" if plan.down else "self.activations[place - 1]"
    lines += [f"            errors.insert(0, arrived * slope({below}, rates[place]))"]
    return [*lines, f"        return {'sent, errors' if both else 'errors'}"]


def _taken(plan: Plan) -> list[str]:
    step = plan.step
    rate = "self.lr * " + ("" if plan.rate == 1 else "RATE * ")
    return [
        "    def taken(self, key: str, weight: Tensor, change: Tensor) -> Tensor:",
        f'        """What is added to a weight. {step.says}"""',
        *(f"        {line}" for line in step.lines),
        f"        return {rate}{step.result}",
    ]
