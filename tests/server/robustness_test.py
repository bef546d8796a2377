"""Odd, hostile and torn requests over real sockets: none may end the server or change an answer.

Collected by pytest (tests/run.sh); fixtures in tests/conftest.py. Which code each bad field gets is
tested field by field in tests/server/rpc; here the whole program must only stay up and true.
"""

import math
import random
import socket
import subprocess

import grpc
import pytest

import conftest
import serving
from serving import PATIENCE_S, wait_until

SEED = 20261123
REQUESTS = 200
GENERATE = "/structattn.v1.InferenceService/Generate"
# What a bad request may be told, by our code or by gRPC's own limits; never INTERNAL.
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.RESOURCE_EXHAUSTED}

INTS = (-2**31, -1, 0, 1, 2, 5, 62, 63, 64, 2047, 2048, 2**31 - 1)
FLOATS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 1e-45, 1e-30, 0.3, 1.0, 1.5, 100.0, 3e38)
TEXTS = ("", " ", "red", "What is red?\n", "\0", "\ufeff", "e\u0301" * 40, "\U0001f98a" * 9,
         "<|im_start|>", "<|im_end|>", "a" * 3000, " \n\t" * 200, "\u202e\u0645\u0631", "0" * 500)


@pytest.fixture(scope="module")
def own_server(bin_dir, small_model, tmp_path_factory):
    """Not the one that other tests share: this one is ill-treated."""
    log = tmp_path_factory.mktemp("robust") / "log"
    server = serving.Server(bin_dir, {"small": small_model}, log, ["--dtype", "float32"])
    yield server
    assert server.stop() == 0, server.log_text()[-3000:]


@pytest.fixture
def stub(structattn, own_server):
    with grpc.insecure_channel(own_server.address) as channel:
        yield structattn.v1.inference_service_pb2_grpc.InferenceServiceStub(channel)


@pytest.fixture
def unharmed(structattn, own_server):
    """After the test the server must answer what it answered before, to the last bit."""
    def ask():
        with structattn.Client(own_server.address) as client:
            answer = client.generate({"segments": [
                {"type": "question", "text": "What is red?", "paraphrase_index": 0},
                {"type": "answer_cue", "text": " It is"}]}, max_tokens=20, ignore_eos=True)
        return answer.token_ids, answer.logprobs, answer.text

    before = ask()
    yield
    assert own_server.process.poll() is None, own_server.log_text()[-3000:]
    assert ask() == before


def outcome(call, request):
    """The call's code; None when it is answered."""
    try:
        for _ in call(request, timeout=PATIENCE_S):
            pass
    except grpc.RpcError as error:
        return error.code()
    return None


class RequestMaker:
    """Requests of which about a third is sound; the rest is wrong somewhere."""

    def __init__(self, structattn, dice):
        self.dice = dice
        self.types = structattn.v1.types_pb2
        self.api = structattn.v1.inference_service_pb2

    def maybe(self, chance):
        return self.dice.random() < chance

    def make(self):
        request = self.api.GenerateRequest(prompt=self.prompt())
        if self.maybe(0.3):
            self.fill_sampling(request.sampling)
        request.stopping.max_tokens = self.dice.choice((1, 2, 5, 5, 5, 5, 5, 5, *INTS[:3]))
        if self.maybe(0.3):
            self.fill_stopping(request.stopping)
        if self.maybe(0.2):
            request.output.top_logprobs = self.dice.choice(INTS)
            request.generated_group = self.dice.choice((0, 0, 0, *INTS))
        if self.maybe(0.2):
            request.timeout_ms = self.dice.choice((-5, 0, 1, 50, 2**62, 2**63 - 1))
        if self.maybe(0.05):
            request.model = self.dice.choice(("small", "other", "../small", "x" * 5000, "\0"))
        return request

    def prompt(self):
        wild = self.maybe(0.3)
        prompt = self.types.Prompt(positions=self.dice.randrange(4 if wild else 3),
                                   tokenization=self.dice.randrange(4 if wild else 3))
        for _ in range(self.dice.choice((0, 1, 2, 3, 5, 8, 80)) if wild else 4):
            prompt.segments.append(self.segment(wild))
        if self.maybe(0.5):
            prompt.rule.preset = self.dice.randrange(6 if wild else 5)
        elif self.maybe(0.3):
            rows = self.dice.choice((0, 1, 3, 64, 65))
            prompt.rule.table.visible.extend(self.types.VisibleGroups(
                groups=[row, *self.dice.choices(INTS if wild else range(64), k=3)])
                for row in range(rows))
        return prompt

    def segment(self, wild):
        kind = self.dice.randrange(9) if wild else self.dice.choice((1, 2, 3, 4, 4, 5, 6))
        segment = self.types.Segment(type=kind, parse_special=self.maybe(0.3))
        if wild and self.maybe(0.3):
            segment.token_ids.ids.extend(self.dice.choices(INTS, k=self.dice.randrange(5)))
        elif not wild or self.maybe(0.9):
            segment.text = self.dice.choice(TEXTS)
        if kind == 4:
            segment.paraphrase_index = self.dice.choice(INTS if wild else range(63))
        if wild and self.maybe(0.2):
            segment.group = self.dice.choice(INTS)
        return segment

    def fill_sampling(self, sampling):
        names = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty",
                 "frequency_penalty")
        for name in self.dice.sample(names, 2):
            setattr(sampling, name, self.dice.choice(FLOATS))
        sampling.seed = self.dice.randrange(2**64)
        if self.maybe(0.3):
            sampling.top_k = self.dice.choice(INTS)
        if self.maybe(0.3):
            sampling.logit_bias[self.dice.choice(INTS)] = self.dice.choice(FLOATS)

    def fill_stopping(self, stopping):
        stopping.ignore_eos = self.maybe(0.5)
        stopping.stop_strings.extend(self.dice.choices(TEXTS, k=self.dice.choice((0, 1, 70))))
        stopping.stop_token_ids.extend(self.dice.choices(INTS, k=self.dice.randrange(3)))


