"""Who runs in the next step: prompts in chunks, samples that branch off their prompt, and everyone who
decodes.

Knows no tensor. First come, first served; whoever came last gives up its blocks when there are none left, and
is computed anew later. Finished rows are replaced at once (continuous batching: Orca, OSDI 2022; chunked
prefill: Sarathi, arXiv 2308.16369).
"""

from bisect import insort
from dataclasses import dataclass, field

from groschen.engine.blocks import BlockPool, Digest, blocks_for, digests
from groschen.engine.sequence import Prompt, Sequence, Status
from groschen.engine.speculation import FEW_ROWS, Lookup
from groschen.errors import DoesNotFit
from groschen.model.kvcache import KEYS_PER_BLOCK


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens first .. last - 1 of a prompt, and where they go: the prompt may have left its row before the
    step runs.
    """

    prompt: Prompt
    first: int
    last: int
    row: int
    blocks: list[int]


@dataclass(frozen=True, slots=True)
class Branch:
    """A sample that draws its first token from the last position of its prompt."""

    sequence: Sequence
    prompt: Prompt
    copied_block: (
        tuple[int, int] | None
    )  # from the prompt's half-filled block to its own, after this step's forward


@dataclass(slots=True)
class Plan:
    """One step."""

    decodes: list[Sequence] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Nothing can be done."""
        return not (self.decodes or self.chunks or self.branches)


