"""Vectors of texts: against the plain forward, alone and in company, and over HTTP."""

import asyncio
import base64
import http.client
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import groupby

import numpy as np
import openai
import pytest
import torch

from groschen.engine.engine import Engine
from groschen.model.kvcache import Rows
from groschen.records import Request, SamplingParams
from groschen.serve.embeddings import EmbeddingsRequest, Mean, _embed
from groschen.serve.host import Host
from serve.serving import Server
from serve.test_host import run
from tiny import FAMILIES, tiny_engine, tiny_model


def vector_of(engine: Engine, ids: list[int]) -> torch.Tensor:
    mean = Mean(ids)
    while not mean.is_whole:
        mean.go_on(engine)
    return mean.vector()


def ids_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 2, 17, 100])
def test_a_vector_is_the_mean_of_the_last_hidden_states_of_length_1(family: str, length: int) -> None:
    engine = tiny_engine(tiny_model(family), chunk_tokens=32)
    model, ids = engine.model, ids_of(length)
    rows = Rows.of_sequences([length], model.device)
    with torch.inference_mode():
        hidden_ND = model(torch.tensor(ids), rows, model.new_cache(10))
    mean_D = hidden_ND.double().mean(0)
    expected = (mean_D / mean_D.norm()).numpy()
    found = vector_of(engine, ids).numpy()
    assert found.dtype == np.float32 and abs(float(np.linalg.norm(found)) - 1) < 1e-6
    # The hidden states are the same bits; only their sum is grouped otherwise.
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_vector_has_the_same_bits_while_others_are_drawn() -> None:
    engine, ids = tiny_engine(chunk_tokens=16), ids_of(70)
    alone = vector_of(engine, ids)
    request = Request(prompt_ids=(1, 2, 3), sampling=SamplingParams(max_tokens=30, seed=1, ignore_end=True))
    (expected,) = tiny_engine().generate([request])[0]
    engine.add(request)
    mean, texts = Mean(ids), []
    while not mean.is_whole:
        mean.go_on(engine)
        texts += engine.step()
    while not engine.is_idle:
        texts += engine.step()
    assert torch.equal(mean.vector(), alone)
    assert texts[-1].completion is not None and texts[-1].completion.token_ids == expected.token_ids


# -- over HTTP


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_client_gets_a_vector_for_each_text_in_order(server: Server, client: openai.OpenAI) -> None:
    texts = ["Make 24 from 2, 3 and 4.", "5 + 7", "Make 25 from 2, 3 and 4."]
    answer = client.embeddings.create(model="penny", input=texts)  # asks for base64 by itself
    width = server.host.models[0].opened.engine.model.config.width
    assert [each.index for each in answer.data] == [0, 1, 2] and answer.object == "list"
    vectors = [np.array(each.embedding) for each in answer.data]
    assert all(len(each) == width and math.isclose(np.linalg.norm(each), 1, abs_tol=1e-5) for each in vectors)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1], "the two puzzles are more alike"
    for text, vector in zip(texts, vectors, strict=True):
        alone = client.embeddings.create(model="penny", input=text).data[0].embedding
        assert alone == vector.tolist(), "the company can't be seen in the bits"


def test_numbers_and_base64_say_the_same(server: Server) -> None:
    body = {"model": "penny", "input": "5 + 7"}
    numbers = server.post("/v1/embeddings", {**body, "encoding_format": "float"}).json()
    packed = server.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json()
    unpacked = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert np.array(numbers["data"][0]["embedding"], np.float32).tolist() == unpacked.tolist()
    assert numbers["usage"] == packed["usage"] and numbers["usage"]["total_tokens"] > 0


def test_token_ids_are_taken_as_they_are(server: Server) -> None:
    tokenizer = server.host.models[0].opened.text.tokenizer
    ids = tokenizer.encode("5 + 7", add_special=True, parse_special=False)
    bodies = [{"model": "penny", "input": each} for each in ("5 + 7", ids, [ids], ["5 + 7"])]
    found = [server.post("/v1/embeddings", body).json()["data"][0]["embedding"] for body in bodies]
    assert found[0] == found[1] == found[2] == found[3]


def test_the_width_is_the_only_dimension(server: Server) -> None:
    width = server.host.models[0].opened.engine.model.config.width
    body = {"model": "penny", "input": "a"}
    assert server.post("/v1/embeddings", {**body, "dimensions": width}).status == 200
    assert server.post("/v1/embeddings", {**body, "dimensions": 8}).error["param"] == "dimensions"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("", "input"),
        ([], "input"),
        (["a", ""], "input[1]"),
        ([1, "a"], "input"),
        ([[1, 2], []], "input[1]"),
        ([10**6], "input"),
        ([-1], "input"),
        ([1.5], "input[0]"),
        (None, "input"),
        (5, "input"),
        (["a"] * 2049, "input"),
        ("9 " * 5000, "input"),
    ],
)
def test_what_has_no_vector_is_named(server: Server, given: object, param: str) -> None:
    assert server.post("/v1/embeddings", {"model": "penny", "input": given}).error["param"] == param


class Reading:
    """Every chunk that is read, each a little slowly: its text, in the order of their beginnings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[Mean] = []
        go_on = Mean.go_on

        def slowly(mean: Mean, engine: Engine) -> int:
            self.texts.append(mean)
            time.sleep(0.02)
            return go_on(mean, engine)

        monkeypatch.setattr(Mean, "go_on", slowly)


def test_one_text_is_read_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch)
    body = {"model": "penny", "input": [7] * 1000}
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: server.post("/v1/embeddings", body), range(4)))
    assert [reply.status for reply in replies] == [200] * 4
    assert [len(list(chunks)) for _, chunks in groupby(reading.texts, key=id)] == [2] * 4


def test_clients_that_leave_let_the_next_text_be_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    Reading(monkeypatch)
    body = {"model": "penny", "input": [7] * 1000}
    for _ in range(3):
        with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
            connection.request("POST", "/v1/embeddings", json.dumps(body))
            time.sleep(0.01)
    assert server.post("/v1/embeddings", body).status == 200


def test_vectors_that_were_begun_are_finished_while_the_server_stops() -> None:
    async def work(host: Host) -> None:
        body = EmbeddingsRequest(model="penny", input=[[7] * 1000] * 5)
        begun = asyncio.create_task(_embed(host, body))
        await asyncio.sleep(0)
        await host.stop(30)
        assert len((await begun).data) == 5

    run(work)


def test_an_unknown_model_is_404(server: Server) -> None:
    assert server.post("/v1/embeddings", {"model": "m", "input": "a"}).error["code"] == "model_not_found"
