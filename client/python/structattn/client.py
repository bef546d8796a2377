"""The client: one channel, four calls, plain dataclasses back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Iterable, Iterator, Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

from structattn import batch
from structattn.prompt import to_proto
from structattn.v1 import inference_service_pb2 as api
from structattn.v1 import inference_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc
from structattn.v1 import types_pb2 as types

MAX_RECEIVE_BYTES = 64 << 20  # An echoed prompt can pass gRPC's default of 4 MiB.

# A request with more would end a stream: the server takes messages of 16 MiB.
MAX_REQUEST_BYTES = (16 << 20) - 64
MAX_ID_CHARACTERS = 64  # 256 bytes of UTF-8 at most.

SAMPLING_FIELDS = {field.name for field in types.Sampling.DESCRIPTOR.fields}
STOPPING_FIELDS = {field.name for field in types.Stopping.DESCRIPTOR.fields}
REQUEST_FIELDS = {"request_id", "generated_group", "timeout_ms", "cache"}


class StructattnError(Exception):
    """A refused or failed call. field and reason are empty when the server named none."""

    def __init__(self, code: str, message: str, field: str = "", reason: str = ""):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason


@dataclasses.dataclass
class Chunk:
    """New tokens of a stream. text is whole characters and may lag behind the ids."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    # Per token id [(token id, logprob)], best first; empty unless asked for.
    top_logprobs: list[list[tuple[int, float]]]


@dataclasses.dataclass
class Generation:
    """A whole answer. logprobs are natural logs of the raw softmax, one per token id."""

    text: str = ""
    token_ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    top_logprobs: list[list[tuple[int, float]]] = dataclasses.field(default_factory=list)
    finish_reason: str = ""
    prompt_token_ids: list[int] = dataclasses.field(default_factory=list)
    group_ids: list[int] = dataclasses.field(default_factory=list)
    position_ids: list[int] = dataclasses.field(default_factory=list)
    usage: types.Usage | None = None
    timings: types.Timings | None = None
    provenance: types.Provenance | None = None

    def _add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        self.top_logprobs += chunk.top_logprobs


@dataclasses.dataclass
class BatchResult:
    """What became of one prompt of generate_batch(): a generation or an error."""

    index: int  # The prompt's place among all, from 0.
    id: Any  # The prompt's own "id"; None when it has none.
    generation: Generation | None = None
    error: StructattnError | None = None


@dataclasses.dataclass
class Token:
    """One prompt token as the server sees it. segment is -1 for added special tokens."""

    id: int
    bytes: bytes
    segment: int
    group: int
    position: int


@dataclasses.dataclass
class Inspection:
    """visible[g] lists the groups that group g sees."""

    tokens: list[Token]
    visible: list[list[int]]
    visible_pairs: int
    causal_pairs: int


def _from_status(code: str, message: str, status: status_pb2.Status) -> StructattnError:
    result = StructattnError(code, message)
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        error_info = error_details_pb2.ErrorInfo()
        if detail.Unpack(bad_request) and bad_request.field_violations:
            result.field = bad_request.field_violations[0].field
        elif detail.Unpack(error_info):
            result.reason = error_info.reason
    return result


def _to_error(error: grpc.RpcError) -> StructattnError:
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    return _from_status(error.code().name, error.details() or "", status)


def _to_chunk(chunk: api.Chunk) -> Chunk:
    best = [[(entry.token_id, entry.logprob) for entry in place.entries]
            for place in chunk.top_logprobs]
    return Chunk(chunk.text, list(chunk.token_ids), list(chunk.logprobs), best)


def _begin(started: api.Started, into: Generation) -> None:
    into.prompt_token_ids = list(started.prompt_token_ids)
    into.group_ids = list(started.group_ids)
    into.position_ids = list(started.position_ids)
    into.provenance = started.provenance


def _finish(finished: api.Finished, into: Generation) -> None:
    name = types.FinishReason.Name(finished.reason)
    into.finish_reason = name.removeprefix("FINISH_REASON_").lower()
    into.usage = finished.usage
    into.timings = finished.timings


def _too_large(request: api.GenerateRequest) -> StructattnError | None:
    if request.ByteSize() <= MAX_REQUEST_BYTES:
        return None
    return StructattnError("RESOURCE_EXHAUSTED", f"segments: the request has {request.ByteSize()} "
                           f"bytes; at most {MAX_REQUEST_BYTES} are allowed", "segments")


class _BatchRequests:
    """The requests of generate_batch(), and the way back from responses to prompts."""

    def __init__(self, prompts: Iterable[Any], make: Callable[[Any], api.GenerateRequest]):
        self._prompts = prompts
        self._make = make
        self._ids: dict[str, tuple[int, Any]] = {}  # By request_id: the prompt's index and id.
        self._unsendable: list[BatchResult] = []  # By index; made by the thread that pulls.

    def __iter__(self) -> Iterator[api.GenerateRequest]:
        for index, prompt in enumerate(self._prompts):
            own_id = None if isinstance(prompt, types.Prompt) else prompt.get("id")
            try:
                request = self._make(prompt)
                refused = _too_large(request)
            except ValueError as error:
                refused = StructattnError("INVALID_ARGUMENT", str(error))
            if refused is not None:
                self._unsendable.append(BatchResult(index, own_id, error=refused))
                continue
            # Prompts' own ids may be missing or repeat.
            request.request_id = f"{index}:{own_id}"[:MAX_ID_CHARACTERS]
            self._ids[request.request_id] = (index, own_id)
            yield request

    def result_for(self, responses: list[api.GenerateBatchResponse]) -> BatchResult:
        index, own_id = self._ids.pop(responses[0].request_id)
        if responses[0].HasField("error"):
            status = responses[0].error
            code = next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
            return BatchResult(index, own_id, error=_from_status(code, status.message, status))
        generation = Generation()
        for response in responses:
            part = response.generated
            if part.HasField("started"):
                _begin(part.started, generation)
            generation._add(_to_chunk(part.chunk))
        _finish(responses[-1].generated.finished, generation)
        return BatchResult(index, own_id, generation)

    def unsendable(self, before: float = math.inf) -> Iterator[BatchResult]:
        """Prompts that could not be made into requests, each once."""
        while self._unsendable and self._unsendable[0].index < before:
            yield self._unsendable.pop(0)


