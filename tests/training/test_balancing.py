"""Balancing methods equal hand-computed cases and work in runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from equal_runs import assert_resumes, weights
from manyheads.config import Balancing, Config, load_config
from manyheads.errors import ConfigError
from manyheads.modeling import epoch_path, load_checkpoint
from manyheads.training import (
    TrainResult,
    config_alone,
    forward_backward,
    train,
    update,
)
from manyheads.training.balancing import (
    CAGrad,
    DynamicAveraging,
    GradNorm,
    Gram,
    PCGrad,
    StaticWeights,
    TaskGradients,
    Uncertainty,
)
from manyheads.training.data import Schedule, plan_epoch
from training_setup import config, log_lines, prepared, run, sentences, write_records

ANYWHERE = ("uncertainty", "dwa")
COMPARING = ("gradnorm", "pcgrad", "cagrad")


def model_of(made: Config) -> Any:
    return weights(made.save_dir, made.epochs)


def step_lines(made: Config) -> list[dict[str, Any]]:
    return [line for line in log_lines(made.save_dir) if line["event"] == "step"]


def test_static_weights_are_the_users() -> None:
    static = StaticWeights({"a": 3.0, "b": 0.5})
    assert float(static.term("a", torch.tensor(2.0), 0.25)) == 3 * 2 * 0.25
    assert static.factor("b") == 0.5


def test_uncertainty_by_hand() -> None:
    balancer = Uncertainty({"a": 2.0, "b": 1.0})
    with torch.no_grad():
        balancer.log_variance["a"].fill_(math.log(4))
        balancer.log_variance["b"].fill_(math.log(9))
    # 2 (3/4 + log(4)/2) and 3/9 + log(9)/2
    one, other = (balancer.term(task, torch.tensor(3.0), 1.0) for task in "ab")
    assert float(one.detach()) == pytest.approx(2 * (0.75 + math.log(2)))
    assert float(other.detach()) == pytest.approx(1 / 3 + math.log(3))
    # d/ds of exp(-s) L + s/2 is 1/2 - exp(-s) L.
    (one + other).backward()  # type: ignore[no-untyped-call]
    assert float(balancer.log_variance["a"].grad) == pytest.approx(2 * (0.5 - 0.75))
    assert float(balancer.log_variance["b"].grad) == pytest.approx(0.5 - 1 / 3)
    assert float(balancer.factor("a")) == pytest.approx(2 / 4)
    assert float(balancer.factor("b")) == pytest.approx(1 / 9)


def test_the_batches_of_a_step_have_one_half_log_variance_in_all() -> None:
    balancer = Uncertainty({"a": 1.0})
    with torch.no_grad():
        balancer.log_variance["a"].fill_(0.7)
    parts = [
        balancer.term("a", torch.tensor(loss), share) for loss, share in ((1, 0.25), (5, 0.75))
    ]
    whole = balancer.term("a", torch.tensor(0.25 * 1 + 0.75 * 5), 1.0)
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()))


def test_dynamic_weight_averaging_by_hand() -> None:
    balancer = DynamicAveraging({"a": 1.0, "b": 10.0}, temperature=2.0)
    epochs = [{"a": 4.0, "b": 8.0}, {"a": 2.0, "b": 8.0}, {"a": 2.0, "b": 2.0}]
    for count in (0, 1):
        balancer.begin_epoch(epochs[:count])
        assert (balancer.factor("a"), balancer.factor("b")) == (1, 10)
    # r = 1/2 and 1, then 1 and 1/4; 2 exp(r/2) over the sum of both.
    for count, a, b in ((2, 0.5, 1.0), (3, 1.0, 0.25)):
        balancer.begin_epoch(epochs[:count])
        total = math.exp(a / 2) + math.exp(b / 2)
        assert balancer.factor("a") == pytest.approx(2 * math.exp(a / 2) / total)
        assert balancer.factor("b") == pytest.approx(10 * 2 * math.exp(b / 2) / total)


def test_dynamic_averaging_uses_a_tasks_last_two_epochs() -> None:
    balancer = DynamicAveraging({"a": 1.0, "b": 1.0}, temperature=1.0)
    balancer.begin_epoch([{"a": 1.0, "b": 4.0}, {"a": 1.0}, {"a": 1.0, "b": 4.0}])
    assert balancer.factor("a") == balancer.factor("b") == 1


def test_static_weights_are_the_default_and_make_the_same_model(tmp_path: Path) -> None:
    plain, named = config(tmp_path / "a"), config(tmp_path / "b", balancing="static")
    assert plain.balancing == named.balancing == Balancing(method="static")
    train(plain)
    train(named)
    one, other = model_of(plain), model_of(named)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_uncertainty_is_learned_and_logged(tmp_path: Path) -> None:
    made = config(tmp_path, balancing="uncertainty", num_epochs=3, head_learning_rate=0.05)
    train(made)
    checkpoint = load_checkpoint(epoch_path(made.save_dir, 3))
    learned = checkpoint.training["balancing"]
    assert learned.keys() == {"log_variance.classification", "log_variance.ner"}
    assert all(float(s) != 0 for s in learned.values())
    lines = step_lines(made)
    weights = [w for line in lines for w in line["weight"].values()]
    assert weights[0] != 1
    assert len(set(weights)) == len(lines)
    # With the learning rate of the heads, in a group of its own.
    assert lines[-1]["learning_rate"][-1] == lines[-1]["learning_rate"][-2]
    assert not [name for name in checkpoint.model if "variance" in name]


def test_dynamic_averaging_follows_the_epochs(tmp_path: Path) -> None:
    made = config(tmp_path, balancing="dwa", num_epochs=4)
    result = train(made)
    balancer = DynamicAveraging({"classification": 1.0, "ner": 1.0})
    for line in step_lines(made):
        balancer.begin_epoch([entry["loss"] for entry in result.history[: line["epoch"] - 1]])
        assert line["weight"] == {task: balancer.factor(task) for task in line["weight"]}
    assert line["weight"] != {"ner": 1}


@pytest.mark.parametrize("method", [*ANYWHERE, *COMPARING])
def test_a_stopped_run_resumes_bit_for_bit(method: str, tmp_path: Path) -> None:
    changes = {
        "balancing": method, "num_epochs": 3, "checkpoint_every": 3,
        "schedule": "joint" if method == "gradnorm" else "together",
    }  # fmt: skip
    whole, stopped = (config(tmp_path / name, **changes) for name in ("whole", "stopped"))

    assert_resumes(whole, stopped, 10)  # in the third epoch


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainResult]:
    """Train with a schedule and static weights, once for all tests."""
    return cache(
        lambda schedule: run(tmp_path_factory.mktemp(schedule), schedule=schedule, num_epochs=3)[0]
    )


@pytest.mark.parametrize(
    ("method", "schedule"),
    [
        *product(ANYWHERE, ["alternate", "joint", "together"]),
        *product(COMPARING, ["joint", "together"]),
    ],
)
def test_a_method_changes_what_is_trained(
    method: str, schedule: str, unbalanced: Callable[[str], TrainResult], tmp_path: Path
) -> None:
    result, _ = run(tmp_path, balancing=method, schedule=schedule, num_epochs=3)
    plain = unbalanced(schedule)
    assert result.history[0]["loss"].keys() == plain.history[0]["loss"].keys()
    # By more than rounding: a weight alone would change only that in a clipped gradient.
    losses, unweighted = (one.history[-1]["loss"] for one in (result, plain))
    assert any(loss != pytest.approx(unweighted[task], rel=1e-5) for task, loss in losses.items())


@pytest.mark.parametrize(
    ("weight", "more", "norm"),
    [
        (1, {}, 0.01),
        (3, {}, 0.03),
        (3, {"keep_embeddings": 1}, 0.02),
        (0, {"keep_embeddings": 1}, 0.005),
        (3, {"schedule": "joint"}, 0.01),
    ],
)
def test_a_tasks_weight_counts_although_its_own_steps_are_clipped(
    weight: float, more: dict[str, Any], norm: float, tmp_path: Path
) -> None:
    made = config(tmp_path, max_grad_norm=0.01, **{"tasks.ner.weight": weight}, **more)
    one = prepared(made)
    norms: dict[str, float] = {}

    def measure() -> None:
        gradients = [p.grad.to_dense() for p in one.trained() if p.grad is not None]
        norms["+".join(result.losses)] = float(nn.utils.get_total_norm(gradients))

    one.optimizer.step = measure  # type: ignore[assignment, method-assign]
    for step in plan_epoch(one.data.sources, Schedule.of(made), seed=made.seed, epoch=0):
        result = forward_backward(one, step)
        update(one, result)
    assert any("ner" in name for name in norms)
    for name, found in norms.items():
        assert found == pytest.approx(norm if "ner" in name else 0.01, rel=1e-3), name


def test_a_joint_step_in_which_one_task_has_labels_is_clipped_as_one_of_that_task(
    tmp_path: Path,
) -> None:
    records = sentences(12, 1)
    for number, missing in enumerate(("label", "label", "ner")):
        del records[number][missing]
    write_records(tmp_path / "partial.jsonl", records)
    one = prepared(
        config(
            tmp_path, train_file=str(tmp_path / "partial.jsonl"), schedule="joint", batch_size=1,
            max_grad_norm=0.01, **{"tasks.ner.weight": 3},
        )
    )  # fmt: skip
    norms: list[tuple[list[str], float]] = []

    def measure() -> None:
        gradients = [p.grad.to_dense() for p in one.trained() if p.grad is not None]
        norms.append((list(result.labelled), float(nn.utils.get_total_norm(gradients))))

    one.optimizer.step = measure  # type: ignore[assignment, method-assign]
    schedule = Schedule.of(one.config)
    for step in plan_epoch(one.data.sources, schedule, seed=one.config.seed, epoch=0):
        result = forward_backward(one, step)
        update(one, result)
    assert sorted(len(labelled) for labelled, _ in norms) == [1] * 3 + [2] * 9
    for labelled, found in norms:
        limit = 0.03 if labelled == ["ner"] else 0.01
        assert found == pytest.approx(limit, rel=1e-3), labelled


def test_a_method_is_a_name_or_a_mapping_and_its_options_can_be_set_one_by_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("balancing: dwa\n", encoding="utf-8")
    assert load_config(path).balancing == Balancing(method="dwa")
    assert load_config(path, {"balancing.temperature": "1.5"}).balancing.temperature == 1.5
    path.write_text("balancing:\n  method: dwa\n  temperature: 3\n", encoding="utf-8")
    assert load_config(path).balancing == Balancing(method="dwa", temperature=3)
    assert load_config(path, {"balancing": "uncertainty"}).balancing.method == "uncertainty"
    by_flag = load_config(None, {"balancing": "{method: dwa, temperature: 4}"})
    assert by_flag.balancing.temperature == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"balancing": "pcgard"}, r"`balancing.method` is 'pcgard'.*one of: static, uncertainty"),
        ({"balancing": 3}, r"`balancing` is 3.*one of: static, .*; or a mapping with: method"),
        ({"balancing": {"methd": "dwa"}}, r"unknown key `balancing\.methd`.*method"),
        ({"balancing": {"method": "dwa", "alpha": 1}}, r"`alpha` is 1, but `method` is 'dwa'"),
        ({"balancing.c": 1}, r"`balancing\.c` is 1.*at least 0 and below 1"),
        ({"balancing": "pcgrad"}, r"`balancing` is 'pcgrad'.*`schedule` is 'alternate'.*together"),
        (
            {"balancing": "gradnorm", "schedule": "together", "freeze": "encoder"},
            r"`balancing` is 'gradnorm'.*`freeze: encoder` there are none; freeze less",
        ),
        ({"log_gradients": 5}, r"`log_gradients` is 5.*`schedule` is 'alternate'.*together"),
        (
            {"log_gradients": 5, "schedule": "joint", "freeze": "encoder"},
            r"`log_gradients` is 5.*`freeze: encoder` there are none",
        ),
        (
            {"log_gradients": 5, "schedule": "joint", "tasks": {"a": {"kind": "multilabel"}}},
            r"`log_gradients` is 5, but there is one task, a",
        ),
        (
            {"log_gradients": 5, "schedule": "joint", "balancing": "cagrad"},
            r"`log_gradients` is 5, but `balancing` is 'cagrad', which measures",
        ),
        (
            {"balancing": "dwa", "tasks": {"a": {"kind": "multilabel"}}},
            r"`balancing` is 'dwa', but there is one task, a",
        ),
        (
            {
                "balancing": "cagrad", "schedule": "joint", "train_file": "x",
                "tasks": {
                    "a": {"kind": "multilabel"}, "b": {"kind": "tagging"},
                    "c": {"kind": "tagging", "train_file": "z"},
                },
            },
            r"`balancing` is 'cagrad'.*`schedule: joint` the steps of z have one task, 'c'",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_balanced_are_refused_by_name(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, values)


def test_a_task_alone_is_not_balanced(tmp_path: Path) -> None:
    both = config(tmp_path, balancing={"method": "dwa", "temperature": 3})
    assert config_alone(both, "ner", 2).balancing == Balancing()


def gram(*gradients: Sequence[float]) -> Gram:
    """The Gram matrix of some gradients, of tasks a, b and so on."""
    rows = np.array(gradients, np.float64)
    return Gram(tuple("abcd"[: len(rows)]), rows @ rows.T)


def combined(balancer: Any, *gradients: Sequence[float], step: int = 0) -> list[float]:
    """The gradient that a method makes of others."""
    counts = balancer.combine(gram(*gradients), step)
    rows = [count * np.array(row) for count, row in zip(counts.values(), gradients, strict=True)]
    return sum(rows).tolist()  # type: ignore[union-attr]


def test_pcgrad_by_hand() -> None:
    balancer = PCGrad({"a": 1.0, "b": 1.0}, seed=1)
    # (2, 0) loses its part along (-1, 1), -1 (-1, 1): (1, 1); (-1, 1) loses -1/2 (2, 0): (0, 1).
    assert combined(balancer, (2, 0), (-1, 1)) == pytest.approx([1, 2])
    # Gradients that agree stay as they are.
    assert combined(balancer, (2, 0), (1, 1)) == [3, 1]
    assert combined(balancer, (2, 0), (0, 0)) == [2, 0]


def test_pcgrad_projects_one_after_the_other_in_an_order_of_the_step() -> None:
    balancer = PCGrad(dict.fromkeys("abc", 1.0), seed=1)
    gradients = [np.array(g, float) for g in ((1, 0, 0), (-1, 1, 0), (-1, -2, 1))]

    def sums() -> list[list[float]]:
        """The results of every choice of orders."""
        found = [np.zeros(3)]
        for i, own in enumerate(gradients):
            ends = []
            for order in permutations([j for j in range(3) if j != i]):
                g = own.copy()
                for j in order:
                    if (along := g @ gradients[j]) < 0:
                        g = g - along / (gradients[j] @ gradients[j]) * gradients[j]
                ends.append(g)
            found = [one + end for one in found for end in ends]
        return [one.tolist() for one in found]

    possible, seen = sums(), set()
    for step in range(30):
        made = combined(balancer, *(g.tolist() for g in gradients), step=step)
        assert made == combined(balancer, *(g.tolist() for g in gradients), step=step)
        (match,) = {tuple(np.round(p, 9)) for p in possible if np.allclose(p, made)}
        seen.add(match)
    assert len(seen) > 3


def test_cagrad_by_hand() -> None:
    balancer = CAGrad({"a": 1.0, "b": 1.0}, c=0.5)
    # For equal gradients the mean is longer by c. For (2, 0) and (-1, 0), with the mean (1/2, 0),
    # the second gains least: (1/2, 0) + c/2 (-1, 0) = (1/4, 0), times the number of tasks.
    assert combined(balancer, (1, 0), (0, 1)) == pytest.approx([1.5, 1.5])
    assert combined(balancer, (2, 0), (-1, 0)) == pytest.approx([0.5, 0])
    assert combined(CAGrad({"a": 1.0, "b": 1.0}, c=0), (2, 0), (-1, 3)) == pytest.approx([1, 3])


def test_cagrad_finds_the_direction_whose_worst_gain_is_largest() -> None:
    draw = np.random.default_rng(0)
    for count in (2, 3, 4):
        gradients = draw.normal(size=(count, 3))
        made = np.array(combined(CAGrad(dict.fromkeys("abcd", 1.0), 0.4), *gradients)) / count
        mean = gradients.mean(axis=0)
        radius = 0.4 * np.linalg.norm(mean)
        assert np.linalg.norm(made - mean) == pytest.approx(radius)
        around = draw.normal(size=(20000, 3))
        around *= radius / np.linalg.norm(around, axis=1, keepdims=True)
        gains = (gradients @ (mean + around).T).min(axis=0)
        assert gains.max() <= (gradients @ made).min() + 1e-9
        assert gains.max() == pytest.approx((gradients @ made).min(), abs=0.05)


def test_gradnorm_by_hand() -> None:
    balancer = GradNorm({"a": 1.0, "b": 2.0}, alpha=1.0, learning_rate=0.1)
    # b's own weight does not count in its norm: 3 and 1, mean 2. At first all rates are 1; a is too
    # long and b too short, so the weights change by 0.1 * 3/2 and 0.1 * 1/2.
    balancer.learn(gram((3, 0), (0, 2)), {"a": 4.0, "b": 1.0})
    a, b = 1 - 0.15, 1 + 0.05
    assert balancer.factor("a") == pytest.approx(2 * a / (a + b))
    assert balancer.factor("b") == pytest.approx(2 * 2 * b / (a + b))
    # a is at half of its first loss, b at all of it: rates 2/3 and 4/3. With norms of 1, a is too
    # long and b too short.
    before = [balancer.factor("a"), balancer.factor("b") / 2]
    balancer.learn(gram((1, 0), (0, 2)), {"a": 2.0, "b": 1.0})
    plain = [1 / before[0], 1 / before[1]]
    a, b = (
        w + s * 0.1 * p / (sum(plain) / 2) for w, s, p in zip(before, (-1, 1), plain, strict=True)
    )
    assert balancer.factor("a") == pytest.approx(2 * a / (a + b))
    assert balancer.factor("b") == pytest.approx(4 * b / (a + b))


def test_gradients_that_cannot_be_compared_keep_their_weights() -> None:
    broken = Gram(("a", "b"), np.array([[1, np.nan], [np.nan, 1]]))
    for balancer in (PCGrad({"a": 1.0, "b": 1.0}, 1), CAGrad({"a": 1.0, "b": 1.0})):
        assert balancer.combine(broken, 0) == {"a": 1, "b": 1}
        assert balancer.combine(gram((1, 2)), 0) == {"a": 1}
        assert all(np.isfinite(combined(balancer, (0, 0), (0, 0))))
    balancer = GradNorm({"a": 1.0, "b": 0.0})
    balancer.learn(gram((1, 0), (0, 0)), {"a": 1.0, "b": 1.0})
    balancer.learn(gram((1, 0)), {"a": 1.0})
    assert balancer.weight.tolist() == [1, 1]


def test_sparse_gradients_are_multiplied_and_added_like_dense_ones() -> None:
    def taken(sparse: bool) -> tuple[Gram, list[torch.Tensor]]:
        torch.manual_seed(0)
        table = nn.Embedding(9, 4, sparse=sparse)
        linear, unused = nn.Linear(4, 3), nn.Parameter(torch.ones(2))
        parameters = [*table.parameters(), *linear.parameters(), unused]
        gradients = TaskGradients(parameters)
        for task, ids in (("a", [1, 2, 2]), ("b", [2, 5]), ("a", [7, 1]), (None, [8, 2]),
                          ("c", [0])):  # fmt: skip
            linear(table(torch.tensor(ids)).tanh()).square().sum().backward()
            if task is None:
                gradients.take_rest()
            else:
                gradients.take(task)
        found = gradients.gram(["a", "b", "c"])
        gradients.write({"a": 2.0, "b": -0.5})
        assert unused.grad is None
        assert table.weight.grad.is_sparse == sparse
        return found, [table.weight.grad.to_dense(), linear.weight.grad, linear.bias.grad]

    (one, laid), (other, expected) = taken(True), taken(False)
    assert one.products == pytest.approx(other.products, rel=1e-5)
    assert other.products[0, 1] != 0
    for a, b in zip(laid, expected, strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("schedule", ["joint", "together"])
@pytest.mark.parametrize("more", [{}, {"keep_embeddings": 3}, {"gradient_accumulation": 3}])
def test_gradients_taken_one_by_one_add_up_to_those_of_the_sum(
    schedule: str, more: dict[str, Any], tmp_path: Path
) -> None:
    if "keep_embeddings" in more:
        texts = tmp_path / "texts.txt"
        texts.write_text("john eats\nmary is in rome\n", encoding="utf-8")
        more = {"keep_embeddings": {"weight": 3, "texts": str(texts)}}
    found = []
    for name, method in (("plain", "static"), ("apart", {"method": "cagrad", "c": 0})):
        made = config(tmp_path / name, schedule=schedule, balancing=method, **more)
        one = prepared(made)
        plan = plan_epoch(one.data.sources, Schedule.of(made), seed=made.seed, epoch=0)
        forward_backward(one, plan[0])
        found.append({name: p.grad for name, p in one.model.named_parameters()})
    plain, apart = found
    for name, gradient in plain.items():
        assert (gradient is None) == (apart[name] is None)
        if gradient is not None:
            assert gradient.is_sparse == apart[name].is_sparse
            assert torch.allclose(gradient.to_dense(), apart[name].to_dense(), atol=1e-6), name


def gradients_of(made: Config) -> list[tuple[int, dict[str, Any]]]:
    return [(line["step"], line["gradients"]) for line in step_lines(made) if "gradients" in line]


def test_gradients_are_measured_every_so_many_steps_and_change_nothing(tmp_path: Path) -> None:
    for schedule in ("joint", "together"):
        plain, measured = (
            config(tmp_path / f"{schedule}-{name}", schedule=schedule, num_epochs=2, **more)
            for name, more in (("plain", {}), ("measured", {"log_gradients": 3}))
        )
        train(plain)
        train(measured)
        one, other = model_of(plain), model_of(measured)
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert not gradients_of(plain)
        steps, found = zip(*gradients_of(measured), strict=True)
        assert steps == (3, 6)
        for values in found:
            assert values["norm"].keys() == {"classification", "ner"}
            assert all(norm > 0 for norm in values["norm"].values())
            ((pair, cosine),) = values["cosine"].items()
            assert pair == "classification/ner"
            assert -1 <= cosine <= 1
            assert values["conflict"] == {pair: float(cosine < 0)}
            assert values["count"] == {"classification": 1, "ner": 1}


@pytest.mark.parametrize("method", ["gradnorm", "pcgrad"])
def test_measured_gradients_are_those_that_the_methods_compare(method: str, tmp_path: Path) -> None:
    found = []
    for name, more in (("measured", {"log_gradients": 1}), ("compared", {"balancing": method})):
        made = config(tmp_path / name, schedule="together", **more)
        train(made)
        found.append(gradients_of(made)[0][1])
    for quantity in ("norm", "cosine"):
        assert found[0][quantity] == pytest.approx(found[1][quantity], rel=1e-4)


def test_the_log_has_the_means_of_the_steps_since_its_last_line(tmp_path: Path) -> None:
    each, third = (
        config(tmp_path / str(every), schedule="together", balancing="pcgrad", log_every=every)
        for every in (1, 3)
    )
    train(each)
    train(third)
    (_, mean), *_ = gradients_of(third)
    singles = [values for _, values in gradients_of(each)[:3]]
    for quantity, values in mean.items():
        for name, value in values.items():
            assert value == pytest.approx(np.mean([one[quantity][name] for one in singles]))


def test_a_resumed_run_logs_the_same_gradients(tmp_path: Path) -> None:
    whole, stopped = (
        config(tmp_path / name, schedule="together", log_gradients=1, log_every=3,
               num_epochs=2, checkpoint_every=3)
        for name in ("whole", "stopped")
    )  # fmt: skip

    assert_resumes(whole, stopped, 6)


def test_surgery_removes_the_conflict_from_a_step(tmp_path: Path) -> None:
    made = config(tmp_path, schedule="together", balancing="pcgrad")
    one = prepared(made)
    plan = plan_epoch(one.data.sources, Schedule.of(made), seed=made.seed, epoch=0)
    conflicts = 0
    for step in plan:
        gradients = forward_backward(one, step).gradients
        assert gradients is not None
        ((_, cosine),) = gradients.gram.cosines().items()
        one.optimizer.zero_grad()
        conflicts += cosine < 0
        assert all((count > 1) == (cosine < 0) for count in gradients.coefficients.values())
    assert conflicts
