"""A model that is served: its name, its engine, its text side, and which weights it holds at this moment.

A run folder is served by its best checkpoint; one that is followed is served by its newest, and takes a newer
one when that appears. Leaves out who calls the engine and when weights may change (`engines.py`).
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groschen import __version__, machine
from groschen.engine.engine import EngineConfig
from groschen.engine.memory import CACHE_SHARE
from groschen.engine.open import Opened, open_engine
from groschen.engine.sampling import LEAST_TEMPERATURE, check
from groschen.errors import BadFile, DoesNotFit, GroschenError, Unsupported, UsageError
from groschen.model.checkpoint import load_weights, open_checkpoint
from groschen.model.config import ModelConfig
from groschen.model.kvcache import KEYS_PER_BLOCK
from groschen.model.load import resident_bytes
from groschen.model.quantized import Weights
from groschen.records import Request, SamplingParams
from groschen.runs.checkpoints import Checkpoints, find_fault
from groschen.runs.manifest import NAME as MANIFEST
from groschen.serve.budget import ReasoningTags
from groschen.serve.forms.detect import form_of
from groschen.serve.forms.form import Form
from groschen.serve.grammar import Grammars
from groschen.text.tokenizer import Tokenizer

log = logging.getLogger("groschen.serve")

_MARK_BLOCKS, _MARK_BYTES = 64, 1 << 16  # of a weight file, spread evenly: what its fingerprint is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model as the command line asks for it."""

    name: str  # what clients call it
    source: str  # as for `open_checkpoint`
    follows: bool = False  # a run folder: take newer checkpoints


class Served:
    """One model in service. What may change is changed by the thread that owns the engine.

    fingerprint: names the weights and how they are computed with; it changes with them. context: tokens of
    prompt and completion together. defaults: how tokens are drawn unless a request says otherwise, from the
    model's generation_config.json. hidden_ids: special tokens whose text is nobody's affair. named_ids: text
    to id of the tokens that were added to the vocabulary whole, `<|im_start|>` or `</think>`.
    """

    def __init__(self, wanted: Wanted, opened: Opened, form: Form, checkpoint: Path, mode: Weights) -> None:
        self.wanted, self.opened, self.form, self.checkpoint = wanted, opened, form, checkpoint
        self.name = wanted.name
        self.mode = mode
        self.created = int(time.time())  # when these weights came into service, Unix seconds
        self.fingerprint = fingerprint(checkpoint, mode)
        config, pool = opened.engine.model.config, opened.engine.pool
        self.context = min(config.max_context, pool.num_blocks * KEYS_PER_BLOCK)
        self.defaults = _defaults(opened.text.generation, config.vocab_size)
        self.hidden_ids = _hidden_ids(opened.text.tokenizer, form)
        self.named_ids = _named_ids(opened.text.tokenizer)
        self._grammars: Grammars | None = None
        self._tags: ReasoningTags | None = None
        self._damaged: Path | None = None  # found so before: not read again

    def grammars(self) -> Grammars:
        """What compiles grammars for this vocabulary. Raises Unsupported where that can't be done."""
        if self._grammars is None:
            self._grammars = Grammars(self.opened.text.tokenizer, self.opened.engine.end_ids)
        return self._grammars

    def reasoning_tags(self) -> ReasoningTags:
        """The tags around the reasoning as tokens. Raises Unsupported where they can't be written."""
        if self._tags is None:
            opened, form = self.opened, self.form
            self._tags = ReasoningTags(
                opened.text.tokenizer, form.reasoning_open, form.reasoning_close, opened.engine.end_ids
            )
        return self._tags

    @property
    def step(self) -> int | None:
        """The number of updates behind the weights, where the checkpoint of a run is served."""
        _, dash, number = self.checkpoint.name.rpartition("step-")
        return int(number) if dash and number.isdecimal() else None

    def newer(self) -> Path | None:
        """A checkpoint to change to, whole; None if there is none. Reads files: not for the event loop."""
        if not self.wanted.follows:
            return None
        found = Checkpoints(Path(self.wanted.source).expanduser()).all()
        newest = found[-1].folder.resolve() if found else None
        if newest is None or newest in (self.checkpoint, self._damaged):
            return None
        fault = find_fault(newest)
        if fault is None:
            return newest
        self._damaged = newest
        log.warning("checkpoint %s is damaged (%s) and is not taken into service", newest, fault)
        return None

    def change_to(self, checkpoint: Path) -> None:
        """Load other weights into the same parameters; every cached prefix becomes unreachable.

        The engine must be idle. Raises GroschenError with the old weights in service, WeightsLostError if
        even they could not be loaded again.
        """
        model = self.opened.engine.model
        files = open_checkpoint(str(checkpoint))
        theirs, ours = ModelConfig.from_json(files.config), model.config
        if theirs != ours:
            raise BadFile(
                f"{checkpoint} is of another architecture than the model in service; restart to serve it"
            )
        try:
            load_weights(model.tensors(), files)
        except GroschenError as error:
            self._restore(error)
            raise
        finally:
            self.opened.engine.weights_changed(self.opened.engine.policy_version + 1)
        self.checkpoint, self.created = checkpoint, int(time.time())
        self.fingerprint = fingerprint(checkpoint, self.mode)

    def _restore(self, cause: GroschenError) -> None:
        try:
            load_weights(self.opened.engine.model.tensors(), open_checkpoint(str(self.checkpoint)))
        except GroschenError as error:
            raise WeightsLostError(f"{cause}; and the old weights are gone too: {error}") from error


