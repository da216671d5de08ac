"""Many requests at once: from the cache where it has them, from the endpoint where not."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from tuneline.config.schema import EndpointConfig
from tuneline.errors import TunelineError
from tuneline.teacher.cache import ReplyCache
from tuneline.teacher.endpoint import StoppedError, Teacher, connected
from tuneline.teacher.request import Reply, Request

Watched = Callable[[Iterable["Future[Reply]"], int], Iterable["Future[Reply]"]]


@dataclass(frozen=True, slots=True)
class Answers:
    """The reply to every request, and what it took."""

    replies: dict[str, Reply]  # by the request's digest
    n_sent: int  # requests that the cache did not answer
    spent_tokens: int  # of them, as the endpoint counts

    def summary(self) -> str:
        """One line for a person; a run that finds all in the cache has other figures than the first one."""
        n_cached = len(self.replies) - self.n_sent
        return f"teacher: {self.n_sent} requests sent ({self.spent_tokens:,} tokens), {n_cached} answers from the cache"


def ask_all(
    requests: Sequence[Request], endpoint: EndpointConfig | None, cache: ReplyCache, watched: Watched
) -> Answers:
    """Equal requests are sent once, and those in the cache not at all.

    `watched` gets each answer that comes in, and how many will. Raises the first error, which says what is done:
    every answer is in the cache by then, so that the next run goes on from there.
    """
    distinct = {request.sha256: request for request in requests}
    replies = {
        digest: reply
        for digest, request in distinct.items()
        if (reply := cache.find(request)) is not None and not reply.hit_a_limit
    }
    missing = [request for digest, request in distinct.items() if digest not in replies]
    if not missing:
        return Answers(replies, 0, 0)
    assert endpoint is not None, "the configuration has an endpoint where it has jobs"
    with connected(endpoint) as teacher:
        fetched = _fetch(missing, teacher, endpoint.concurrency, cache, watched)
        return Answers(replies | fetched, len(missing), teacher.spending.spent_tokens)


def _fetch(
    missing: Sequence[Request], teacher: Teacher, concurrency: int, cache: ReplyCache, watched: Watched
) -> dict[str, Reply]:
    with ThreadPoolExecutor(concurrency) as threads:
        futures = {threads.submit(_ask_and_keep, request, teacher, cache): request for request in missing}
        try:
            return {futures[done].sha256: done.result() for done in watched(as_completed(futures), len(futures))}
        except BaseException as error:
            teacher.stop()
            threads.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, TunelineError):
                raise _explained(list(futures), cache) from None
            raise


def _ask_and_keep(request: Request, teacher: Teacher, cache: ReplyCache) -> Reply:
    try:
        reply = teacher.ask(request)
        if not reply.hit_a_limit:  # the server may have been given more context by the next run
            cache.keep(request, reply)
    except BaseException:
        teacher.stop()  # at once: the other threads start nothing more
        raise
    return reply


def _explained(futures: Sequence["Future[Reply]"], cache: ReplyCache) -> BaseException:
    """The error of the first request that has one of its own, with what is done."""
    ended = [future.exception() for future in futures if not future.cancelled()]
    failed = [error for error in ended if error is not None]
    first = next((error for error in failed if not isinstance(error, StoppedError)), failed[0])
    if not isinstance(first, TunelineError):
        return first  # a defect, with its traceback
    done = f"{ended.count(None)} of {len(futures)} missing answers came and are kept in {cache.folder}"
    return type(first)(f"{first}; {done}: the next run goes on from there")
