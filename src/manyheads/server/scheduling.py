"""Dynamic batching without a timer: the texts queued when a lane becomes free form the next batch.

A lane is a thread that computes one batch at a time. When it becomes free, it takes the oldest
queued text and others of similar length, up to a token budget and to its share of the queue. A
single text on an idle server is therefore computed at once, and batches grow with the load.

A lane gives a sign of life before each step, which is one run of the model: a long text takes many.
A lane that gives none for too long is lost: its texts fail, a new lane replaces it, and the server
is not ready until the new lane has computed its first text. Python cannot stop the lost thread; it
ends with its step. So does a batch whose texts are no longer waited for.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from manyheads.inference import Text
from manyheads.server.tracing import Tracing
from manyheads.tasks import Prediction

CHARACTERS_PER_TOKEN = 4
"""A rough average for planning batches before the texts are tokenised."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for. The texts of a batch ask for the same, except for embeddings."""

    embed: bool = False
    """Whether to include embeddings."""
    top_k: int = 0
    """Labels listed with each result, the most probable first."""
    thresholds: bool | tuple[tuple[str, float], ...] = True
    """Whether the model's thresholds hold; or by task the score that a result has to reach."""
    prompt: str | None = None
    """What embeddings read before each text; None for the encoder's default prompt."""

    def fits(self, other: Wanted) -> bool:
        """Return whether texts of both may be in one batch."""
        same = self.top_k == other.top_k and self.thresholds == other.thresholds
        return same and self.prompt == other.prompt


Predict: TypeAlias = Callable[[Sequence[Text], Wanted, Callable[[], None]], Sequence[Prediction]]
"""Predicts for texts. Calls its last argument before each run of the model, and lets the exception
pass that this raises where the predictions are no longer needed."""

_NEAR = 192
"""The oldest queued texts, among which a lane looks for those of similar length. With more, lists
would be spread over many batches and all be finished at the same time, when the lanes then wait."""

_OVERLOAD_TEXTS = 8
"""Texts a lane that may be queued while most requests are refused."""

_COUNTED = 32
"""The requests over which the share of the refused ones is averaged."""

_STALL_SECONDS = 5.0
"""A step that takes longer than this makes the server not ready."""

_LANE_NAME = "manyheads-lane-"

RELOAD_NAME = "manyheads-reload"
"""The thread that loads models again. It computes too, and starts lanes."""

_logger = logging.getLogger("manyheads.server")


class QueueFull(Exception):
    """The queue is full."""

    def __init__(self, waiting: int, seconds: float) -> None:
        queued = f"{waiting:,} texts are queued already"
        super().__init__(queued if waiting else "the server is overloaded")
        self.seconds = seconds
        """Seconds until the queue will be empty, estimated."""


class TextTimeout(Exception):
    """A text was not computed before its request's deadline."""


class LaneLost(Exception):
    """The thread that computed a text hung or died."""


class _Abandoned(Exception):
    """No text of a batch is waited for any more."""


@dataclass(slots=True)
class _Request:
    """The texts that were submitted together."""

    left: int
    """Texts without an outcome."""
    done: Callable[[], object]
    span: Any
    """The identity of the request's span, if it is traced."""


@dataclass(slots=True, eq=False)
class Answer:
    """A text on its way to its prediction.

    Not a future: a list has hundreds of answers, and a future is ten times as expensive.
    """

    text: Text
    wanted: Wanted
    tokens: int
    """Estimated from the characters of the text and its prompt."""
    deadline: float
    request: _Request
    outcome: Prediction | BaseException | None = None
    """None until it is computed."""
    cancelled: bool = False
    """Whether the outcome is no longer needed."""


@dataclass(slots=True)
class _Lane:
    """A thread and its batch."""

    number: int
    thread: threading.Thread
    woken: threading.Condition
    """Notified when there is work for it, or the scheduler closes."""
    batch: list[Answer] = field(default_factory=list)
    alive_at: float | None = None
    """When it began its current step; None if it has no work."""
    lost: bool = False
    ready: bool = False
    """Whether it has computed its first text."""


