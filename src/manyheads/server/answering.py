"""From the texts of a request to predictions: checked, queued, awaited, or given up."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from fastapi import Request

from manyheads.errors import RequestError
from manyheads.inference import Text
from manyheads.server.problems import Problem, problem_of
from manyheads.server.registry import Registry, ServedModel
from manyheads.server.scheduling import QueueFull, TextTimeout
from manyheads.server.settings import ServerSettings
from manyheads.tasks import Prediction

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_DISCONNECT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Service:
    """What routes need to answer."""

    registry: Registry
    settings: ServerSettings

    def model(self, name: str | None) -> ServedModel:
        """Return a model by name, the first one by default.

        Raises:
            Problem: there is none of that name.
        """
        try:
            return self.registry.get(name)
        except RequestError as error:
            raise Problem(404, str(error), param="model", code="model_not_found") from None

    async def answer(
        self,
        request: Request,
        model: ServedModel,
        texts: Sequence[Text],
        param: str,
        *,
        embed: bool,
    ) -> list[Prediction | Problem]:
        """Predict for the texts of a request.

        Args:
            request: the request; when its client is gone, its texts give up their places.
            model: the model that answers.
            texts: what to predict for.
            param: the request's field that has them, for messages.
            embed: whether predictions need the embedding.

        Returns:
            for each text its prediction, or what is wrong with it.

        Raises:
            Problem: there are too many texts, too many wait, or the time is over.
        """
        if len(texts) > self.settings.max_texts:
            raise Problem(
                422, f"`{param}` has {len(texts):,} texts; at most {self.settings.max_texts:,} go "
                "into a request", param=param, code="too_many_texts",
            )  # fmt: skip
        request.scope["state"]["texts"] = len(texts)
        request.scope["state"]["model"] = model.name
        found: list[Prediction | Problem | None] = [
            self._problem_with(text, param if len(texts) == 1 else f"{param}[{i}]")
            for i, text in enumerate(texts)
        ]
        good = [i for i, problem in enumerate(found) if problem is None]
        deadline = request.scope["state"]["deadline"]
        try:
            futures = model.scheduler.submit(
                [texts[i] for i in good], embed=embed, deadline=deadline
            )
        except QueueFull as error:
            raise problem_of(error) from None
        await _finished(request, futures, deadline)
        for i, future in zip(good, futures, strict=True):
            fault = future.exception()
            if isinstance(fault, TextTimeout):
                raise problem_of(fault)
            found[i] = problem_of(fault, f"{param}[{i}]") if fault else future.result()
        return [one for one in found if one is not None]

    def _problem_with(self, text: Text, param: str) -> Problem | None:
        whole = text if isinstance(text, str) else " ".join(text)
        if len(whole) > self.settings.max_characters:
            return Problem(
                422, f"`{param}` has {len(whole):,} characters; at most "
                f"{self.settings.max_characters:,} are read", param=param, code="text_too_long",
            )  # fmt: skip
        if not whole.strip():
            return Problem(422, f"`{param}` is empty", param=param, code="text_empty")
        if bad := _UNREADABLE.search(whole):
            name = "a NUL character" if bad.group() == "\x00" else "half of a surrogate pair"
            return Problem(
                422, f"`{param}` has {name} at character {bad.start()}", param=param,
                code="text_unreadable",
            )  # fmt: skip
        return None


async def _finished(
    request: Request, futures: Sequence[Future[Prediction]], deadline: float
) -> None:
    """Wait until all are done.

    Raises:
        Problem: the time is over, or the client is gone.
    """
    waiting = {asyncio.wrap_future(future) for future in futures}
    try:
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise problem_of(TextTimeout())
            done, waiting = await asyncio.wait(waiting, timeout=min(left, _DISCONNECT_SECONDS))
            for future in done:
                # Looked at, so that asyncio reports no error as overlooked.
                future.exception()
            if waiting and await request.is_disconnected():
                raise Problem(499, "the client is gone", code="client_closed_request")
    finally:
        # A text that nobody waits for gives up its place.
        for future in waiting:
            future.cancel()


def only(answers: Sequence[Prediction | Problem]) -> list[Prediction]:
    """Return the predictions of a request in which every text has to be right.

    Raises:
        Problem: that of the first text that is not.
    """
    predictions = []
    for answer in answers:
        if isinstance(answer, Problem):
            raise answer
        predictions.append(answer)
    return predictions
