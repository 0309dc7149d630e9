"""The engines' thread: what it hands on, what it gives up, and that nothing waits for ever."""

import asyncio
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from groschen.engine.open import open_engine
from groschen.errors import BadFile, DoesNotFit, UsageError
from groschen.records import Completion, FinishReason, Request, SamplingParams
from groschen.runs.checkpoints import Checkpoints
from groschen.serve import host as host_module
from groschen.serve import served as served_module
from groschen.serve.engines import HostConfig
from groschen.serve.faults import ApiFault
from groschen.serve.host import Host
from groschen.serve.served import Served, Wanted, wanted_models
from groschen.serve.ticket import Ticket
from serve.serving import PENNY

PROMPT = tuple(range(20, 60))
FOLDER = Path(served_module.__file__).parents[1] / "penny"


def request(seed: int = 0, max_tokens: int = 12, n: int = 1, prompt: tuple[int, ...] = PROMPT) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens, seed=seed, ignore_end=True)
    return Request(prompt_ids=prompt, sampling=sampling, num_completions=n)


def run(
    work: Callable[[Host], Awaitable[None]],
    wanted: tuple[Wanted, ...] = (PENNY,),
    config: HostConfig | None = None,
) -> None:
    """Start a host, wait for its models, do the work, stop it."""

    async def whole() -> None:
        host = Host(wanted, config)
        host.start()
        try:
            await asyncio.wait_for(host.settled.wait(), 60)
            await asyncio.wait_for(work(host), 60)
        finally:
            await asyncio.wait_for(host.stop(0.0), 20)

    asyncio.run(whole())


async def collect(ticket: Ticket) -> list[Completion]:
    found = {}
    while new := await ticket.take():
        found.update({each.sample: each.completion for each in new if each.completion is not None})
    return [found[sample] for sample in sorted(found)]


async def emptied(host: Host) -> bool:
    """Whether every engine gets idle, with all of its cache free."""
    for _ in range(500):
        engines = [each.opened.engine for each in host.models]
        if all(each.is_idle and each.pool.num_free == each.pool.num_blocks for each in engines):
            return True
        await asyncio.sleep(0.01)
    return False


def test_a_ticket_brings_what_the_engine_draws_on_its_own() -> None:
    expected = open_engine("penny").engine.generate([request(3, n=2)])[0]

    async def work(host: Host) -> None:
        others = [await host.submit("penny", request(seed)) for seed in range(10, 20)]
        ticket = await host.submit("penny", request(3, n=2))
        found = await collect(ticket)
        assert [each.token_ids for each in found] == [each.token_ids for each in expected]
        assert [each.logprobs for each in found] == [each.logprobs for each in expected]
        assert ticket.num_tokens == 24 and ticket.reasons == [FinishReason.LENGTH] * 2
        for other in others:
            await collect(other)

    run(work)


