"""The scheduler: batches without a timer, limits, and lanes that hang or die."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from manyheads.inference import Text
from manyheads.server import LaneLost, QueueFull, Scheduler, TextTimeout
from manyheads.server.scheduling import Answer, Wanted
from manyheads.server.tracing import Tracing
from manyheads.tasks import Prediction
from serving import becomes

WARM = "warm"
Step = Callable[[], None]


class Model:
    """Predicts nothing, remembers its batches, and holds them back while the gate is closed."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Text], bool]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, texts: Sequence[Text], wanted: Wanted, step: Step) -> list[Prediction]:
        if list(texts) == [WARM]:
            return [Prediction(WARM, {})]
        self.batches.append((list(texts), wanted.embed))
        self.entered.release()
        assert self.gate.wait(60)
        if "bad" in texts:
            raise ValueError("bad text")
        if "die" in texts:
            raise SystemExit
        return [Prediction(str(text), {}) for text in texts]


@contextmanager
def scheduling(predict: Callable[..., list[Prediction]], **options: object) -> Iterator[Scheduler]:
    scheduler = Scheduler(predict, **{"lanes": 1, "warm_text": WARM, **options})  # type: ignore[arg-type]
    assert scheduler.wait_ready(60)
    try:
        yield scheduler
    finally:
        if isinstance(predict, Model):
            predict.gate.set()
        scheduler.close(60)


class Asked:
    """A text of a request."""

    def __init__(self, answer: Answer, done: threading.Event) -> None:
        self.answer, self.done = answer, done

    def result(self, timeout: float = 60) -> Prediction:
        assert self.done.wait(timeout)
        assert self.answer.outcome is not None
        if isinstance(self.answer.outcome, BaseException):
            raise self.answer.outcome
        return self.answer.outcome


def submit(
    scheduler: Scheduler,
    texts: list[Text],
    *,
    embed: bool,
    deadline: float,
    top_k: int = 0,
    prompt: str | None = None,
) -> list[Asked]:
    done = threading.Event()
    wanted = Wanted(embed, top_k, prompt=prompt)
    answers = scheduler.submit(texts, wanted, deadline=deadline, done=done.set)
    return [Asked(answer, done) for answer in answers]


def occupy(scheduler: Scheduler, model: Model, text: str) -> list[Asked]:
    """Have the only lane compute a text until the model's gate is opened."""
    model.gate.clear()
    asked = submit(scheduler, [text], embed=False, deadline=later())
    assert model.entered.acquire(timeout=60)
    return asked


def finish(asked: list[Asked]) -> None:
    for one in asked:
        assert one.done.wait(60)