class Scheduler:
    """Hands out rows and blocks.

    max_rows: samples that decode together; as many prompts again may be in preparation. chunk_tokens: prompt
    tokens of one step. speculate: the most tokens that are guessed of one sample and step. has_prefix_cache:
    whether a prompt may share what others wrote before it.
    """

    def __init__(
        self,
        pool: BlockPool,
        max_rows: int,
        chunk_tokens: int,
        speculate: int = 0,
        *,
        has_prefix_cache: bool = True,
    ) -> None:
        self._pool, self._max_rows, self._chunk_tokens = pool, max_rows, chunk_tokens
        self._speculate, self._has_prefix_cache = speculate, has_prefix_cache
        self._free_rows = list(range(2 * max_rows - 1, -1, -1))
        self._queue: list[Prompt] = []  # without blocks, by arrival
        self._prompts: list[Prompt] = []  # with blocks, by arrival
        self._running: list[Sequence] = []  # by arrival
        self.salt = b""
        self.num_preemptions = 0

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self._queue or self._prompts or self._running)

    @property
    def num_running(self) -> int:
        """Samples that decode."""
        return len(self._running)

    def add(self, prompt: Prompt) -> None:
        """Queue a prompt. Raises DoesNotFit if it could not run even alone."""
        longest = max(len(s.prompt_ids) + s.max_tokens for s in prompt.waiting)
        if blocks_for(longest) > self._pool.num_blocks:
            have = self._pool.num_blocks * KEYS_PER_BLOCK
            raise DoesNotFit(
                f"prompt and completion may take {longest} tokens, the cache holds {have}; lower max_tokens "
                "or give the engine more memory"
            )
        insort(self._queue, prompt, key=lambda p: p.arrival)

    def schedule(self) -> Plan:
        """Decide the next step and take the blocks that it needs."""
        plan = Plan()
        for sequence in list(self._running):
            if sequence.status is Status.RUNNING and self._grow(
                sequence.blocks, sequence.num_tokens, sequence
            ):
                plan.decodes.append(sequence)
        plan.decodes = [
            s for s in plan.decodes if s.status is Status.RUNNING
        ]  # a later one may have been pre-empted
        self._plan_chunks(plan)
        self._plan_branches(plan)
        while (
            plan.is_empty and len(self._prompts) > 1
        ):  # prompts hold every block and none of their samples can begin
            self._step_back(self._prompts[-1])
            self._plan_branches(plan)
        if self._speculate and len(plan.decodes) <= FEW_ROWS:
            for sequence in plan.decodes:
                self._plan_draft(sequence)
        return plan

    def _plan_draft(self, sequence: Sequence) -> None:
        """Guess what comes next, with blocks that nobody else asks for; a guess is cut where they end."""
        if sequence.lookup is None:
            sequence.lookup = Lookup(self._speculate)
        lookup = sequence.lookup
        lookup.extend(sequence.ids_from(lookup.num_tokens))
        left = sequence.max_tokens - len(sequence.token_ids) - 1  # the step draws one token in any case
        draft = lookup.guess(left)
        while len(sequence.blocks) < blocks_for(sequence.num_tokens + len(draft)):
            block = self._pool.take()
            if block is None:
                draft = draft[: len(sequence.blocks) * KEYS_PER_BLOCK - sequence.num_tokens]
            else:
                sequence.blocks.append(block)
        sequence.draft = draft

    def _plan_chunks(self, plan: Plan) -> None:
        budget = self._chunk_tokens
        for prompt in list(self._prompts):
            budget -= self._plan_chunk(plan, prompt, budget)
        while budget > 0 and self._queue and len(self._prompts) < self._max_rows and self._has_room(plan):
            prompt = self._queue[0]
            if not self._admit(prompt):
                break
            budget -= self._plan_chunk(plan, prompt, budget)

    def _has_room(self, plan: Plan) -> bool:
        """Whether another prompt is worth preparing: its samples would find a row soon."""
        ready = sum(len(prompt.waiting) for prompt in self._prompts)
        return len(plan.decodes) + ready < self._max_rows

    def _plan_chunk(self, plan: Plan, prompt: Prompt, budget: int) -> int:
        count = min(budget, len(prompt.token_ids) - prompt.num_computed)
        if count > 0:
            first, last = prompt.num_computed, prompt.num_computed + count
            plan.chunks.append(Chunk(prompt, first, last, prompt.row, list(prompt.blocks)))
            prompt.num_computed += count
        return max(count, 0)

    def _admit(self, prompt: Prompt) -> bool:
        """Give a queued prompt a row and all its blocks, shared ones first. Leaves one block for each running
        row.
        """
        found = self._find(prompt)
        for block in found:
            self._pool.share(block)
        missing = blocks_for(len(prompt.token_ids)) - len(found)
        reserve = len(self._running) if self._running or self._prompts else 0
        if missing + reserve > self._pool.num_free:
            for block in found:
                self._pool.release(block)
            return False
        prompt.blocks = found + [self._taken() for _ in range(missing)]
        prompt.num_cached = prompt.num_computed = len(found) * KEYS_PER_BLOCK
        prompt.row = self._free_rows.pop()
        self._queue.remove(prompt)
        insort(self._prompts, prompt, key=lambda p: p.arrival)
        return True

    def _find(self, prompt: Prompt) -> list[int]:
        """Blocks that hold the front of a prompt already. Its last token is computed in any case."""
        found: list[int] = []
        if self._has_prefix_cache and not prompt.wants_logprobs:
            for digest in self._digests(prompt)[: (len(prompt.token_ids) - 1) // KEYS_PER_BLOCK]:
                block = self._pool.find(digest)
                if block is None:
                    break
                found.append(block)
        return found

    def _digests(self, prompt: Prompt) -> list[Digest]:
        """Of its full blocks, made once: a prompt that finds no room asks at every step."""
        if prompt.digests is None:
            prompt.digests = digests(prompt.token_ids, self.salt)
        return prompt.digests

    def _taken(self) -> int:
        block = self._pool.take()
        assert block is not None, "blocks were counted before they were taken"
        return block

    def _plan_branches(self, plan: Plan) -> None:
        for prompt in list(self._prompts):
            if not prompt.is_computed:
                continue
            while prompt.waiting and len(self._running) < self._max_rows:
                if not self._branch(plan, prompt):
                    break
            if not prompt.waiting:
                self._drop(prompt)

    def _branch(self, plan: Plan, prompt: Prompt) -> bool:
        """Let one sample leave its prompt: full blocks are shared, a half-filled one is copied, by the last
        one taken over.
        """
        num_full, is_last = len(prompt.token_ids) // KEYS_PER_BLOCK, len(prompt.waiting) == 1
        blocks, copied = prompt.blocks[:num_full], None
        if len(prompt.token_ids) % KEYS_PER_BLOCK:
            half = prompt.blocks[num_full]
            own = half if is_last else self._pool.take()
            if own is None and (self._running or len(self._prompts) > 1):
                return False
            if (
                own is None
            ):  # alone, and not even one block is left: the other samples compute the prompt again
                self.add(Prompt(list(prompt.token_ids), prompt.waiting[1:], prompt.arrival))
                prompt.waiting, is_last, own = prompt.waiting[:1], True, half
            copied = None if is_last else (half, own)
            blocks = [*blocks, own]
            if is_last:
                self._pool.share(half)
        for block in blocks[:num_full]:
            self._pool.share(block)
        sequence = prompt.waiting.pop(0)
        sequence.blocks, sequence.row, sequence.status = blocks, self._free_rows.pop(), Status.RUNNING
        if not sequence.token_ids:
            sequence.cached_tokens = prompt.num_cached
        insort(self._running, sequence, key=lambda s: (s.arrival, s.sample))
        plan.branches.append(Branch(sequence, prompt, copied))
        return True

    def _grow(self, blocks: list[int], num_tokens: int, owner: Sequence) -> bool:
        """Blocks for this many positions.

        False if the owner itself was the last to come and had to give way.
        """
        while len(blocks) < blocks_for(num_tokens):
            block = self._pool.take()
            if block is not None:
                blocks.append(block)
            elif self._preempt() is owner:
                return False
        return True

    def _preempt(self) -> Sequence | Prompt:
        """Whoever came last gives up its row and blocks and waits again."""
        last_sequence = self._running[-1]
        last_prompt = self._prompts[-1] if self._prompts else None
        self.num_preemptions += 1
        if last_prompt is not None and last_prompt.arrival >= last_sequence.arrival:
            self._step_back(last_prompt)
            return last_prompt
        self.retire(last_sequence)
        last_sequence.status = Status.WAITING
        again = Prompt(last_sequence.all_ids(), [last_sequence], last_sequence.arrival)
        insort(self._queue, again, key=lambda p: p.arrival)
        return last_sequence

    def _step_back(self, prompt: Prompt) -> None:
        """A prompt gives up what it has computed and queues again."""
        self._drop(prompt)
        prompt.num_computed, prompt.last_hidden = 0, None
        insort(self._queue, prompt, key=lambda p: p.arrival)

    def ran(self, plan: Plan) -> None:
        """The step has written its keys and values: prompts that it completed can be found from here on."""
        for chunk in plan.chunks:
            if chunk.last == len(chunk.prompt.token_ids):
                self._remember(self._digests(chunk.prompt), chunk.blocks)

    def reset(self) -> None:
        """Everybody leaves in the middle of a step, whatever it has done to them so far. What earlier steps
        have written can still be found.
        """
        self._queue, self._prompts, self._running = [], [], []
        self._free_rows = list(range(2 * self._max_rows - 1, -1, -1))
        self._pool.release_all()

    def retire(self, sequence: Sequence) -> None:
        """Take a running sequence's row and blocks back; its full blocks stay findable."""
        self._running.remove(sequence)
        self._free_rows.append(sequence.row)
        self._remember(digests(sequence.all_ids()[: sequence.num_computed], self.salt), sequence.blocks)
        self._release(sequence.blocks)

    def abort(self, request: int) -> list[Sequence]:
        """Forget a request wherever it is. Returns the sequences that had not finished."""
        gone = [s for s in self._running if s.request == request]
        for sequence in gone:
            self.retire(sequence)
        for prompt in (*self._queue, *self._prompts):
            leaving = [s for s in prompt.waiting if s.request == request]
            gone += leaving
            prompt.waiting = [s for s in prompt.waiting if s.request != request]
            if leaving and not prompt.waiting:
                self._drop(prompt)
        return gone

    def _drop(self, prompt: Prompt) -> None:
        """Out of the queue, or out of its row and blocks."""
        if prompt in self._queue:
            self._queue.remove(prompt)
            return
        self._prompts.remove(prompt)
        self._free_rows.append(prompt.row)
        self._release(prompt.blocks)

    def _remember(self, found: list[Digest], blocks: list[int]) -> None:
        for digest, block in zip(found, blocks, strict=False):  # the last block may not be full
            self._pool.remember(block, digest)

    def _release(self, blocks: list[int]) -> None:
        for block in reversed(blocks):  # who needs room takes the end of a text before its front
            self._pool.release(block)
        blocks.clear()
