"""Tasks: one contract for every task of the room, then what is particular to each and to the image sets."""

from __future__ import annotations

import dataclasses
import gzip
import math
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import matplotlib.image
import numpy as np
import pytest
import sklearn.datasets
import torch
from matplotlib.image import imread, imsave

from metarule.network import Activity, Network
from metarule.nonlinearities import OUTPUTS
from metarule.rng import noise_for
from metarule.tasks import TASKS, image_files, images
from metarule.tasks.digits import Digits
from metarule.tasks.few_shot import FewShot
from metarule.tasks.gaussian import Gaussian
from metarule.tasks.teacher import Teacher

BATCH = 5
every_task = pytest.mark.parametrize("kind", sorted(TASKS))


def built(kind, **settings) -> Any:
    member: Any = TASKS[kind]  # the base is abstract, its collected members are not
    return member(**settings)


def episode_noise(*numbers, dtype=torch.float64):
    return noise_for([(0, "episode", number) for number in numbers], dtype)


def probe(task, noise):
    """One weight per run from input to output: the smallest network there is."""
    return 0.1 * noise.at("probe").normal(task.outputs, task.inputs)


def linear(weight):
    return answering(lambda x: torch.bmm(x, weight.transpose(1, 2)))


def answering(drive):
    """Networks whose output has this drive, and a linear output's rate."""

    def respond(x):
        drives = {"input": x, "output": drive(x)}
        return Activity(drives, drives)

    return respond


def score(episode, weight):
    return episode.score(linear(weight), {"input->output": weight})


def some_steps(task):
    return (0, 3, (task.steps(BATCH) or 300) - 1)


def examples(x):
    return {row.numpy().tobytes() for row in x.reshape(-1, x.shape[-1])}


def trained_on(task, episode):
    return set().union(*(examples(episode.train(step).x) for step in range(task.steps(BATCH) or 250)))


def scored_on(task, episode, noise):
    seen = set()

    def respond(x):
        seen.update(examples(x))
        return linear(probe(task, noise))(x)

    episode.score(respond, {"input->output": probe(task, noise)})
    return seen


@every_task
def test_task_describes_itself(kind):
    task = built(kind)
    assert dataclasses.fields(task)
    assert hash(task) == hash(built(kind))
    assert task.kind == kind
    assert task.source
    assert set(task.metrics.values()) <= {"min", "max"}
    assert task.metrics[next(iter(task.metrics))] == "min"
    assert task.output in OUTPUTS
    assert task.seen() != task.held_out().seen()


@every_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtype_follow_the_noise(kind, dtype):
    task, noise = built(kind), episode_noise(0, 1, 2, dtype=dtype)
    episode = task.sample(noise, BATCH)
    batch = episode.train(0)
    assert batch.x.shape == (3, BATCH, task.inputs)
    assert batch.x.dtype == dtype
    if batch.y is not None:
        assert batch.y.shape == (3, BATCH, task.outputs)
        assert batch.y.dtype == dtype
    scores = score(episode, probe(task, noise))
    assert list(scores) == list(task.metrics)
    assert all(value.shape == (3,) and value.dtype == dtype for value in scores.values())


@every_task
def test_equal_addresses_give_equal_data_and_others_do_not(kind):
    task, noise = built(kind), episode_noise(4, 7, 4)
    episode = task.sample(noise, BATCH)
    for step in some_steps(task):
        batch = episode.train(step)
        for side in (batch.x,) if batch.y is None else (batch.x, batch.y):
            assert torch.equal(side[0], side[2])
        assert not torch.equal(batch.x[0], batch.x[1])
    loss = next(iter(score(episode, probe(task, noise)).values()))
    assert loss[0] == loss[2] != loss[1]


@every_task
def test_run_r_of_many_equals_the_run_alone(kind):
    task, many, alone = built(kind), episode_noise(4, 7, 9, 7), episode_noise(9)
    both = task.sample(many, BATCH), task.sample(alone, BATCH)
    for step in some_steps(task):
        first, second = (episode.train(step) for episode in both)
        torch.testing.assert_close(first.x[2:3], second.x, rtol=0, atol=1e-12)
        if first.y is not None:
            torch.testing.assert_close(first.y[2:3], second.y, rtol=0, atol=1e-12)
    for value, expected in zip(
        score(both[0], probe(task, many)).values(), score(both[1], probe(task, alone)).values(), strict=True
    ):
        torch.testing.assert_close(value[2:3], expected, rtol=1e-10, atol=1e-10)


