"""From logits to tokens: check the settings, draw one token for each row and tell its log probability.

Order: bias and penalties (`penalties.py`), temperature, top-k, top-p, min-p (`candidates.py`), draw. What is
told is of the distribution that was sampled, after all of these; at temperature 0 the greatest logit after
bias and penalties wins, cuts do not matter, and what is told is of temperature 1. Rows that only have a
temperature go in one call to `Operations.categorical` whatever their number, and on a GPU nothing waits until
`read`. A row's result depends on the row alone, bit for bit. Leaves out the random numbers (`noise.py`), stop
strings and the end of a completion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groschen.engine.candidates import candidates, is_cut, ranked
from groschen.engine.noise import uniforms
from groschen.engine.penalties import Drawing, adjust, is_adjusted
from groschen.errors import BadRequest, GroschenError
from groschen.model.operations import Operations
from groschen.model.shapes import Categorical
from groschen.records import Alternatives, SamplingParams

MAX_TOP_LOGPROBS = 20  # as in the OpenAI API
LEAST_TEMPERATURE = 1e-4  # below, nothing but the greatest logit has a chance: that is temperature 0
_WIDTHS = (64, 1024)  # windows in which alternatives are looked for


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token for each row, on the host."""

    token_ids: list[int]
    logprobs: list[float]  # nat
    entropies: list[float]  # nat
    alternatives: list[Alternatives | None]  # None where none were asked for


@dataclass(frozen=True, slots=True)
class Launched:
    """One token for each row, on the device; a token is -1 where the logits were not numbers."""

    tokens: Tensor  # [R] int64
    logprobs: Tensor  # [R] float32
    entropies: Tensor  # [R] float32
    alternatives: list[Alternatives | None]

    def put(self, rows: Sequence[int], part: "Launched") -> None:
        """Overwrite these rows with those of a part."""
        index = torch.tensor(rows).to(self.tokens.device)
        self.tokens[index], self.logprobs[index] = part.tokens, part.logprobs
        self.entropies[index] = part.entropies
        for row, found in zip(rows, part.alternatives, strict=True):
            self.alternatives[row] = found


def check(params: SamplingParams, vocab_size: int) -> None:
    """Raises BadRequest that names the field if it is out of its range, a NaN or contradicts another."""
    if params.max_tokens is not None:
        _check_whole("max_tokens", params.max_tokens, 1, None)
    if params.temperature != 0:
        advice = "0 takes the most probable token"
        _check_number("temperature", params.temperature, LEAST_TEMPERATURE, 100, f", or 0; {advice}")
    _check_whole("top_k", params.top_k, 0, None, "; 0 keeps all tokens")
    _check_number("top_p", params.top_p, 0, 1, "; 1 keeps all tokens")
    if params.top_p == 0:
        raise BadRequest(
            "top_p must be above 0, found 0; for the most probable token ask for temperature 0", "top_p"
        )
    _check_number("min_p", params.min_p, 0, 1, "; 0 keeps all tokens")
    _check_number("repetition_penalty", params.repetition_penalty, 0.01, 100, "; 1 changes nothing")
    _check_number("presence_penalty", params.presence_penalty, -2, 2, "; 0 changes nothing")
    _check_number("frequency_penalty", params.frequency_penalty, -2, 2, "; 0 changes nothing")
    if params.seed is not None:
        _check_whole("seed", params.seed, -(2**63), 2**63 - 1)
    _check_whole("top_logprobs", params.top_logprobs, 0, min(MAX_TOP_LOGPROBS, vocab_size))
    _check_bias(params.logit_bias, vocab_size)
    _check_stops(params, vocab_size)


def inverse_temperature(temperature: float) -> float:
    """What `Operations.categorical` takes, for engine and trainer: 1 / temperature, 0 for temperature 0."""
    return 1.0 / temperature if temperature else 0.0


def draw(operations: Operations, logits_RV: Tensor, rows: Sequence[Drawing]) -> Drawn:
    """The next token of each row. Raises GroschenError if a row of logits holds a value that is not a number.

    logits_RV: [R, V] float32, left as it is; rows: [R], their settings passed by `check`.
    """
    return read(launch(operations, logits_RV, rows))


