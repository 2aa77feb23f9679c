"""Whether our numbers agree with a paper's claims: as in the paper, contrary to it, or not decided.

A claim in conf/report has one of these forms; so does a target of `targets`, which is met or not:

    {greater_than: TARGET} or {less_than: TARGET}
        TARGET: a number in the unit of the report, `chance`, the name of another entry, {of: one of the last
        two, times: FACTOR, plus: NUMBER} for a multiple of it or a distance from it, or a list of these; all
        must hold
    {greater_than: NUMBER, p: NAME} or {less_than: NUMBER, p: NAME}
        for a value without an interval: the entry NAME is the p value of its difference from NUMBER
    {found_in_resamples: PERCENT}
        the value is a share of resamples, in per cent

Otherwise a value is decided by its 95 % interval. The difference of two values has the MOVER interval (Zou
and Donner 2008), which assumes independent values; for values from the same images it is conservative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.reporting.numbers import number

AS_IN_PAPER = "as in the paper"
CONTRARY = "contrary to the paper"
NOT_DECIDED = "not decided"
FORMS = ("greater_than", "less_than", "found_in_resamples")
CHANCE = "chance"
LEVEL = 0.05


@dataclass(frozen=True)
class Number:
    """A value with its interval and chance level, NaN if missing. `source` identifies its row."""

    value: float
    low: float = math.nan
    high: float = math.nan
    chance: float = math.nan
    source: Any = None
    digits: int = 2

    @classmethod
    def of(cls, row: Any, factor: float = 1.0, digits: int = 2) -> Number:
        """Build from a row of a metric table, in the unit of the report."""
        value, low, high, chance = (factor * float(row[c]) for c in ("value", "ci_low", "ci_high", "chance"))
        return cls(value, low, high, chance, source=row.name, digits=digits)

    def scaled(self, times: float, plus: float) -> Number:
        """times · this + plus, which is no longer the number of a row."""
        value, low, high = (times * v + plus for v in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high, source=None)


@dataclass(frozen=True)
class Outcome:
    """`verdict`: as in the paper | contrary to the paper | not decided. `reason`: the interval behind it.
    `claim`: what the paper says, in words."""

    verdict: str
    reason: str
    claim: str


def judge(claim: Any, ours: Number, others: Mapping[str, Number], where: str) -> Outcome:
    """Compare `ours` with a claim whose names are keys of `others`. Raises ConfigError if it is malformed."""
    given = dict(claim) if isinstance(claim, Mapping) else {}
    tested = given.pop("p", None)
    if len(given) != 1:
        raise ConfigError(f"conf/report: {where}: claim: give one of {', '.join(FORMS)} with its target")
    ((form, target),) = given.items()
    if form not in FORMS:
        raise ConfigError(f"conf/report: {where}: claim: unknown '{form}'{did_you_mean(str(form), FORMS)}")
    if form == "found_in_resamples":
        return _resamples(ours, _share(target, where))
    sign = 1 if form == "greater_than" else -1
    if tested is not None:
        return _tested(sign, ours, target, tested, others, where)
    targets = target if isinstance(target, list) else [target]
    found = [_compare(sign, ours, one, others, where) for one in targets]
    words = " and ".join(_words(*_scaled(target, where)) for target in targets)
    claimed = f"{'above' if sign > 0 else 'below'} {words}"
    for wanted in (CONTRARY, NOT_DECIDED):
        for verdict, reason in found:
            if verdict == wanted:
                return Outcome(verdict, reason, claimed)
    return Outcome(AS_IN_PAPER, found[0][1] if len(found) == 1 else "", claimed)


def _compare(
    sign: int, ours: Number, target: Any, others: Mapping[str, Number], where: str
) -> tuple[str, str]:
    digits, compared = ours.digits, ours.value
    target, times, plus = _scaled(target, where)
    if isinstance(target, str) and target in others:
        other = others[target]
        other = other if (times, plus) == (1, 0) else other.scaled(times, plus)
        if ours.source is not None and ours.source == other.source:
            return CONTRARY, "both are the same row"
        limits, compared = difference(ours, other), ours.value - other.value
        border, what = 0.0, "interval of the difference"
    elif target == CHANCE:
        limits, border, what = (ours.low, ours.high), times * ours.chance + plus, "interval"
        if math.isnan(border):
            return NOT_DECIDED, "no chance level"
    elif isinstance(target, (int, float)) and not isinstance(target, bool):
        limits, border, what = (ours.low, ours.high), float(target), "interval"
    else:
        known = [*others, CHANCE]
        raise ConfigError(
            f"conf/report: {where}: claim: '{target}' is neither a number nor the name of an entry"
            f"{did_you_mean(str(target), known)}"
        )
    low, high = limits
    if math.isnan(low) or math.isnan(high):
        return NOT_DECIDED, "no number" if math.isnan(compared) else "no interval"
    text = f"{what} [{number(low, digits)}, {number(high, digits)}]"
    if low <= border <= high:
        return NOT_DECIDED, f"{text} includes {number(border, digits) if border else '0'}"
    return AS_IN_PAPER if (low > border) == (sign > 0) else CONTRARY, text


def _scaled(target: Any, where: str) -> tuple[Any, float, float]:
    """(what, factor, distance) of a target."""
    if not isinstance(target, Mapping):
        return target, 1, 0
    known = ("of", "times", "plus")
    for key in target:
        if key not in known:
            raise ConfigError(f"conf/report: {where}: claim: unknown '{key}'{did_you_mean(str(key), known)}")
    values = [target.get("times", 1), target.get("plus", 0)]
    if not isinstance(target.get("of"), str) or any(
        isinstance(v, bool) or not isinstance(v, (int, float)) for v in values
    ):
        raise ConfigError(
            f"conf/report: {where}: claim: give {{of: chance or the name of an entry, times, plus: numbers}}"
        )
    return target["of"], *values


def _words(target: Any, times: float, plus: float) -> str:
    name = f"“{target}”" if isinstance(target, str) and target != CHANCE else str(target)
    text = name if times == 1 else f"{times:g} × {name}"
    return f"{text} {'+' if plus > 0 else '−'} {abs(plus):g}" if plus else text


def difference(first: Number, second: Number) -> tuple[float, float]:
    """MOVER interval of first − second from their values and intervals; NaN where one has no interval."""
    gap = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return gap - below, gap + above


def _tested(
    sign: int, ours: Number, target: Any, tested: Any, others: Mapping[str, Number], where: str
) -> Outcome:
    if tested not in others or isinstance(target, (str, bool, list)):
        known = did_you_mean(str(tested), others) if tested not in others else ""
        raise ConfigError(
            f"conf/report: {where}: claim: p: give the name of another entry{known}, and a number to compare"
        )
    claim, p = f"{'above' if sign > 0 else 'below'} {target}", others[tested]
    if math.isnan(ours.value) or math.isnan(p.value):
        return Outcome(NOT_DECIDED, "no number", claim)
    reason = f"p = {number(p.value, p.digits, powers=True)}"
    if p.value >= LEVEL:
        return Outcome(NOT_DECIDED, reason, claim)
    return Outcome(AS_IN_PAPER if (ours.value > target) == (sign > 0) else CONTRARY, reason, claim)


def _share(target: Any, where: str) -> float:
    if isinstance(target, bool) or not isinstance(target, (int, float)) or not 50 < target <= 100:
        raise ConfigError(f"conf/report: {where}: claim: found_in_resamples: {target} is not in 50 to 100 %")
    return float(target)


def _resamples(ours: Number, least: float) -> Outcome:
    claim = f"in {least:g} % of resamples or more"
    if math.isnan(ours.value):
        return Outcome(NOT_DECIDED, "no number", claim)
    text = f"{number(ours.value, ours.digits)} % of resamples"
    if ours.value >= least:
        return Outcome(AS_IN_PAPER, text, claim)
    return Outcome(CONTRARY if ours.value <= 100 - least else NOT_DECIDED, text, claim)