def later(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def test_a_text_is_computed_at_once_and_those_that_queue_meanwhile_go_together() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        (first,) = occupy(scheduler, model, "first")
        others = submit(scheduler, ["a", "b"], embed=False, deadline=later())
        others += submit(scheduler, ["c"], embed=True, deadline=later())
        assert scheduler.waiting == 3
        assert scheduler.computing == 1
        model.gate.set()
        assert [f.result(60).text for f in (first, *others)] == ["first", "a", "b", "c"]
        assert model.batches == [(["first"], False), (["a", "b", "c"], True)]


def test_a_batch_stays_within_the_budget_and_has_texts_of_similar_length() -> None:
    model = Model()
    with scheduling(model, budget=40) as scheduler:
        first = occupy(scheduler, model, "first")
        long, short = "x" * 200, "y" * 20
        texts = [short, long, short, short, long, short, short, short]
        rest = submit(scheduler, texts, embed=False, deadline=later())
        model.gate.set()
        finish(first + rest)
        sizes = [[len(text) for text in batch] for batch, _ in model.batches[1:]]
        assert sizes == [[20] * 5, [200], [200], [20]]


def test_a_prompt_takes_its_part_of_the_budget() -> None:
    model = Model()
    with scheduling(model, budget=40) as scheduler:
        asked = occupy(scheduler, model, "first")
        for prompt in ("x" * 40, None):
            asked += submit(
                scheduler, ["text"] * 6, embed=True, deadline=later(), prompt=prompt
            )  # fmt: skip
        model.gate.set()
        finish(asked)
        assert [len(batch) for batch, _ in model.batches[1:]] == [3, 3, 6]


def test_texts_that_ask_for_different_things_are_not_computed_together() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        asked = occupy(scheduler, model, "first")
        asked += submit(scheduler, ["a"], embed=False, deadline=later())
        asked += submit(scheduler, ["b"], embed=False, deadline=later(), top_k=3)
        asked += submit(scheduler, ["c"], embed=False, deadline=later())
        asked += submit(scheduler, ["d"], embed=True, deadline=later(), prompt="query: ")
        asked += submit(scheduler, ["e"], embed=True, deadline=later())
        asked += submit(scheduler, ["f"], embed=True, deadline=later(), prompt="query: ")
        model.gate.set()
        finish(asked)
        batches = [batch for batch, _ in model.batches]
        assert batches == [["first"], ["a", "c", "e"], ["b"], ["d", "f"]]


def test_two_lanes_share_what_waits() -> None:
    model = Model()
    with scheduling(model, lanes=2) as scheduler:
        model.gate.clear()
        futures = submit(scheduler, ["aaaa"] * 4, embed=False, deadline=later())
        assert model.entered.acquire(timeout=60)
        assert model.entered.acquire(timeout=60)
        model.gate.set()
        finish(futures)
        assert len(model.batches[0][0]) == 2


def test_the_lane_that_became_idle_last_computes_the_next_text() -> None:
    threads = []

    def predict(texts: Sequence[Text], wanted: Wanted, step: Step) -> list[Prediction]:
        threads.append(threading.get_ident())
        return [Prediction(str(text), {}) for text in texts]

    with scheduling(predict, lanes=3) as scheduler:
        threads.clear()
        for text in "abcd":
            assert becomes(lambda: not scheduler.computing)
            finish(submit(scheduler, [text], embed=False, deadline=later()))
        assert len(set(threads)) == 1


def test_one_bad_text_of_a_batch_fails_alone() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        good, bad, other = submit(scheduler, ["good", "bad", "fine"], embed=False, deadline=later())
        assert good.result(60).text == "good"
        assert other.result(60).text == "fine"
        with pytest.raises(ValueError, match="bad text"):
            bad.result(60)


def test_a_full_queue_refuses_more_and_names_the_time_to_try_again() -> None:
    model = Model()
    with scheduling(model, max_waiting=3) as scheduler:
        occupy(scheduler, model, "first")
        # A list is taken whole as long as there is any room.
        submit(scheduler, ["a", "b"], embed=False, deadline=later())
        many = submit(scheduler, ["c", "d"], embed=False, deadline=later())
        with pytest.raises(QueueFull, match="4 texts are queued already") as caught:
            submit(scheduler, ["e"], embed=False, deadline=later())
        assert caught.value.seconds >= 1
        scheduler.cancel([asked.answer for asked in many])
        (accepted,) = submit(scheduler, ["e"], embed=False, deadline=later())
        model.gate.set()
        assert accepted.result(60).text == "e"
        assert not any("c" in batch for batch, _ in model.batches)


def test_texts_that_were_dropped_as_late_do_not_shorten_the_time_to_try_again() -> None:
    model = Model()
    with scheduling(model, max_waiting=400) as scheduler:
        for _ in range(30):
            finish(submit(scheduler, ["late"], embed=False, deadline=later(-1)))
        occupy(scheduler, model, "first")
        submit(scheduler, ["waits"] * 400, embed=False, deadline=later())
        with pytest.raises(QueueFull) as caught:
            submit(scheduler, ["refused"], embed=False, deadline=later())
        # No text is computed yet, so that the rate is the assumed one: 100 texts a second.
        assert caught.value.seconds == 4.0


def test_while_most_requests_are_refused_texts_do_not_wait() -> None:
    model = Model()
    with scheduling(model, max_waiting=1) as scheduler:
        first = occupy(scheduler, model, "first")
        asked = submit(scheduler, ["waits"], embed=False, deadline=later())
        for _ in range(40):
            with pytest.raises(QueueFull):
                submit(scheduler, ["refused"], embed=False, deadline=later())
        scheduler.cancel([one.answer for one in asked])
        with pytest.raises(QueueFull, match="overloaded"):
            submit(scheduler, ["would wait"], embed=False, deadline=later())
        model.gate.set()
        finish(first)
        for _ in range(40):
            assert becomes(lambda: not scheduler.computing)
            finish(submit(scheduler, ["computed at once"], embed=False, deadline=later()))
        occupy(scheduler, model, "busy")
        assert becomes(lambda: scheduler.computing == 1 and not scheduler.waiting)
        submit(scheduler, ["waits again"], embed=False, deadline=later())


def test_a_text_past_its_deadline_is_not_computed() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        (late,) = submit(scheduler, ["late"], embed=False, deadline=later(-1))
        with pytest.raises(TextTimeout):
            late.result(60)
        assert model.batches == []


def test_closing_finishes_what_was_accepted() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        futures = occupy(scheduler, model, "a")
        futures += submit(scheduler, ["b"], embed=False, deadline=later())
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        assert becomes(lambda: scheduler.trouble() == "the model is closed")
        with pytest.raises(QueueFull):
            submit(scheduler, ["c"], embed=False, deadline=later())
        model.gate.set()
        closing.join(60)
        assert [future.result(0).text for future in futures] == ["a", "b"]


def test_closing_fails_what_is_not_finished_in_time() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        futures = occupy(scheduler, model, "a")
        futures += submit(scheduler, ["b"], embed=False, deadline=later())
        assert not scheduler.close(0)
        for future in futures:
            with pytest.raises(LaneLost, match="stopped"):
                future.result(0)


def test_a_lane_that_hangs_makes_the_server_not_ready_and_is_replaced() -> None:
    model = Model()
    with scheduling(model, stall_seconds=0.0, hang_seconds=3600) as scheduler:
        assert scheduler.trouble() == ""
        (stuck,) = occupy(scheduler, model, "stuck")
        assert scheduler.trouble() == "1 of 1 lanes do not answer"
        assert scheduler.replace_lost(time.monotonic()) == 0
        assert scheduler.replace_lost(time.monotonic() + 3601) == 1
        with pytest.raises(LaneLost):
            stuck.result(60)
        assert scheduler.wait_ready(60)
        assert scheduler.trouble() == ""
        assert scheduler.lanes_lost == 1
        model.gate.set()
        (after,) = submit(scheduler, ["after"], embed=False, deadline=later())
        assert after.result(60).text == "after"


class LongText:
    """A model that reads a text in steps, each of which the test lets it begin."""

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.count = 0
        self.ended = threading.Event()

    def __call__(self, texts: Sequence[Text], wanted: Wanted, step: Step) -> list[Prediction]:
        if list(texts) == ["long"]:
            try:
                for _ in range(9):
                    assert self.steps.acquire(timeout=60)
                    step()
                    self.count += 1
                    self.begun.release()
            finally:
                self.ended.set()
        return [Prediction(str(text), {}) for text in texts]

    def begin_step(self) -> None:
        self.steps.release()
        assert self.begun.acquire(timeout=60)

    def end(self) -> None:
        """Let it begin all the steps that it will."""
        for _ in range(9):
            self.steps.release()


class Clock:
    """The scheduler's time, which the test sets; threads still sleep by the real one."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("manyheads.server.scheduling.time", made)
    return made


def test_a_lane_that_computes_a_long_text_is_alive_for_as_long_as_its_steps_go_on(
    clock: Clock,
) -> None:
    model = LongText()
    with scheduling(model, stall_seconds=5.0, hang_seconds=30.0) as scheduler:
        (long,) = submit(scheduler, ["long"], embed=False, deadline=clock.now + 3600)
        for _ in range(8):
            model.begin_step()
            assert scheduler.trouble() == ""
            clock.now += 20
            assert scheduler.trouble() == "1 of 1 lanes do not answer"
            assert scheduler.replace_lost(clock.now) == 0
        model.end()
        assert long.result().text == "long"
        assert scheduler.lanes_lost == 0


@pytest.mark.parametrize("why", ["cancelled", "late", "lost", "closed"])
def test_a_batch_that_nobody_waits_for_ends_with_its_step(clock: Clock, why: str) -> None:
    model = LongText()
    with scheduling(model, stall_seconds=5.0, hang_seconds=30.0) as scheduler:
        (long,) = submit(scheduler, ["long"], embed=False, deadline=clock.now + 25)
        model.begin_step()
        if why == "cancelled":
            scheduler.cancel([long.answer])
        elif why == "late":
            clock.now += 26
        elif why == "lost":
            # The watch may be first.
            clock.now += 31
            scheduler.replace_lost(clock.now)
            assert scheduler.lanes_lost == 1
        else:
            assert not scheduler.close(0)
        model.end()
        assert model.ended.wait(60)
        assert model.count == 1
        if why == "closed":
            return
        (after,) = submit(scheduler, ["after"], embed=False, deadline=clock.now + 60)
        assert after.result().text == "after"
        assert becomes(lambda: scheduler.computing == 0)
        if why == "late":
            with pytest.raises(TextTimeout):
                long.result()


def test_the_span_of_a_batch_that_nobody_waits_for_is_not_a_failed_one() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing, model = Tracing(provider), LongText()
    with scheduling(model, tracing=tracing) as scheduler:
        with tracing.request("POST", {}):
            (long,) = submit(scheduler, ["long"], embed=False, deadline=later())
        model.begin_step()
        scheduler.cancel([long.answer])
        model.end()
        assert becomes(lambda: scheduler.computing == 0)
    (batch,) = (span for span in exporter.get_finished_spans() if span.name == "batch")
    assert batch.status.status_code is StatusCode.UNSET
    assert not batch.events


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_that_dies_is_replaced_by_the_watch() -> None:
    model = Model()
    with scheduling(model) as scheduler:
        (dead,) = submit(scheduler, ["die"], embed=False, deadline=later())
        with pytest.raises(LaneLost):
            dead.result(60)
        (after,) = submit(scheduler, ["after"], embed=False, deadline=later())
        assert after.result(60).text == "after"
        assert scheduler.lanes_lost == 1


def test_a_lane_that_cannot_start_keeps_the_server_not_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = threading.Event()
    broken.set()

    def predict(texts: Sequence[Text], wanted: Wanted, step: Step) -> list[Prediction]:
        if broken.is_set():
            raise RuntimeError("no memory")
        return [Prediction(str(text), {}) for text in texts]

    scheduler = Scheduler(predict, lanes=1)
    try:
        assert becomes(lambda: scheduler.lanes_lost > 0)
        assert scheduler.trouble() != ""
        assert not scheduler.wait_ready(0)
        broken.clear()
        assert scheduler.wait_ready(60)
        assert scheduler.trouble() == ""
    finally:
        scheduler.close(60)