@pytest.mark.parametrize("moment", ["queued", "after the first token", "before it was accepted"])
def test_a_cancelled_ticket_leaves_no_row_and_no_block(moment: str) -> None:
    async def work(host: Host) -> None:
        long = [await host.submit("penny", request(seed, 900)) for seed in range(4)]
        if moment == "before it was accepted":
            task = asyncio.create_task(host.submit("penny", request(9, 900)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if moment == "after the first token":
            await long[0].take()
        for ticket in long:
            ticket.cancel()
        assert host.tickets == () and host.queue_depth == host.num_running == 0
        assert await emptied(host)
        assert len(await collect(await host.submit("penny", request()))) == 1

    run(work, config=HostConfig(max_rows=2))


def test_a_long_prompt_can_be_cancelled_while_it_is_read() -> None:
    async def work(host: Host) -> None:
        tickets = [await host.submit("penny", request(0, 1, prompt=tuple([7 + i] * 1000))) for i in range(8)]
        assert not all(ticket.has_begun for ticket in tickets)
        for ticket in tickets:
            ticket.cancel()
        assert await emptied(host)

    run(work, config=HostConfig(chunk_tokens=64))


def test_cancelling_one_ticket_leaves_the_others_as_they_were() -> None:
    expected = open_engine("penny").engine.generate([request(5, 60)])[0][0]

    async def work(host: Host) -> None:
        tickets = [await host.submit("penny", request(seed, 60)) for seed in range(8)]
        for seed in (0, 1, 2, 7):
            tickets[seed].cancel()
        assert (await collect(tickets[5]))[0].token_ids == expected.token_ids

    run(work)


class Panic(BaseException):
    """As one in Rust arrives: no Exception."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
def test_an_engine_that_fails_ends_its_tickets_and_says_why(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    async def work(host: Host) -> None:
        open_now = [await host.submit("penny", request(seed, 900)) for seed in range(3)]

        def broken() -> None:
            raise kind("out of thin air")

        monkeypatch.setattr(host.models[0].opened.engine, "step", broken)
        for ticket in open_now:
            with pytest.raises(ApiFault, match="out of thin air") as raised:
                await collect(ticket)
            assert raised.value.status == 503 and raised.value.error.code == "engine_dead"
        assert host.state == "dead" and host.tickets == ()
        with pytest.raises(ApiFault, match="out of thin air"):
            await host.submit("penny", request())

    run(work)


def test_one_dead_engine_does_not_take_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(host: Host) -> None:
        def broken() -> None:
            raise RuntimeError("gone")

        monkeypatch.setattr(host.served("first").opened.engine, "step", broken)
        with pytest.raises(ApiFault):
            await collect(await host.submit("first", request()))
        assert len(await collect(await host.submit("second", request()))) == 1

    run(work, (Wanted(name="first", source="penny"), Wanted(name="second", source="penny")))


def test_two_models_are_drawn_from_side_by_side() -> None:
    async def work(host: Host) -> None:
        tickets = [await host.submit(name, request(4, 40)) for name in ("first", "second")]
        found = [(await collect(ticket))[0].token_ids for ticket in tickets]
        assert found[0] == found[1]
        assert [served.name for served in host.models] == ["first", "second"]

    run(work, (Wanted(name="first", source="penny"), Wanted(name="second", source="penny")))


def test_models_whose_weights_do_not_fit_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module.machine, "free_memory_bytes", lambda device: 20_000_000)
    wanted = [Wanted(name="first", source="penny"), Wanted(name="second", source="penny")]
    with pytest.raises(DoesNotFit, match="serve fewer or smaller models"):
        served_module.cache_bytes(wanted)


def test_a_model_that_cannot_be_opened_is_told_and_nothing_hangs() -> None:
    async def work(host: Host) -> None:
        assert host.state == "dead" and isinstance(host.failure, BadFile)
        with pytest.raises(ApiFault, match="there is no model"):
            await host.submit("nothing", request())

    run(work, (Wanted(name="nothing", source="/nowhere/at-all"),))


def test_stopping_lets_open_requests_end_and_takes_no_new_ones() -> None:
    async def work(host: Host) -> None:
        ticket = await host.submit("penny", request(0, 100))
        stopping = asyncio.create_task(host.stop(30))
        await asyncio.sleep(0)
        with pytest.raises(ApiFault, match="shutting down") as raised:
            await host.submit("penny", request())
        assert raised.value.status == 503
        assert len((await collect(ticket))[0].token_ids) == 100
        await stopping

    run(work)


def test_stopping_lets_work_that_has_begun_go_on() -> None:
    async def work(host: Host) -> None:
        async def embed() -> list[int]:
            with host.working():
                return [await host.run("penny", lambda engine: engine.policy_version) for _ in range(20)]

        begun = asyncio.create_task(embed())
        await asyncio.sleep(0)
        stopping = asyncio.create_task(host.stop(30))
        await asyncio.sleep(0)
        with pytest.raises(ApiFault, match="shutting down"):
            await embed()
        assert await begun == [0] * 20
        await stopping

    run(work)


def test_what_waits_for_the_text_thread_after_the_time_to_stop_ends_with_503() -> None:
    async def work(host: Host) -> None:
        goes_on = threading.Event()
        tasks = [asyncio.create_task(host.prepare(goes_on.wait, 30)) for _ in range(2)]
        await asyncio.sleep(0)
        await host.stop(0.0)
        for task in tasks:
            with pytest.raises(ApiFault, match="shut down") as raised:
                await task
            assert raised.value.status == 503
        goes_on.set()

    run(work)


def test_work_between_steps_lets_the_engine_make_its_steps() -> None:
    async def work(host: Host) -> None:
        ticket = await host.submit("penny", request())

        async def interrupt() -> None:
            while not ticket.has_ended:
                await host.run("penny", lambda _: time.sleep(0.002))

        await asyncio.wait_for(asyncio.gather(*(interrupt() for _ in range(4))), 10)

    run(work)


def test_what_is_open_after_the_time_to_stop_ends_with_503() -> None:
    async def work(host: Host) -> None:
        tickets = [await host.submit("penny", request(seed, 900)) for seed in range(64)]
        await host.stop(0.01)
        for ticket in tickets:
            with pytest.raises(ApiFault, match="shut down") as raised:
                await collect(ticket)
            assert raised.value.status == 503

    run(work)


def test_what_the_engine_refuses_is_a_400() -> None:
    async def work(host: Host) -> None:
        with pytest.raises(ApiFault, match="not in the vocabulary") as raised:
            await host.submit("penny", request(prompt=(1, 100_000)))
        assert raised.value.status == 400 and host.tickets == ()

    run(work)


# -- change of weights
# --------------------------------------------------------------------------------------------------------


def write_penny(folder: Path, scale: float) -> None:
    """A copy of penny whose last norm is scaled, so that it draws other tokens."""
    for path in FOLDER.iterdir():
        if path.name != "model.safetensors":
            shutil.copy(path, folder / path.name)
    tensors = load_file(FOLDER / "model.safetensors")
    tensors["model.norm.weight"] = (tensors["model.norm.weight"].float() * scale).to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def followed(tmp_path: Path) -> Path:
    """A run with one checkpoint."""
    Checkpoints(tmp_path).save(1, lambda folder: write_penny(folder, 1.0))
    return tmp_path


def test_new_weights_wait_for_open_requests_and_new_requests_for_them(followed: Path) -> None:
    old = open_engine("penny").engine.generate([request(1, 200)])[0][0]
    newer = Checkpoints(followed).save(2, lambda folder: write_penny(folder, 0.2)).folder
    new = open_engine(str(newer)).engine.generate([request(1, 200)])[0][0]
    assert new.token_ids != old.token_ids
    shutil.move(newer, followed / "later")

    async def work(host: Host) -> None:
        served = host.models[0]
        before = served.fingerprint
        assert served.step == 1 and served.newer() is None
        early = await host.submit("run", request(1, 200))
        shutil.move(followed / "later", newer)
        host.change_weights("run", served.newer() or newer)
        late = await host.submit("run", request(1, 200))
        assert early.has_ended, "the later one was accepted while the earlier one was drawn"
        assert (await collect(early))[0].token_ids == old.token_ids
        assert (await collect(late))[0].token_ids == new.token_ids
        assert early.fingerprint == before != late.fingerprint == served.fingerprint
        assert served.step == 2 and served.newer() is None

    run(work, (Wanted(name="run", source=str(followed), follows=True),))


def test_a_damaged_checkpoint_is_never_taken(followed: Path) -> None:
    async def work(host: Host) -> None:
        folder = Checkpoints(followed).save(2, lambda folder: write_penny(folder, 0.2)).folder
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-7])
        assert host.models[0].newer() is None
        assert host.models[0].step == 1

    run(work, (Wanted(name="run", source=str(followed), follows=True),))


def test_a_run_that_cannot_be_read_for_a_while_is_still_followed(
    followed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = Served.newer
    faults = [OSError("stale")] * 3
    said: list[object] = []

    def unsteady(served: Served) -> Path | None:
        if faults:
            raise faults.pop()
        return newer(served)

    async def work(host: Host) -> None:
        Checkpoints(followed).save(2, lambda folder: write_penny(folder, 0.2))
        while host.models[0].step != 2:
            await asyncio.sleep(0.01)

    monkeypatch.setattr(host_module, "_WATCH_S", 0.01)
    monkeypatch.setattr(Served, "newer", unsteady)
    monkeypatch.setattr(host_module.log, "warning", lambda *args: said.append(args))
    run(work, (Wanted(name="run", source=str(followed), follows=True),))
    assert len(said) == 1, "once, and not at every look"


def test_weights_that_turn_out_to_be_unfit_leave_the_old_ones_in_service(
    followed: Path, tmp_path: Path
) -> None:
    old = open_engine("penny").engine.generate([request(1)])[0][0]

    async def work(host: Host) -> None:
        bad = tmp_path / "bad"
        bad.mkdir()
        write_penny(bad, float("nan"))
        before = host.models[0].fingerprint
        host.change_weights("run", bad)
        assert (await collect(await host.submit("run", request(1))))[0].token_ids == old.token_ids
        assert host.models[0].fingerprint == before and host.state == "ready"

    run(work, (Wanted(name="run", source=str(followed), follows=True),))


# -- the command line's words
# --------------------------------------------------------------------------------------------------------


def test_names_go_with_the_models_in_their_order(tmp_path: Path) -> None:
    wanted = wanted_models(["penny", str(tmp_path)], ["small"], follows=False)
    assert [each.name for each in wanted] == ["small", tmp_path.name]


@pytest.mark.parametrize(
    ("sources", "names", "follows", "word"),
    [
        ([], [], False, "which model"),
        (["penny", "penny"], [], False, "'penny'"),
        (["penny"], ["a", "b"], False, "2 names for 1 models"),
        (["penny"], [], True, "--follow"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    sources: list[str], names: list[str], follows: bool, word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        wanted_models(sources, names, follows=follows)