def launch(operations: Operations, logits_RV: Tensor, rows: Sequence[Drawing]) -> Launched:
    """`draw` without waiting for the device, as long as no row has cuts or wants alternatives."""
    assert logits_RV.dtype == torch.float32 and len(logits_RV) == len(rows) > 0, (
        logits_RV.dtype,
        logits_RV.shape,
    )
    inverses, numbers = _numbers(rows, logits_RV.device)
    special = [i for i, row in enumerate(rows) if is_adjusted(row.sampling) or is_cut(row.sampling)]
    if len(special) == len(rows):
        own = logits_RV.clone() if any(is_adjusted(row.sampling) for row in rows) else logits_RV
        return _draw_special(operations, own, inverses, numbers, rows)
    # Special rows are drawn here too and overwritten below: that costs less than copying the others.
    counts = [row.sampling.top_logprobs for row in rows]
    for i in special:
        counts[i] = 0
    launched = _draw(operations, logits_RV, inverses, numbers, counts)
    if special:
        index = torch.tensor(special).to(logits_RV.device)
        some = [rows[i] for i in special]
        launched.put(
            special, _draw_special(operations, logits_RV[index], inverses[index], numbers[index], some)
        )
    return launched


def read(launched: Launched) -> Drawn:
    """Wait for the device and take the tokens. Raises GroschenError where the logits were not numbers."""
    token_ids = launched.tokens.tolist()
    if min(token_ids) < 0:
        place = f"row {token_ids.index(-1)} of {len(token_ids)}"
        raise GroschenError(
            f"the model produced a value that is not a number ({place}), so no token can be drawn; its "
            "weights hold NaN or are so great that it overflows: load the checkpoint anew, and if it was "
            "just trained, go back to an earlier one and lower the learning rate"
        )
    return Drawn(token_ids, launched.logprobs.tolist(), launched.entropies.tolist(), launched.alternatives)


def alternatives(
    operations: Operations, logits_RV: Tensor, inverses: Tensor, count: int, scored: Categorical
) -> list[Alternatives]:
    """The `count` most probable tokens of each row, equal ones in their order; fewer if fewer have a chance.

    logits_RV: [R, V] float32; inverses: [R] float32 as for `categorical`; scored: what it returned for these
    rows, so that the token drawn or given has the very same logprob here.
    """
    greatest = logits_RV.argmax(-1, keepdim=True)
    best = operations.categorical(logits_RV, inverses, None, greatest[:, 0]).logprobs.double()[:, None]
    values, token_ids = _first(logits_RV, min(count, logits_RV.shape[1]))
    scale = torch.where(inverses > 0, inverses, 1.0).double()[:, None]
    below = (values.double() - logits_RV.gather(1, greatest).double()) * scale
    logprobs = torch.where(
        token_ids == scored.tokens[:, None], scored.logprobs[:, None], (below + best).float()
    )
    found = []
    for ids, numbers in zip(token_ids.tolist(), logprobs.tolist(), strict=True):
        real = sum(map(math.isfinite, numbers))
        found.append(Alternatives(token_ids=tuple(ids[:real]), logprobs=tuple(numbers[:real])))
    return found


def _numbers(rows: Sequence[Drawing], device: torch.device) -> tuple[Tensor, Tensor]:
    """1 / temperature [R] float32 and the uniform numbers [R] float64; nobody waits for them on a GPU."""
    inverses = torch.tensor([inverse_temperature(row.sampling.temperature) for row in rows])
    keys = torch.tensor([[row.seed, row.sample, len(row.token_ids)] for row in rows])
    numbers = uniforms(*keys.unbind(1))
    if device.type == "cuda":
        inverses, numbers = inverses.pin_memory(), numbers.pin_memory()
    return inverses.to(device, non_blocking=True), numbers.to(device, non_blocking=True)


def _draw(
    operations: Operations, logits_RV: Tensor, inverses: Tensor, numbers: Tensor, counts: Sequence[int]
) -> Launched:
    """One call for all rows, and alternatives for those whose count is not 0."""
    scored = operations.categorical(logits_RV, inverses, numbers, None)
    found: list[Alternatives | None] = [None] * len(counts)
    asking = [i for i, count in enumerate(counts) if count]
    if asking:
        index = torch.tensor(asking).to(logits_RV.device)
        some = Categorical(*(each[index] for each in scored))
        listed = alternatives(operations, logits_RV[index], inverses[index], max(counts), some)
        for i, each in zip(asking, listed, strict=True):
            found[i] = Alternatives(
                token_ids=each.token_ids[: counts[i]], logprobs=each.logprobs[: counts[i]]
            )
    return Launched(*scored, found)