class WeightsLostError(Exception):
    """A checkpoint broke while it was loaded over the weights in service, which could not be had back."""


def wanted_models(sources: Sequence[str], names: Sequence[str], *, follows: bool) -> tuple[Wanted, ...]:
    """What the command line asks for; names go with the sources in their order.

    Raises UsageError if there are more names than models or two have the same.
    """
    if not sources:
        raise UsageError("which model shall be served? Give at least one, such as: groschen serve penny")
    if len(names) > len(sources):
        raise UsageError(f"there are {len(names)} names for {len(sources)} models; give --name once for each")
    given = [*names, *map(_own_name, sources[len(names) :])]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two models would be called {twice!r}; give each its own --name, in their order")
    runs = [(Path(source).expanduser() / MANIFEST).is_file() for source in sources]
    if follows and not any(runs):
        raise UsageError("--follow is for the folder of a run; none of the models is one")
    return tuple(
        Wanted(name=name, source=source, follows=follows and is_run)
        for name, source, is_run in zip(given, sources, runs, strict=True)
    )


def open_served(wanted: Wanted, config: EngineConfig, mode: Weights = Weights.PLAIN) -> Served:
    """Open one model. Raises BadFile, Unsupported or DoesNotFit, each with one sentence."""
    source = wanted.source
    if wanted.follows:
        found = Checkpoints(Path(source).expanduser()).all()
        source = str(found[-1].folder) if found else source
    opened = open_engine(source, config=config, weights=mode)
    _warm(opened)
    served = Served(wanted, opened, form_of(opened.text), open_checkpoint(source).source.resolve(), mode)
    with suppress(Unsupported):  # a request that needs a grammar is told
        served.grammars().prepare()
    return served


def _warm(opened: Opened) -> None:
    """What is made at its first use, now: the vocabulary blind for control tokens (a second for a large one)
    and the kernels.
    """
    opened.text.tokenizer.spell_out("")
    sampling = SamplingParams(max_tokens=2, ignore_end=True)
    opened.engine.generate([Request(prompt_ids=(0, 0), sampling=sampling)])