@every_task
def test_a_step_does_not_depend_on_the_steps_asked_before(kind):
    task = built(kind)
    steps = some_steps(task)
    walked, fresh = (task.sample(episode_noise(1, 2), BATCH) for _ in range(2))
    forwards = [walked.train(step).x for step in steps]
    backwards = [fresh.train(step).x for step in reversed(steps)][::-1]
    assert all(torch.equal(first, second) for first, second in zip(forwards, backwards, strict=True))


@every_task
def test_precision_does_not_change_the_data(kind):
    task = built(kind)
    narrow, wide = (task.sample(episode_noise(1, dtype=t), BATCH).train(3).x for t in (torch.float32, torch.float64))
    torch.testing.assert_close(narrow.to(torch.float64), wide, rtol=1e-4, atol=1e-4)


@every_task
def test_gradient_of_the_loss_equals_finite_differences(kind):
    task, noise = built(kind), episode_noise(0, 1)
    episode = task.sample(noise, BATCH)
    weight, direction = probe(task, noise).requires_grad_(), noise.at("direction").normal(task.outputs, task.inputs)
    loss = next(iter(score(episode, weight).values()))
    (gradient,) = torch.autograd.grad(loss[0], weight)
    assert gradient[1].abs().max() == 0
    step = 1e-5
    ahead, behind = (
        next(iter(score(episode, weight.detach() + sign * step * direction).values()))[0] for sign in (1, -1)
    )
    # a central difference errs by about step^2 and by 1e-16 / step
    torch.testing.assert_close((gradient[0] * direction[0]).sum(), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-8)


@every_task
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_run_leaves_its_neighbours_alone(kind, value):
    task, noise = built(kind), episode_noise(0, 1, 2)
    episode = task.sample(noise, BATCH)
    weight = probe(task, noise)
    healthy = score(episode, weight)
    weight[1] = value
    broken = score(episode, weight)
    assert not next(iter(broken.values()))[1].isfinite()
    for name, values in healthy.items():
        assert torch.equal(values[[0, 2]], broken[name][[0, 2]])


@every_task
def test_an_untouched_network_has_a_finite_score(kind):
    task, noise = built(kind), episode_noise(0)
    assert all(value.isfinite().all() for value in score(task.sample(noise, BATCH), 0 * probe(task, noise)).values())


@every_task
def test_scored_data_were_never_trained_on_and_held_out_data_never_seen(kind):
    task, noise = built(kind), episode_noise(*range(3))
    search, held_out = task.sample(noise, BATCH), task.held_out().sample(noise, BATCH)
    for run in range(3):
        episode = task.sample(episode_noise(run), BATCH)
        assert not trained_on(task, episode) & scored_on(task, episode, episode_noise(run))
    seen = trained_on(task, search) | scored_on(task, search, noise)
    assert not seen & scored_on(task.held_out(), held_out, noise)
    assert not torch.equal(search.train(0).x, held_out.train(0).x)