def test_random_requests(structattn, stub, unharmed):
    print(f"seed {SEED}")
    maker = RequestMaker(structattn, random.Random(SEED))
    codes = []
    for number in range(REQUESTS):
        request = maker.make()
        codes.append(outcome(stub.Generate, request))
        assert codes[-1] in REFUSALS | {None}, f"request {number}: {codes[-1]}\n{request}"
        inspected = structattn.v1.inference_service_pb2.InspectRequest(prompt=request.prompt)
        code = outcome(lambda *args, **options: [stub.Inspect(*args, **options)], inspected)
        assert code in REFUSALS | {None}, f"request {number}: Inspect: {code}\n{request}"
    answered = codes.count(None)
    print(f"{answered} of {REQUESTS} answered")
    assert REQUESTS // 10 < answered < REQUESTS * 9 // 10, "the requests are all good or all bad"


def test_random_bytes_instead_of_a_request(structattn, own_server, unharmed):
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    maker = RequestMaker(structattn, dice)
    with grpc.insecure_channel(own_server.address) as channel:
        call = channel.unary_stream(GENERATE)  # Bytes as they are.
        for number in range(REQUESTS):
            request = maker.make()
            request.stopping.max_tokens = 2
            data = bytearray(request.SerializeToString())
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            # gRPC says UNIMPLEMENTED when protobuf refuses the bytes, invalid UTF-8 among them.
            code = outcome(call, bytes(data))
            assert code in REFUSALS | {None, grpc.StatusCode.UNIMPLEMENTED}, f"{number}: {code}"


def test_large_requests(structattn, stub, unharmed):
    types, api = structattn.v1.types_pb2, structattn.v1.inference_service_pb2

    def code_of(text="red", segments=1, **parts):
        prompt = types.Prompt(segments=[types.Segment(type=types.SEGMENT_TYPE_CONTEXT, text=text)
                                        for _ in range(segments)])
        return outcome(stub.Generate, api.GenerateRequest(prompt=prompt, **parts))

    bad, full = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert code_of(text="red " * (5 << 18)) == bad  # 5 MiB.
    assert code_of(text="r" * (17 << 20)) == full  # gRPC's own limit of 16 MiB.
    assert code_of(segments=200_000) == bad
    assert code_of(stopping=types.Stopping(stop_strings=["x"] * 10_000)) == bad
    assert code_of(stopping=types.Stopping(stop_strings=["x" * 10_000])) == bad
    assert code_of(stopping=types.Stopping(stop_token_ids=[1] * 1_000_000)) == bad
    bias = {token: 1.0 for token in range(2000)}
    assert code_of(sampling=types.Sampling(logit_bias=bias)) == bad
    assert code_of(request_id="x" * 100_000) == bad
    rows = [types.VisibleGroups(groups=[0] * 50_000) for _ in range(65)]
    prompt = types.Prompt(segments=[types.Segment(type=types.SEGMENT_TYPE_CONTEXT, text="red")],
                          rule=types.Rule(table=types.RuleTable(visible=rows)))
    assert outcome(stub.Generate, api.GenerateRequest(prompt=prompt)) == bad


def test_clients_that_vanish(bin_dir, own_server, unharmed):
    command = [bin_dir / "structattn", "generate", "--question", "What is red?", "--max-tokens",
               str(conftest.CONTEXT_LENGTH - 100), "--ignore-eos", "--server", own_server.address]
    before = len(own_server.log_events("request"))
    for _ in range(4):
        clients = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                    bufsize=0)
                   for _ in range(3)]
        assert clients[0].stdout.read(1)
        for client in clients:  # Some streaming, some waiting, some still connecting.
            client.kill()
            client.communicate()
    wait_until(lambda: "CANCELLED" in {event["code"] for event in
                                       own_server.log_events("request")[before:]})


def test_what_is_not_grpc(own_server, unharmed):
    host, port = own_server.address.rsplit(":", 1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    dice = random.Random(SEED)
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", preface[:9], preface, preface + b"\0" * 9,
                 preface + b"\xff" * 100, preface + dice.randbytes(5000), dice.randbytes(5000)):
        for abort in (False, True):
            with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
                if abort:  # RST instead of FIN.
                    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.sendall(data)