def cache_bytes(wanted: Sequence[Wanted], mode: Weights = Weights.PLAIN) -> int | None:
    """What each engine's cache may take, so that all models fit side by side; None: one model plans alone.

    Raises DoesNotFit with numbers if the weights alone are too much.
    """
    if len(wanted) == 1:
        return None
    sizes = {each.name: _weight_bytes(each, mode) for each in wanted}
    free = machine.free_memory_bytes(machine.best_device())
    total = sum(sizes.values())
    if total > free:
        listed = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in sizes.items())
        raise DoesNotFit(
            f"the models need {total / 1e9:.1f} GB for their weights ({listed}), {free / 1e9:.1f} GB are "
            "free; serve fewer or smaller models"
        )
    return int((free - total) * CACHE_SHARE / len(wanted))


def fingerprint(checkpoint: Path, mode: Weights) -> str:
    """`fp_` and twelve letters that stand for these weights, this way to compute and this version."""
    digest = hashlib.sha256(f"{__version__} {mode} {torch.__version__}".encode())
    for path in _weight_files(checkpoint):
        size = path.stat().st_size
        digest.update(f" {path.name} {size} ".encode())
        with path.open("rb") as file:
            for index in range(_MARK_BLOCKS):
                file.seek(max(size - _MARK_BYTES, 0) * index // (_MARK_BLOCKS - 1), os.SEEK_SET)
                digest.update(file.read(_MARK_BYTES))
    return f"fp_{digest.hexdigest()[:12]}"


def _weight_files(checkpoint: Path) -> Iterator[Path]:
    if checkpoint.is_file():
        yield checkpoint
    else:
        yield from sorted(checkpoint.glob("model*.safetensors"))


def _weight_bytes(wanted: Wanted, mode: Weights) -> int:
    checkpoint = open_checkpoint(wanted.source)
    config = ModelConfig.from_json(checkpoint.config)
    return resident_bytes(checkpoint, config, torch.bfloat16, machine.best_device(), mode)


def _own_name(source: str) -> str:
    path = Path(source).expanduser()
    if path.is_file():
        return path.stem
    return path.resolve().name if path.exists() else source


def _hidden_ids(tokenizer: Tokenizer, form: Form) -> frozenset[int]:
    """Special tokens that the parser does not have to see."""
    texts = {i: tokenizer.token_bytes(i).decode("utf-8", "replace") for i in tokenizer.special_ids}
    return frozenset(i for i, text in texts.items() if not any(text in marker for marker in form.markers))


def _named_ids(tokenizer: Tokenizer) -> dict[str, int]:
    added = tokenizer.backend.get_added_tokens_decoder()
    return {token.content: i for i, token in added.items() if token.content.strip()}


_DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def _defaults(generation: Mapping[str, object], vocab_size: int) -> SamplingParams:
    """What a generation_config.json says of drawing, as far as it is of use.

    Published files have values that other engines take as what they come to: those are taken so, and said
    once. What is no number is left out.
    """
    said = {
        name: value
        for name in _DRAWING
        if isinstance(value := generation.get(name), int | float) and not isinstance(value, bool)
    }
    taken: dict[str, Any] = {name: _clamped(name, value) for name, value in said.items()}
    if said.get("top_p", 1) <= 0:  # nothing but the most probable token
        taken |= {"top_p": 1.0, "temperature": 0.0}
    for name in taken:
        if taken[name] != said.get(name, taken[name]):
            log.warning(
                "generation_config.json has %s %.20s, which is taken as %g", name, said[name], taken[name]
            )
    params = replace(SamplingParams(), **taken)
    check(params, vocab_size)
    return params


def _clamped(name: str, value: float) -> float:
    """The nearest value that is of use; of `temperature`, below the least is zero."""
    if name == "top_k":
        return int(min(max(value, 0), 1 << 31))
    if name == "temperature":
        return min(value, 100.0) if value >= LEAST_TEMPERATURE else 0.0
    low, high = {"top_p": (1e-6, 1.0), "min_p": (0.0, 1.0), "repetition_penalty": (0.01, 100.0)}[name]
    return min(max(value, low), high)