@every_task
def test_held_out_changes_the_data_only(kind):
    task = built(kind)
    held_out = task.held_out()
    assert type(held_out) is type(task)
    assert held_out != task
    assert held_out.held_out() == held_out
    for name in ("inputs", "outputs", "output", "metrics"):
        assert getattr(held_out, name) == getattr(task, name)
    assert held_out.steps(BATCH) == task.steps(BATCH)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("few_shot", {"images": "digit"}, "did you mean 'digits'"),
        ("few_shot", {"labels": "ways"}, "did you mean 'way'"),
        ("few_shot", {"split": "test"}, "not one of held_out, search"),
        ("few_shot", {"ways": 1}, "ways = 1 must be at least 2"),
        ("digits", {"problem": "auto_encoder"}, "did you mean 'autoencoder'"),
        ("digits", {"test_size": 0}, "test_size = 0 must be at least 1"),
        ("teacher", {"activation": "tan"}, "did you mean 'tanh'"),
        ("teacher", {"noise_sd": -1.0}, "must not be negative"),
        ("teacher", {"test_size": 1}, "must be at least 2"),
        ("teacher", {"problem": "classification", "outputs": 1}, "at least 2 to classify"),
        ("gaussian", {"outputs": 10}, "between 1 and inputs - 1 = 9"),
        ("gaussian", {"gap": 1.0}, "ratio of eigenvalues"),
        ("gaussian", {"split": "searches"}, "did you mean 'search'"),
    ],
)
def test_wrong_settings_are_refused_with_a_cure(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        built(kind, **settings)


# few_shot


@pytest.mark.parametrize("labels", ["class", "way"])
@pytest.mark.parametrize("batch", [1, 10])
def test_few_shot_pass_shows_each_training_image_exactly_once(labels, batch):
    task = FewShot(ways=5, shots=8, queries=3, labels=labels)
    episode = task.sample(episode_noise(0, 1, 2), batch)
    source = images.image_source("digits")
    for run in range(3):
        rows = torch.cat((episode.train_rows[run], episode.score_rows[run]))
        assert len(rows.unique()) == 5 * (8 + 3)
        assert source.labels[episode.train_rows[run]].unique(return_counts=True)[1].tolist() == [8] * 5
        assert source.labels[episode.score_rows[run]].unique(return_counts=True)[1].tolist() == [3] * 5
    shown = [episode.train(step) for step in range(task.steps(batch))]
    x, y = torch.cat([b.x for b in shown], 1), torch.cat([b.y for b in shown if b.y is not None], 1)
    assert torch.equal(x, source.images.to(x.dtype)[episode.train_rows])
    assert torch.equal(y.argmax(2), episode.train_labels)
    assert torch.equal(y.sum(2), torch.ones_like(y[:, :, 0]))


def test_few_shot_labels_are_classes_or_ways():
    classes, ways = (FewShot(labels=labels).sample(episode_noise(0, 1), 1) for labels in ("class", "way"))
    true = images.image_source("digits").labels
    assert torch.equal(classes.train_labels, true[classes.train_rows])
    assert torch.equal(classes.score_labels, true[classes.score_rows])
    assert torch.equal(classes.train_rows, ways.train_rows)
    for run in range(2):
        rows = torch.cat((ways.train_rows[run], ways.score_rows[run]))
        labels = torch.cat((ways.train_labels[run], ways.score_labels[run]))
        names = set(zip(true[rows].tolist(), labels.tolist(), strict=True))
        assert sorted(way for _, way in names) == [0, 1, 2, 3, 4]
        assert len({name for name, _ in names}) == 5


def many_classes(folder, classes=60, each=5):
    """A set with as many classes as named, every image another one: noise would do, counting is exact."""
    count, side = classes * each, 4
    pixels = np.zeros((count, side * side), dtype=np.uint8)
    pixels[:, 0], pixels[:, 1] = np.arange(count) % 256, np.arange(count) // 256
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(pixels.reshape(count, side, side)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count) % classes))
    return str(folder)


def shown(task, noise, batch=1):
    """Rows of the image set that an episode trains on or is scored on."""
    episode = task.sample(noise, batch)
    return set(episode.train_rows.flatten().tolist()) | set(episode.score_rows.flatten().tolist())


def test_few_shot_holds_out_classes_with_all_their_images_where_there_are_many(tmp_path):
    task = FewShot("idx", ways=20, shots=3, queries=2, path=many_classes(tmp_path))
    noise = episode_noise(*range(30))
    rows = [shown(each, noise) for each in (task, task.held_out())]
    labels = task.image_source.labels
    search, held_out = ({int(labels[row]) for row in each} for each in rows)
    assert (len(search), len(held_out)) == (36, 24)
    assert not search & held_out
    assert [len(each) for each in rows] == [180, 120]  # five images of each class: none is kept back
    assert "180 of the 300 images of idx, of 36 of its 60 classes (search split by classes)" in task.seen()


@pytest.mark.parametrize(("classes", "ways"), [(10, (2, 5, 10)), (49, (2, 12, 49)), (50, (2, 12, 20))])
def test_what_few_shot_holds_out_depends_on_the_image_set_alone(tmp_path, classes, ways):
    path = many_classes(tmp_path, classes, 10)
    noise = episode_noise(*range(40))
    tasks = [FewShot("idx", ways=way, shots=shots, queries=1, path=path) for way in ways for shots in (1, 3)]
    seen = set().union(*(shown(task, noise) for task in tasks))
    tested = set().union(*(shown(task.held_out(), noise) for task in tasks))
    assert not seen & tested
    assert len({task.seen() for task in tasks}) == 1