class Client:
    """Thread-safe; use as a context manager or call close()."""

    def __init__(self, address: str = "127.0.0.1:50051", model: str = ""):
        """address is HOST:PORT; model is needed only when the server has several."""
        self._model = model
        options = [("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
                   ("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 20_000)]
        if address.startswith(("127.", "localhost:", "[::1]")):
            options.append(("grpc.enable_http_proxy", 0))  # No proxy reaches these addresses.
        self._channel = grpc.insecure_channel(address, options=options)
        self._inference = inference_service_pb2_grpc.InferenceServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def generate(self, prompt: Mapping[str, Any] | types.Prompt, **options: Any) -> Generation:
        """The whole answer. For options see stream()."""
        generation = Generation()
        for _ in self.stream(prompt, into=generation, **options):
            pass
        return generation

    def stream(self, prompt: Mapping[str, Any] | types.Prompt, *,
               into: Generation | None = None, **options: Any) -> Iterator[Chunk]:
        """Yields chunks as they come; leaving the loop cancels the request on the server.

        options are the fields of Sampling (temperature, top_k, seed, ...), of Stopping (max_tokens,
        stop_strings, ...), request_id, generated_group, timeout_ms, model, top_logprobs and cache
        ({"bypass": True} or {"salt": "..."}); usage.cached_tokens says what the cache saved.
        into also receives everything, in the end with finish_reason, usage and timings.
        Raises StructattnError when the server refuses or fails, TypeError for unknown options.
        """
        into = Generation() if into is None else into
        call = self._inference.Generate(self._request(prompt, options))
        try:
            for response in call:
                event = response.WhichOneof("event")
                if event == "started":
                    _begin(response.started, into)
                elif event == "chunk":
                    chunk = _to_chunk(response.chunk)
                    into._add(chunk)
                    yield chunk
                elif event == "finished":
                    _finish(response.finished, into)
        except grpc.RpcError as error:
            raise _to_error(error) from None
        finally:
            call.cancel()

    def generate_batch(self, prompts: Iterable[Mapping[str, Any] | types.Prompt], *,
                       order: str = "input", max_in_flight: int = 0,
                       **options: Any) -> Iterator[BatchResult]:
        """Yields a result for each prompt, over one stream; leaving the loop cancels the rest.

        prompts may be a generator: it is pulled on another thread, as fast as results are taken.
        order is "input" or "as_finished". max_in_flight, 1..1024, bounds what the server works on;
        0 is its default. For options see stream(); request_id is not one of them.
        A prompt that is refused or fails has its error in its result, and the others go on. When the
        connection breaks, what has no answer is asked again; StructattnError when that does not
        help.
        """
        if "request_id" in options:
            raise TypeError("request_id: generate_batch() makes the ids")
        choice = api.BatchOptions(order=f"BATCH_ORDER_{order.upper()}",
                                  max_in_flight=max_in_flight)
        requests = _BatchRequests(prompts, lambda prompt: self._request(prompt, dict(options)))
        try:
            for responses in batch.answers(self._inference.GenerateBatch, iter(requests), choice):
                result = requests.result_for(responses)
                yield from requests.unsendable(before=result.index)
                yield result
        except grpc.RpcError as error:
            raise _to_error(error) from None
        yield from requests.unsendable()

    def inspect(self, prompt: Mapping[str, Any] | types.Prompt, model: str = "") -> Inspection:
        """Tokens, groups, positions and visibility; nothing is generated."""
        request = api.InspectRequest(model=model or self._model, prompt=to_proto(prompt))
        try:
            response = self._inference.Inspect(request)
        except grpc.RpcError as error:
            raise _to_error(error) from None
        tokens = [Token(token.id, token.bytes, token.segment, token.group, token.position)
                  for token in response.tokens]
        return Inspection(tokens, [list(row.groups) for row in response.visible],
                          response.visible_pairs, response.causal_pairs)

    def models(self) -> list[model_service_pb2.Model]:
        """The models that the server has loaded, by name."""
        try:
            return list(self._models.ListModels(model_service_pb2.ListModelsRequest()).models)
        except grpc.RpcError as error:
            raise _to_error(error) from None

    def _request(self, prompt: Any, options: dict[str, Any]) -> api.GenerateRequest:
        request = api.GenerateRequest(model=options.pop("model", self._model),
                                      prompt=to_proto(prompt))
        request.output.echo = True
        request.output.top_logprobs = options.pop("top_logprobs", 0)
        groups = {"sampling": {}, "stopping": {}, "request": {}}
        for name, value in options.items():
            kind = ("sampling" if name in SAMPLING_FIELDS else
                    "stopping" if name in STOPPING_FIELDS else
                    "request" if name in REQUEST_FIELDS else None)
            if kind is None:
                raise TypeError(f"unknown option {name!r}")
            groups[kind][name] = value
        request.sampling.MergeFrom(types.Sampling(**groups["sampling"]))
        request.stopping.MergeFrom(types.Stopping(**groups["stopping"]))
        request.MergeFrom(api.GenerateRequest(**groups["request"]))
        return request
