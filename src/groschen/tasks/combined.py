"""Several verifiers of one answer, with weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Problem, Verdict
from groschen.tasks.judging import Verifier


@dataclass(frozen=True, kw_only=True)
class Part:
    """One verifier of several."""

    name: str  # what its parts are called in the verdict: "name.format"
    verifier: Verifier
    weight: float = 1.0  # of its reward in the sum
    required: bool = True  # the whole passes only if it passes


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The reward is the weighted sum of the parts' rewards; passed if all required parts passed.

    The first part with an error makes an error of the whole: a sum that lacks a part is no reward.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Raises BadRequest if names repeat, a weight is no number, or nothing is required."""
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise BadRequest(f"the parts of a weighted checker need different names, not {', '.join(names)}")
        for part in self.parts:
            if not math.isfinite(part.weight):
                raise BadRequest(
                    f"the part {part.name!r:.200} has the weight {part.weight}; expected a finite number"
                )
        if not any(part.required for part in self.parts):
            raise BadRequest("a weighted checker needs at least one required part: else every text passes")

    def __call__(self, problem: Problem, text: str) -> Verdict:
        """The verdict; format and lenient are those of all required parts together."""
        found: dict[str, float | bool | str | None] = {}
        reward, required = 0.0, []
        for part in self.parts:
            verdict = part.verifier(problem, text)
            if verdict.error is not None:
                return Verdict(reward=0.0, passed=False, error=f"{part.name}: {verdict.error}")
            reward += part.weight * verdict.reward
            found.update({f"{part.name}.{key}": value for key, value in verdict.parts.items()})
            if part.required:
                required.append(verdict)
        return Verdict(
            reward=reward,
            passed=all(verdict.passed for verdict in required),
            parts={
                "format": all(bool(verdict.parts.get("format")) for verdict in required),
                "lenient": all(bool(verdict.parts.get("lenient")) for verdict in required),
                **found,
            },
        )

    def check(self, problem: Problem) -> None:
        """Raises what the parts raise."""
        for part in self.parts:
            part.verifier.check(problem)

    def gold(self, problem: Problem) -> str | None:
        """`meta["completion"]` or a part's gold: the first that the whole passes, else the first."""
        known = [problem.meta.get("completion"), *(part.verifier.gold(problem) for part in self.parts)]
        texts = [text for text in known if isinstance(text, str)]
        return next((text for text in texts if self(problem, text).passed), texts[0] if texts else None)

    def wrong(self, problem: Problem) -> tuple[str, ...]:
        """What the required parts know to be wrong."""
        texts = [text for part in self.parts if part.required for text in part.verifier.wrong(problem)]
        return tuple(dict.fromkeys(texts))


def part_settings(name: str, raw: object) -> tuple[Mapping[str, object], float, bool]:
    """The settings of a part's verifier, its weight, and whether it is required. Raises BadRequest."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("kind"), str):
        raise BadRequest(
            f"the part {name!r:.200} of a weighted checker is {raw!r:.200}; expected a table with a kind"
        )
    weight, required = raw.get("weight", 1.0), raw.get("required", True)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not isinstance(required, bool):
        raise BadRequest(
            f"the part {name!r:.200} has weight {weight!r:.200}, required {required!r:.200}; expected "
            "number, true/false"
        )
    own = {key: value for key, value in raw.items() if key not in ("weight", "required")}
    return own, float(weight), required