@pytest.mark.parametrize("classes", [10, 60])
def test_held_out_images_of_digits_and_few_shot_are_seen_by_no_search_over_either(tmp_path, classes):
    path = many_classes(tmp_path, classes, 20)
    digits, few_shot = Digits(images="idx", path=path), FewShot("idx", ways=10, shots=3, queries=2, path=path)
    noise = episode_noise(*range(60))
    seen = shown(digits, noise) | shown(few_shot, noise)
    scored = set(digits.held_out().sample(noise, 1).score_rows.tolist())
    assert not seen & scored
    assert not seen & shown(few_shot.held_out(), noise)


def test_few_shot_refuses_more_ways_than_its_split_has_classes(tmp_path):
    task = FewShot("idx", ways=25, shots=3, queries=2, path=many_classes(tmp_path))
    task.sample(episode_noise(0), 1)
    with pytest.raises(ValueError, match="ways = 25, but idx has 24 classes in the held_out split; lower it"):
        task.held_out().sample(episode_noise(0), 1)


def test_few_shot_default_fits_both_splits_of_digits():
    for task in (FewShot(), FewShot().held_out()):
        episode = task.sample(episode_noise(*range(20)), 1)
        assert episode.train_rows.shape == (20, 250)
        assert episode.score_rows.shape == (20, 50)


def test_few_shot_extra_units_stay_unused():
    task = FewShot(units=47)
    episode = task.sample(episode_noise(0), 250)
    target = episode.train(0).y
    assert target is not None
    assert target.shape == (1, 250, 47)
    assert target[:, :, 10:].abs().max() == 0


def test_few_shot_order_is_random_and_not_by_class():
    labels = FewShot().sample(episode_noise(0), 1).train_labels[0]
    # sorted by class there are 4 changes; at random 1 - 49/249 of 249 neighbours differ, 200 +- 6
    assert 160 < int((labels[1:] != labels[:-1]).sum()) < 240


@pytest.mark.parametrize(
    ("settings", "batch", "message"),
    [
        ({}, 3, "batch = 3 does not divide the 250"),
        ({"ways": 11}, 1, "ways = 11, but digits has 10 classes in the search split; lower it"),
        ({"shots": 100}, 1, "a class of digits has 10[0-9] images in the search split; lower task.shots"),
        ({"units": 9}, 1, "units = 9 is fewer than the 10 labels"),
        ({"path": "somewhere"}, 1, "come with scikit-learn"),
    ],
)
def test_few_shot_refuses_what_cannot_be_drawn(settings, batch, message):
    with pytest.raises(ValueError, match=message):
        FewShot(**settings).sample(episode_noise(0), batch)


@pytest.mark.parametrize("step", [-1, 50])
def test_few_shot_pass_ends(step):
    episode = FewShot(ways=5, shots=10).sample(episode_noise(0), 1)
    with pytest.raises(ValueError, match="outside the one pass of 50 steps"):
        episode.train(step)


# digits


def test_digits_parts_are_stratified_and_share_nothing():
    search, held_out = (task.sample(episode_noise(0), 1) for task in (Digits(), Digits().held_out()))
    parts = [set(rows.tolist()) for rows in (search.train_rows, search.score_rows, held_out.score_rows)]
    assert [len(part) for part in parts] == [808, 270, 360]
    assert len(set.union(*parts)) == 808 + 270 + 360
    assert set(held_out.train_rows.tolist()) == set(range(1797)) - parts[2]
    labels = images.image_source("digits").labels
    sizes = labels.bincount()
    for part, fraction in zip(parts, (0.45, 0.15, 0.2), strict=True):
        assert (labels[list(part)].bincount() - fraction * sizes).abs().max() <= 1.5


def test_few_shot_searches_never_see_the_test_images_of_digits():
    searched = FewShot().sample(episode_noise(*range(50)), 1)
    tested = Digits().held_out().sample(episode_noise(0), 1).score_rows
    assert not torch.isin(torch.cat((searched.train_rows, searched.score_rows), 1), tested).any()


