"""GenerateBatch: requests over one stream after the other until each has its answer.

It knows requests and responses of the wire only, no prompts.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterator

import grpc

from structattn.v1 import inference_service_pb2 as api

# A server that has answered before and is away may be restarting: it gets some 25 s, in delays that
# double. One that has never answered gets one retry. Every answer makes the count begin anew.
RETRIES = 7
RETRY_DELAY_S = 0.2

# Codes that refuse the stream as such, as they would any other stream.
FINAL = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED,
         grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}


class Feed:
    """What is sent: first, in a new stream, what has no answer yet, then what comes next.

    gRPC pulls the messages of a stream on a thread of its own, and may still do so when the stream
    has ended and the next one begins.
    """

    def __init__(self, requests: Iterator[api.GenerateRequest]):
        self._requests = requests
        self._lock = threading.Lock()
        self._streams = 0
        self._unanswered: dict[str, api.GenerateRequest] = {}  # In the order of requests.
        self._exhausted = False
        self._error: Exception | None = None

    def messages(self, options: api.BatchOptions) -> Iterator[api.GenerateBatchRequest]:
        with self._lock:
            self._streams += 1
            return self._messages(options, self._streams, list(self._unanswered.values()))

    def answered(self, request_id: str) -> None:
        with self._lock:
            del self._unanswered[request_id]

    def is_done(self) -> bool:
        """True when every request has its answer. Raises what the iterator of requests raised."""
        with self._lock:
            if self._error is not None:
                raise self._error
            return self._exhausted and not self._unanswered

    def _messages(self, options: api.BatchOptions, stream: int,
                  again: list[api.GenerateRequest]) -> Iterator[api.GenerateBatchRequest]:
        yield api.GenerateBatchRequest(options=options)
        for request in again:
            yield api.GenerateBatchRequest(generate=request)
        while (request := self._pull(stream)) is not None:
            yield api.GenerateBatchRequest(generate=request)

    def _pull(self, stream: int) -> api.GenerateRequest | None:
        with self._lock:
            if stream != self._streams or self._exhausted:
                return None
            try:
                request = next(self._requests, None)
            except Exception as error:  # pylint: disable=broad-except  (raised again in is_done)
                self._error = error
                return None
            if request is None:
                self._exhausted = True
            else:
                self._unanswered[request.request_id] = request
            return request


def _ends_answer(response: api.GenerateBatchResponse) -> bool:
    return response.HasField("error") or response.generated.HasField("finished")


def _is_postponed(response: api.GenerateBatchResponse) -> bool:
    """Whether the request's model is being unloaded; it may come back."""
    return (response.HasField("error")
            and response.error.code == grpc.StatusCode.UNAVAILABLE.value[0])


def answers(open_stream: Callable[[Iterator[api.GenerateBatchRequest]], Any],
            requests: Iterator[api.GenerateRequest],
            options: api.BatchOptions) -> Iterator[list[api.GenerateBatchResponse]]:
    """Yields the responses to each request, in the order that options choose.

    requests is pulled from another thread, no faster than the server takes them; every request_id
    is its own. Raises grpc.RpcError when the server refuses, or is away for too long.
    """
    feed = Feed(requests)
    reached = False
    fruitless = 0
    while not feed.is_done():
        error = None
        postponed = []
        fruitless += 1
        parts = []
        call = open_stream(feed.messages(options))
        try:
            for response in call:
                parts.append(response)
                if not _ends_answer(response):
                    continue
                whole, parts = parts, []
                if _is_postponed(response):
                    postponed.append(whole)
                    continue
                reached, fruitless = True, 1
                feed.answered(response.request_id)
                yield whole
        except grpc.RpcError as broken:
            error = broken
        finally:
            call.cancel()
        if feed.is_done():
            return
        if fruitless > (RETRIES if reached else 1) or error is not None and error.code() in FINAL:
            if error is not None:
                raise error
            for whole in postponed:
                feed.answered(whole[-1].request_id)
                yield whole
        else:
            time.sleep(RETRY_DELAY_S * 2 ** (fruitless - 1))