class Scheduler:
    """Computes the texts of many requests in batches, on several lanes.

    Args:
        predict: computes a batch. Called by several threads at the same time.
        lanes: the number of lanes.
        budget: tokens of a batch, estimated. The predictor splits a batch by length, which saves
            more padding with more texts.
        max_waiting: texts that may be queued.
        hang_seconds: seconds without a sign of life after which a busy lane is lost.
        stall_seconds: seconds without one after which it makes the scheduler not ready.
        warm_text: the text that a new lane computes first.
        tracing: starts a span for each batch.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        lanes: int,
        budget: int = 2048,
        max_waiting: int = 2048,
        hang_seconds: float = 30.0,
        stall_seconds: float = _STALL_SECONDS,
        warm_text: str = "Is everything ready?",
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing or Tracing()
        self._predict = predict
        self._budget = budget
        self._max_waiting = max_waiting
        self._hang_seconds = hang_seconds
        self._stall_seconds = stall_seconds
        self._warm_text = warm_text
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        """Notified when a lane changes. `wait_ready` and `close` wait for it."""
        self._idle: list[_Lane] = []
        """The lanes that wait for work. The last to become idle is the first to be woken: its
        processor still has the model's weights in its caches."""
        self._queue: list[Answer] = []
        self._closed = False
        self._numbers = itertools.count()
        self._rate = 100.0
        """Texts that a lane computes in a second, averaged."""
        self._refused = 0.0
        """The share of the refused among the latest requests."""
        self._lost = 0
        self._lanes = [self._new_lane() for _ in range(lanes)]
        self._watch = threading.Thread(target=self._watching, name="manyheads-watch", daemon=True)
        self._watch.start()

    # ------------------------------------------------------------------------------ for requests

    def submit(
        self,
        texts: Sequence[Text],
        wanted: Wanted,
        *,
        deadline: float,
        done: Callable[[], object] = lambda: None,
    ) -> list[Answer]:
        """Queue the texts of a request.

        Args:
            texts: the texts, at least one.
            wanted: what to compute.
            deadline: the time (`time.monotonic`) after which the results are not needed.
            done: called once, on another thread, when all texts have an outcome.

        Returns:
            an answer for each text. Its outcome is a prediction, `TextTimeout`, `LaneLost` or the
            text's own error.

        Raises:
            QueueFull: too many texts are queued, or the scheduler is closed.
        """
        request = _Request(len(texts), done, self._tracing.context())
        behind = len(wanted.prompt or "") // CHARACTERS_PER_TOKEN
        answers = [
            Answer(text, wanted, behind + _estimate(text), deadline, request) for text in texts
        ]
        with self._changed:
            try:
                self.check_room()
            except QueueFull:
                self.count_request(refused=True)
                raise
            self.count_request(refused=False)
            self._queue += answers
            # One text needs one lane; a second that wakes up would only compete for the
            # interpreter.
            self._wake(len(answers))
        return answers

    def check_room(self) -> None:
        """Do nothing if a request could be queued. Takes no lock, for which a caller that refuses
        most requests would often wait.

        Raises:
            QueueFull: too many texts are queued, or the scheduler is closed.
        """
        waiting = len(self._queue)
        if self._closed or not self._has_room(waiting):
            seconds = waiting / (self._rate * len(self._lanes))
            raise QueueFull(waiting, max(1.0, seconds))

    def _has_room(self, waiting: int) -> bool:
        if self._refused < 0.5:
            return waiting < self._max_waiting
        # The queue is for bursts. If most requests are refused anyway, a longer queue only makes
        # the accepted ones wait.
        usual = min(self._max_waiting - 1, _OVERLOAD_TEXTS * len(self._lanes))
        return waiting < usual or (not waiting and bool(self._idle))

    def count_request(self, *, refused: bool) -> None:
        """Note whether a request was refused for want of room; `submit` counts its own."""
        self._refused += (refused - self._refused) / _COUNTED

    def cancel(self, answers: Sequence[Answer]) -> None:
        """Drop texts whose outcome is no longer needed; their places in the queue become free."""
        with self._changed:
            for answer in answers:
                answer.cancelled = True
            self._queue = [answer for answer in self._queue if not answer.cancelled]

    @property
    def waiting(self) -> int:
        """The number of queued texts."""
        return len(self._queue)

    @property
    def computing(self) -> int:
        """The number of texts that are being computed."""
        return sum(len(lane.batch) for lane in self._lanes)

    @property
    def lanes_lost(self) -> int:
        """The number of lanes that hung or died and were replaced."""
        return self._lost

    def trouble(self) -> str:
        """Return why the scheduler is not ready; an empty string if it is."""
        now = time.monotonic()
        with self._changed:
            if self._closed:
                return "the model is closed"
            dead = [lane for lane in self._lanes if not lane.thread.is_alive()]
            new = [lane for lane in self._lanes if not lane.ready]
            slow = [
                lane for lane in self._lanes
                if lane.alive_at is not None and now - lane.alive_at > self._stall_seconds
            ]  # fmt: skip
            for lanes, state in ((dead, "died"), (slow, "do not answer"), (new, "are starting")):
                if lanes:
                    return f"{len(lanes)} of {len(self._lanes)} lanes {state}"
        return ""

    def wait_ready(self, timeout: float) -> bool:
        """Wait until every lane has computed its first text; returns whether that was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: all(x.ready for x in self._lanes), timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Accept no more texts, and finish those in the queue.

        Args:
            timeout: seconds to wait at most.

        Returns:
            whether all texts were computed; the others fail with `LaneLost`.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._wake(len(self._idle))
            while self._queue or any(lane.batch for lane in self._lanes):
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    rest = [*self._queue, *(x for lane in self._lanes for x in lane.batch)]
                    self._queue.clear()
                    break
                self._changed.wait(0.1 if left is None else min(left, 0.1))
            else:
                return True
        self._finish([(answer, LaneLost("the server stopped")) for answer in rest])
        return False

    # --------------------------------------------------------------------------------- the lanes

    def _wake(self, count: int) -> None:
        """Wake some of the idle lanes."""
        for _ in range(min(count, len(self._idle))):
            self._idle.pop().woken.notify()

    def _new_lane(self) -> _Lane:
        number = next(self._numbers)
        lane = _Lane(
            number,
            threading.Thread(name=f"{_LANE_NAME}{number}", daemon=True),
            threading.Condition(self._lock),
        )
        lane.thread = threading.Thread(
            target=self._work, args=(lane,), name=f"{_LANE_NAME}{number}", daemon=True
        )
        lane.alive_at = time.monotonic()
        lane.thread.start()
        return lane

    def _work(self, lane: _Lane) -> None:
        try:
            self._predict([self._warm_text], Wanted(embed=True), partial(self._step, lane))
        except Exception:
            # The watch replaces the lane.
            _logger.exception("lane failed to start")
            return
        with self._changed:
            lane.ready, lane.alive_at = True, None
            self._changed.notify_all()
            has_batch = self._next_batch(lane)
        while has_batch:
            begun = time.monotonic()
            computed = self._compute(lane)
            with self._changed:
                took = time.monotonic() - begun
                if computed and took > 0:
                    self._rate += 0.1 * (computed / took - self._rate)
                lane.batch, lane.alive_at = [], None
                self._changed.notify_all()
                # Under the same lock: a lane that has finished is at once among the idle ones.
                has_batch = self._next_batch(lane)

    def _next_batch(self, lane: _Lane) -> bool:
        """Wait for texts and take a batch; returns whether there is one, or the lane has to end."""
        while not self._queue and not self._closed and not lane.lost:
            self._idle.append(lane)
            lane.woken.wait()
        if lane.lost or not self._queue:
            return False
        lane.batch = self._take()
        lane.alive_at = time.monotonic()
        return True

    def _take(self) -> list[Answer]:
        """Take the oldest text and those nearest in length, within the budget and a fair share."""
        oldest = self._queue[0]
        free = sum(1 for lane in self._lanes if lane.alive_at is None and not lane.lost)
        room = self._budget
        if free > 1:
            share = -(-sum(answer.tokens for answer in self._queue) // free)
            room = min(room, max(share, oldest.tokens))
        like = [answer for answer in self._queue[:_NEAR] if answer.wanted.fits(oldest.wanted)]
        near = sorted(like, key=lambda answer: abs(answer.tokens - oldest.tokens))
        batch: list[Answer] = []
        longest = 0
        for answer in near:
            longest = max(longest, answer.tokens)
            if batch and longest * (len(batch) + 1) > room:
                break
            batch.append(answer)
        taken = set(map(id, batch))
        self._queue = [answer for answer in self._queue if id(answer) not in taken]
        return batch

    def _compute(self, lane: _Lane) -> int:
        """Compute the texts of a batch that are still waited for; returns how many it computed."""
        wanted = self._wanted(lane.batch)
        if not wanted:
            return 0
        embed = any(answer.wanted.embed for answer in wanted)
        asked = replace(wanted[0].wanted, embed=embed)
        step = partial(self._step, lane)
        try:
            with self._tracing.batch(len(wanted), (answer.request.span for answer in wanted)):
                # Within the span, which an exception marks as failed.
                try:
                    predictions = self._predict([answer.text for answer in wanted], asked, step)
                except _Abandoned:
                    return 0
        except Exception as error:
            return self._compute_alone(wanted, error, step)
        self._finish(list(zip(wanted, predictions, strict=True)))
        return len(wanted)

    def _compute_alone(
        self, answers: Sequence[Answer], error: Exception, step: Callable[[], None]
    ) -> int:
        """Compute the texts of a failed batch one by one, so that only the faulty ones fail.

        Returns:
            how many it computed, the faulty ones included.
        """
        if len(answers) == 1:
            self._finish([(answers[0], error)])
            return 1
        for done, answer in enumerate(answers):
            try:
                [prediction] = self._predict([answer.text], answer.wanted, step)
            except _Abandoned:
                return done
            except Exception as fault:
                self._finish([(answer, fault)])
            else:
                self._finish([(answer, prediction)])
        return len(answers)

    def _step(self, lane: _Lane) -> None:
        """Note a sign of life of a lane.

        Raises:
            _Abandoned: no text of its batch is waited for any more.
        """
        lane.alive_at = time.monotonic()
        # The first text of a new lane is no part of a batch.
        if lane.batch and not self._wanted(lane.batch):
            raise _Abandoned

    def _wanted(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return those that are still waited for; the late ones fail."""
        now = time.monotonic()
        if late := [x for x in answers if x.deadline < now and x.outcome is None]:
            self._finish([(answer, TextTimeout()) for answer in late])
        return [x for x in answers if x.outcome is None and not x.cancelled]

    def _finish(self, outcomes: Sequence[tuple[Answer, Prediction | BaseException]]) -> None:
        """Set outcomes, and call `done` of the requests that are complete."""
        complete = []
        with self._changed:
            for answer, outcome in outcomes:
                # A lost lane may still finish after its texts have failed.
                if answer.outcome is not None:
                    continue
                answer.outcome = outcome
                answer.request.left -= 1
                if not answer.request.left:
                    complete.append(answer.request)
        for request in complete:
            request.done()

    # ------------------------------------------------------------------------------- the watch

    def _watching(self) -> None:
        while not self._closed:
            time.sleep(min(0.5, self._hang_seconds / 4))
            self.replace_lost(time.monotonic())

    def replace_lost(self, now: float) -> int:
        """Replace the lanes that have hung or died by `now`; returns their number."""
        failed: list[Answer] = []
        replaced = 0
        with self._changed:
            for i, lane in enumerate(self._lanes):
                hangs = lane.alive_at is not None and now - lane.alive_at > self._hang_seconds
                if self._closed or (lane.thread.is_alive() and not hangs):
                    continue
                lane.lost = True
                failed += lane.batch
                self._lanes[i] = self._new_lane()
                replaced += 1
            self._lost += replaced
        self._finish([(x, LaneLost("the computation of the text hung or died")) for x in failed])
        return replaced


def wait_for_threads(seconds: float, others: Collection[threading.Thread] = ()) -> bool:
    """Wait until no lane and no reload of a server runs any more, after it has stopped.

    Args:
        seconds: how long to wait at most.
        others: threads that are not waited for, such as those of another server of this process.

    Returns:
        whether that was in time; otherwise one hangs or takes long, and Python cannot stop it.
    """
    end = time.monotonic() + seconds
    # Looked up each time, since a reload starts lanes.
    while thread := _computing_thread(others):
        if (left := end - time.monotonic()) <= 0:
            return False
        thread.join(left)
    return True


def _computing_thread(others: Collection[threading.Thread]) -> threading.Thread | None:
    names = (_LANE_NAME, RELOAD_NAME)
    threads = (one for one in threading.enumerate() if one not in others)
    return next((one for one in threads if one.name.startswith(names)), None)


def _estimate(text: Text) -> int:
    characters = len(text) if isinstance(text, str) else sum(map(len, text))
    return 2 + characters // CHARACTERS_PER_TOKEN