def test_digits_epoch_shows_every_image_once_in_an_order_of_its_own():
    episode = Digits().sample(episode_noise(0), 101)  # 808 = 8 * 101
    source = images.image_source("digits")
    epochs = [torch.cat([episode.train(8 * e + step).x[0] for step in range(8)]) for e in range(2)]
    wanted = examples(source.images[episode.train_rows].to(torch.float64))
    assert len(wanted) == 808
    assert all(examples(epoch) == wanted for epoch in epochs)
    assert not torch.equal(*epochs)


def test_digits_loss_of_a_uniform_answer_is_log_classes():
    episode = Digits(test_size=100).sample(episode_noise(0, 1), 10)
    uniform = answering(lambda x: x.new_zeros(*x.shape[:2], 10))
    torch.testing.assert_close(
        episode.score(uniform, {})["held_out_loss"], torch.full((2,), math.log(10), dtype=torch.float64)
    )


def test_digits_accuracy_counts_right_answers_only():
    task = Digits()
    episode = task.sample(episode_noise(0), 10)
    right = torch.eye(10, dtype=torch.float64)[images.image_source("digits").labels[episode.score_rows]][None]
    assert episode.score(answering(lambda x: right), {})["accuracy"].item() == 1
    assert episode.score(answering(lambda x: -right), {})["accuracy"].item() == 0
    assert episode.score(answering(lambda x: right * math.nan), {})["accuracy"].item() == 0


def test_autoencoder_loss_is_1_for_the_mean_image_and_0_for_the_image():
    task = Digits(problem="autoencoder")
    assert (task.outputs, task.output, list(task.metrics)) == (64, "linear", ["held_out_loss"])
    episode = task.sample(episode_noise(0, 1), 10)
    batch = episode.train(0)
    assert batch.y is batch.x
    mean = episode.images[episode.train_rows].mean(dim=0)
    torch.testing.assert_close(
        episode.score(answering(lambda x: mean.expand_as(x)), {})["held_out_loss"], torch.ones(2, dtype=torch.float64)
    )
    assert episode.score(answering(lambda x: x), {})["held_out_loss"].tolist() == [0, 0]


def test_frozen_digits_forbid_all_but_the_projections_out_of_the_input():
    network = Network.chain((64, 20, 15, 10), skips=((0, 2), (1, 3)))
    assert Digits(problem="frozen").frozen(network) == {"hidden1->hidden2", "hidden1->output", "hidden2->output"}
    assert Digits().frozen(network) == frozenset()


@pytest.mark.parametrize("batch", [0, 809])
def test_digits_refuse_a_batch_larger_than_the_training_part(batch):
    with pytest.raises(ValueError, match="between 1 and the 808 training images"):
        Digits().sample(episode_noise(0), batch)


# teacher


def test_the_teacher_itself_scores_best():
    for problem, best in (("regression", {"held_out_loss": 0.0}), ("classification", {"accuracy": 1.0})):
        episode = Teacher(problem=problem, noise_sd=0.5).sample(episode_noise(0, 1), 10)
        scores = episode.score(lambda x, e=episode: e.network.forward(e.weights, x), {})
        for name, value in best.items():
            assert scores[name].tolist() == [value, value]


def test_teacher_noise_is_on_the_training_targets_only_and_has_its_size():
    quiet, noisy = (Teacher(noise_sd=sd).sample(episode_noise(0), 4000) for sd in (0.0, 0.3))
    first, second = quiet.train(5), noisy.train(5)
    assert torch.equal(first.x, second.x)
    assert first.y is not None
    assert second.y is not None
    # the deviation of 20,000 draws is known to 1 / sqrt(40,000) of itself
    assert (second.y - first.y).std().item() == pytest.approx(0.3, rel=0.03)
    answer = answering(lambda x: x.new_zeros(*x.shape[:2], 5))
    assert torch.equal(quiet.score(answer, {})["held_out_loss"], noisy.score(answer, {})["held_out_loss"])


def test_teacher_classification_gives_one_hot_targets_and_its_metrics():
    task = Teacher(problem="classification", hidden=[7, 6])  # pyright: ignore[reportArgumentType]
    target = task.sample(episode_noise(0, 1), 10).train(0).y
    assert target is not None
    assert torch.equal(target.sum(dim=2), torch.ones(2, 10, dtype=torch.float64))
    assert (task.hidden, task.output, list(task.metrics)) == ((7, 6), "softmax", ["held_out_loss", "accuracy"])