def _draw_special(
    operations: Operations, logits_RV: Tensor, inverses: Tensor, numbers: Tensor, rows: Sequence[Drawing]
) -> Launched:
    """Rows that have a bias, penalties or cuts; the logits are a copy if there is a bias or a penalty."""
    params = [row.sampling for row in rows]
    if any(map(is_adjusted, params)):
        adjust(logits_RV, rows)
    cut = [i for i, each in enumerate(params) if is_cut(each)]
    counts = [0 if is_cut(each) else each.top_logprobs for each in params]
    if len(cut) < len(rows):
        launched = _draw(operations, logits_RV, inverses, numbers, counts)
        if not cut:
            return launched
    else:
        empty = torch.empty_like(inverses)
        launched = Launched(
            torch.empty_like(inverses, dtype=torch.int64), empty, empty.clone(), [None] * len(rows)
        )
    index = torch.tensor(cut).to(logits_RV.device)
    part = logits_RV if len(cut) == len(rows) else logits_RV[index]
    for kept in candidates(operations, part, inverses[index], [params[i] for i in cut]):
        places = [cut[i] for i in kept.rows.tolist()]
        where = index[kept.rows]
        drawn = _draw(
            operations, kept.logits, inverses[where], numbers[where], [params[i].top_logprobs for i in places]
        )
        launched.put(places, _named(drawn, kept.token_ids))
    return launched


def _named(drawn: Launched, token_ids_RW: Tensor) -> Launched:
    """From places in a row of candidates to tokens."""
    tokens = token_ids_RW.gather(1, drawn.tokens.clamp(min=0)[:, None])[:, 0].masked_fill(
        drawn.tokens < 0, -1
    )
    found: list[Alternatives | None] = []
    for each, row in zip(drawn.alternatives, token_ids_RW, strict=True):
        named = None if each is None else tuple(row[list(each.token_ids)].tolist())
        found.append(
            None if each is None or named is None else Alternatives(token_ids=named, logprobs=each.logprobs)
        )
    return Launched(tokens, drawn.logprobs, drawn.entropies, found)


def _first(logits_RV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` of each row, values and tokens; the window grows where ties reach over its end."""
    num_words = logits_RV.shape[1]
    for width in (*(w for w in _WIDTHS if count < w < num_words), num_words):
        window = ranked(logits_RV, width)
        if bool((window.certain >= count).all()):
            break
    return window.values[:, :count], window.token_ids[:, :count]


def _check_number(
    field: str, value: object, low: float, high: float, advice: str = "", name: str | None = None
) -> None:
    # A NaN is in no range.
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        message = f"{name or field} must be a number from {low:g} to {high:g}{advice}; found {value!r}"
        raise BadRequest(message, field)


def _check_whole(
    field: str, value: object, low: int, high: int | None, advice: str = "", name: str | None = None
) -> None:
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < low
        or (high is not None and value > high)
    ):
        reach = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise BadRequest(f"{name or field} must be a whole number {reach}{advice}; found {value!r}", field)


def _check_bias(logit_bias: tuple[tuple[int, float], ...], vocab_size: int) -> None:
    seen = set()
    for token_id, addend in logit_bias:
        _check_token("logit_bias", token_id, vocab_size)
        _check_number("logit_bias", addend, -100, 100, name=f"logit_bias of token {token_id}")
        if token_id in seen:
            raise BadRequest(f"logit_bias names token {token_id} twice; give it one value", "logit_bias")
        seen.add(token_id)


def _check_stops(params: SamplingParams, vocab_size: int) -> None:
    for token_id in params.stop_token_ids:
        _check_token("stop_token_ids", token_id, vocab_size)
    stop: object = params.stop  # a lone string would be taken for its characters
    if not isinstance(stop, tuple) or not all(isinstance(text, str) and text for text in stop):
        raise BadRequest(f"stop must be a tuple of strings of 1 character or more; found {stop!r}", "stop")


def _check_token(field: str, token_id: object, vocab_size: int) -> None:
    _check_whole(field, token_id, 0, vocab_size - 1, " (the vocabulary)", f"a token id in {field}")
