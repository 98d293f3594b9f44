"""Is this machine fit: versions, cores, memory, devices, compilers, data, and an independent check of our gradients."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn

from metarule.credit.backprop import Backprop
from metarule.fused.library import Missing, library
from metarule.gradient_descent import unrolled
from metarule.inner import Reference, Runs
from metarule.jobs import versions
from metarule.learner import ANY, Learner
from metarule.network import Activity, Network
from metarule.rng import noise_for
from metarule.rules.textbook import Delta
from metarule.signals import Batch
from metarule.synapses.sgd import Sgd
from metarule.tasks.image_files import OMNIGLOT_FILES, data_folders, find_idx
from metarule.tasks.teacher import Teacher

STEPS, BATCH, RATE = 10, 4, 0.3


def examined() -> dict[str, dict[str, Any]]:
    """Everything `metarule doctor` shows, by heading."""
    return {"versions": dict(versions()), "machine": machine(), "data": data(), "higher": agreement()}


def machine() -> dict[str, Any]:
    """Cores, threads, memory, compilers and accelerators."""
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(page * pages / 2**30, 1),
        "devices": ["cpu", *devices],
        "cc": shutil.which("cc"),
        "g++": shutil.which("g++"),
        "fused_kernel": kernel(),
    }


def kernel() -> str:
    """The fused engine's kernel: its instructions and where it lies, or why there is none."""
    try:
        found = library()
    except Missing as missing:
        return f"none: {missing}"
    return f"{found.variant}, {found.path}"


def data() -> dict[str, Any]:
    """Where image sets were found; None where they were not (MNIST-like ones are then fetched from OpenML)."""
    folders = data_folders(None)
    found: dict[str, Any] = {"digits": "comes with scikit-learn", "looked_in": [str(folder) for folder in folders]}
    for name in ("mnist", "fashion_mnist", "kmnist"):
        found[name] = next((str(folder / name) for folder in folders if find_idx(folder / name)), None)
    files = [part / name for folder in folders for part in (folder, folder / "omniglot") for name in OMNIGLOT_FILES]
    found["omniglot"] = next((str(file) for file in files if file.is_file()), None)
    return found


def agreement() -> dict[str, Any]:
    """backprop x delta x sgd against `higher` (Grefenstette et al., 2019): loss after 10 steps and d loss / d rate.

    The two share no code: `higher` differentiates torch.optim.SGD on an nn.Sequential with the same first weights and
    the same batches.
    """
    task = Teacher()
    network = Network.chain((task.inputs, 8, task.outputs), output=task.output)
    learner = Learner(network, Backprop(), {"forward": Delta()}, {ANY: Sgd()})
    theta = torch.tensor([[RATE]], dtype=torch.float64)
    ours = Reference(dtype=torch.float64).evaluate(
        learner, theta, task, Runs((0,), (0,)), range(STEPS), BATCH, frozenset({"loss", "grad"})
    )
    assert ours.grad is not None
    loss, gradient = _by_higher(task, network)
    gaps = [abs(float(ours.loss) - loss) / abs(loss), abs(float(ours.grad) - gradient) / abs(gradient)]
    return {
        "agrees": max(gaps) < 1e-9,
        "loss": loss,
        "meta_gradient": gradient,
        "relative_difference_of_loss": gaps[0],
        "relative_difference_of_meta_gradient": gaps[1],
    }


def _by_higher(task: Teacher, network: Network) -> tuple[float, float]:
    """Loss and d loss / d rate of the same training by `higher`."""
    stream = noise_for([(0, "episode", 0)])
    episode = task.sample(stream.at("data"), BATCH)
    layers = [network.draw(projection, stream)[0] for projection in network.projections]
    module = nn.Sequential(
        nn.Linear(*layers[0].T.shape, bias=False), nn.Tanh(), nn.Linear(*layers[1].T.shape, bias=False)
    ).to(torch.float64)
    with torch.no_grad():
        for parameter, layer in zip(module.parameters(), layers, strict=True):
            parameter.copy_(layer)
    rate = torch.tensor(RATE, dtype=torch.float64, requires_grad=True)

    def error(moving: nn.Module, batch: Batch) -> torch.Tensor:
        assert batch.y is not None
        return 0.5 * (moving(batch.x[0]) - batch.y[0]).square().sum(-1).mean()

    descent = torch.optim.SGD(module.parameters(), lr=RATE)
    trained = unrolled(module, descent, map(episode.train, range(STEPS)), error, {"lr": rate})
    score = episode.score(lambda x: Activity({}, {"output": trained(x[0])[None]}), {})
    loss = score[next(iter(task.metrics))].sum()
    return float(loss.detach()), float(torch.autograd.grad(loss, rate)[0])