# gaussian


def test_gaussian_inputs_have_the_covariance_that_is_scored():
    episode = Gaussian(inputs=4, gap=0.5).sample(episode_noise(0), 40_000)
    x = episode.train(0).x[0]
    expected = episode.axes[0] @ torch.diag(episode.spectrum) @ episode.axes[0].T
    torch.testing.assert_close(episode.axes[0] @ episode.axes[0].T, torch.eye(4, dtype=torch.float64))
    assert episode.spectrum.tolist() == [1, 0.5, 0.25, 0.125]
    # entries of a sample covariance of N draws deviate by sqrt(2 / N) = 0.007 at most
    torch.testing.assert_close(x.T @ x / len(x), expected, rtol=0, atol=0.03)


def test_gaussian_loss_of_one_unit_is_its_closed_form():
    episode = Gaussian().sample(episode_noise(*range(4)), 10)
    weight = episode_noise(*range(4)).at("w").normal(1, 10)
    norm = weight.norm(dim=2)[:, 0]
    cosine = torch.einsum("roj,rj->r", weight, episode.axes[:, :, 0]) / norm
    scores = score(episode, weight)
    torch.testing.assert_close(scores["held_out_loss"], 1 - cosine**2 + (norm - 1) ** 2)
    torch.testing.assert_close(scores["cosine"], cosine.abs())
    torch.testing.assert_close(scores["norm_error"], (norm - 1).abs())


@pytest.mark.parametrize("outputs", [1, 3])
def test_gaussian_loss_is_0_for_any_basis_of_the_leading_subspace_only(outputs):
    noise = episode_noise(0, 1)
    episode = Gaussian(outputs=outputs).sample(noise, 10)
    turn = torch.linalg.qr(noise.at("turn").normal(outputs, outputs))[0]
    leading = torch.bmm(turn, episode.axes[:, :, :outputs].transpose(1, 2))
    assert score(episode, leading)["held_out_loss"].abs().max() < 1e-12
    others = episode.axes[:, :, outputs : 2 * outputs].transpose(1, 2)
    torch.testing.assert_close(score(episode, others)["held_out_loss"], torch.ones(2, dtype=torch.float64))
    assert score(episode, 2 * leading)["held_out_loss"].min() > 0.9
    if outputs > 1:
        # all units on one component, as Oja's rule without competition ends: k (k - 1) pairs of product 1, over k
        collapsed = score(episode, leading[:, :1].expand_as(leading))["held_out_loss"]
        torch.testing.assert_close(collapsed, torch.full((2,), outputs - 1.0, dtype=torch.float64))


def test_gaussian_refuses_a_network_without_the_projection_that_it_scores():
    episode = Gaussian().sample(episode_noise(0), 10)
    with pytest.raises(ValueError, match=r"shape \(1, 10\)"):
        episode.score(answering(lambda x: x), {"input->hidden1": torch.zeros(1, 4, 10)})


# image sets


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, part, labels, packed=False, side=4):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(len(labels) * side * side).reshape(len(labels), side, side) % 256
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.array(labels))):
        content = idx_bytes(array)
        (folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}").write_bytes(
            gzip.compress(content) if packed else content
        )
    return torch.from_numpy(pixels).flatten(1) / 255


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path, packed):
    expected = write_idx(tmp_path, "t10k", [2, 0, 1], packed)
    source = images.image_source("idx", str(tmp_path))
    torch.testing.assert_close(source.images, expected.to(torch.float32))
    assert source.labels.tolist() == [2, 0, 1]
    assert (source.classes, source.side) == (3, 4)
    assert images.image_source("idx", str(tmp_path)) is source


def test_idx_training_files_come_first_and_no_file_counts_twice(tmp_path):
    write_idx(tmp_path, "t10k", [1, 1])
    write_idx(tmp_path, "train", [0, 0, 0])
    write_idx(tmp_path, "train", [0, 0, 0], packed=True)
    assert images.image_source("idx", str(tmp_path)).labels.tolist() == [0, 0, 0, 1, 1]


def other_magic(content):
    return b"\x00\x00\x0d" + content[3:]


def short_header(content):
    return content[:7]


def short_body(content):
    return content[:-1]


def no_content(content):
    return b""


def short_gzip(content):
    return gzip.compress(content)[:-12]


def fewer(content):
    return idx_bytes(np.zeros(2))


def oblong(content):
    return idx_bytes(np.zeros((3, 4, 5)))


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (other_magic, "images-idx3", "starts with 00000d03, expected the IDX magic number 00000803"),
        (no_content, "labels-idx1", "starts with nothing, expected the IDX magic number 00000801"),
        (short_header, "images-idx3", "header has 7 bytes, expected 16"),
        (short_body, "images-idx3", "holds 47 values, expected 48"),
        (short_gzip, "labels-idx1", "damaged gzip file"),
        (fewer, "labels-idx1", "has 3 images, .* has 2 labels"),
        (oblong, "images-idx3", r"images of \(4, 5\); expected equal squares"),
    ],
)
def test_damaged_idx_files_are_refused_by_name(tmp_path, change, name, message):
    write_idx(tmp_path, "train", [0, 1, 2])
    file = tmp_path / f"train-{name}-ubyte"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        images.image_source("idx", str(tmp_path))
    assert file.name in str(caught.value)


def test_idx_images_without_labels_are_refused(tmp_path):
    write_idx(tmp_path, "train", [0, 1])
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"expected train-labels-idx1-ubyte, with or without .gz"):
        images.image_source("idx", str(tmp_path))


def test_idx_needs_a_path_with_files(tmp_path):
    with pytest.raises(ValueError, match=r"needs task\.path"):
        images.image_source("idx")
    with pytest.raises(ValueError, match="no IDX files in"):
        images.image_source("idx", str(tmp_path))


def test_image_sets_are_found_by_name_in_the_data_folder_or_in_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("METARULE_DATA", str(tmp_path))
    write_idx(tmp_path / "kmnist", "t10k", [0, 1, 1])
    source = images.image_source("kmnist")
    assert source.labels.tolist() == [0, 1, 1]
    for path in (tmp_path, tmp_path / "kmnist"):
        assert images.image_source("kmnist", str(path)) is source


@pytest.mark.parametrize("failure", [URLError("no network"), ImportError("no parser")])
def test_an_image_set_that_is_nowhere_names_folders_files_and_cure(tmp_path, monkeypatch, failure):
    def fetch(*args, **settings):
        raise failure

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz .* METARULE_DATA .* 'digits'") as caught:
        images.image_source("mnist", str(tmp_path))
    assert str(tmp_path / "mnist") in str(caught.value)
    assert str(failure) in str(caught.value)
    with pytest.raises(ValueError, match=r"images_background.zip, images_background_small1.zip in .* METARULE_DATA"):
        images.image_source("omniglot", str(tmp_path))


@pytest.mark.parametrize("there", [True, False])
def test_the_digits_are_those_of_scikit_learn(monkeypatch, tmp_path, there):
    if not there:
        monkeypatch.setattr(image_files, "distribution", lambda name: SimpleNamespace(locate_file=tmp_path.joinpath))
    for own, theirs in zip(image_files.read_digits(), sklearn.datasets.load_digits(return_X_y=True), strict=True):
        assert own.dtype == theirs.dtype
        assert np.array_equal(own, theirs)


def test_an_image_set_that_is_nowhere_is_fetched_once(tmp_path, monkeypatch):
    asked = []

    def fetch(name, **settings):
        asked.append(name)
        assert settings["parser"] == "liac-arff"  # all others need pandas, which nothing here does
        return np.full((20, 784), 51), np.array([str(label % 10) for label in range(20)])

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    source = images.image_source("fashion_mnist", str(tmp_path))
    assert images.image_source("fashion_mnist", str(tmp_path)) is source
    assert asked == ["Fashion-MNIST"]
    torch.testing.assert_close(source.images, torch.full((20, 784), 0.2))
    assert source.labels.tolist() == [label % 10 for label in range(20)]


def write_omniglot(folder, drawings=3):
    """Two alphabets of two characters; drawing d of character c is a black square of side 15 (c + 1) on white."""
    with zipfile.ZipFile(folder / "images_background_small1.zip", "w") as archive:
        for character in (3, 1, 0, 2):
            for drawing in range(drawings):
                pixels = np.ones((105, 105))
                pixels[: 15 * (character + 1), : 15 * (character + 1)] = 0
                imsave(folder / "drawing.png", pixels, cmap="gray", vmin=0, vmax=1)
                name = f"images_background/alphabet{character // 2}/character{character % 2}/{drawing}.png"
                archive.write(folder / "drawing.png", name)


def test_omniglot_is_read_from_its_zip_with_strokes_at_1(tmp_path, monkeypatch):
    # the original drawings have one channel, those that matplotlib writes have four
    monkeypatch.setattr(matplotlib.image, "imread", lambda file, format, read=imread: read(file)[:, :, 0])
    write_omniglot(tmp_path)
    source = images.image_source("omniglot", str(tmp_path))
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (source.classes, source.side) == (4, 28)
    drawn = torch.tensor([(15 * (label + 1) / 105) ** 2 for label in source.labels.tolist()])
    torch.testing.assert_close(source.images.mean(dim=1), drawn)


def test_a_damaged_or_empty_omniglot_is_refused(tmp_path):
    file = tmp_path / "images_background.zip"
    with zipfile.ZipFile(file, "w"):
        pass
    with pytest.raises(ValueError, match=r"images_background.zip has no drawings; expected images_background/<alph"):
        images.image_source("omniglot", str(tmp_path))
    file.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="damaged zip file"):
        images.image_source("omniglot", str(tmp_path))


def test_area_average_keeps_the_mean_and_is_pooling_where_sides_divide():
    pixels = episode_noise(0, 1).uniform(12, 12)
    torch.testing.assert_close(
        image_files.area_average(pixels, 4), torch.nn.functional.avg_pool2d(pixels[:, None], 3)[:, 0]
    )
    torch.testing.assert_close(image_files.area_average(pixels, 5).mean(dim=(1, 2)), pixels.mean(dim=(1, 2)))


def have(*names):
    return any((folder / name).exists() for folder in image_files.data_folders(None) for name in names)


needs_mnist = pytest.mark.skipif(
    not have("mnist/t10k-images-idx3-ubyte.gz"), reason="no mnist/t10k-images-idx3-ubyte.gz in METARULE_DATA or data/"
)
needs_omniglot = pytest.mark.skipif(
    not have(*(f"{folder}{name}" for folder in ("", "omniglot/") for name in image_files.OMNIGLOT_FILES)),
    reason="no images_background_small1.zip in METARULE_DATA or data/",
)


@needs_mnist
def test_mnist_as_published_has_784_inputs_and_47_units():
    task = FewShot(images="mnist", units=47)
    source = task.image_source
    assert (task.inputs, task.outputs, task.steps(1), source.classes) == (784, 47, 250, 10)
    assert len(source.labels) in (10_000, 60_000, 70_000)
    assert source.images.min() == 0
    assert source.images.max() == 1
    for split in (task, task.held_out()):
        episode = split.sample(episode_noise(0, 1, dtype=torch.float32), 1)
        assert torch.equal(episode.train_labels, source.labels[episode.train_rows])


@needs_omniglot
def test_omniglot_has_twenty_drawings_of_each_character_and_says_so():
    source = images.image_source("omniglot")
    assert source.labels.bincount().tolist() == [20] * source.classes
    assert 0 <= source.images.min() < source.images.max() <= 1
    assert source.images.mean() < 0.2  # strokes, not paper, are bright
    task = FewShot(images="omniglot", shots=10, queries=10, labels="way")
    noise = episode_noise(*range(20))
    seen, held_out = (source.labels[t.sample(noise, 1).train_rows] for t in (task, task.held_out()))
    assert not torch.isin(seen, held_out).any()
    with pytest.raises(ValueError, match=r"has 20 images in the search split; lower task.shots or task.queries to 20"):
        FewShot(images="omniglot").sample(noise, 1)


def test_data_folders_put_the_named_one_first(tmp_path, monkeypatch):
    monkeypatch.setenv("METARULE_DATA", str(tmp_path))
    assert image_files.data_folders(None)[0] == tmp_path.resolve()
    monkeypatch.delenv("METARULE_DATA")
    assert [folder.name for folder in image_files.data_folders(None)] == ["data", "data", "metarule"]
    assert image_files.data_folders(str(tmp_path)) == (Path(tmp_path).resolve(),)
