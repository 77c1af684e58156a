"""A recipe for another batch, length or size: pure rules, each with its reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..planning.amounts import parse_count
from ..planning.batches import RULES, scale_lr
from ..planning.published import published_rates
from ..planning.sizes import rate_for_size
from ..schedules import parse_duration
from ._words import in_words, is_pairs
from .receipts import Change, Receipt

if TYPE_CHECKING:
    from .recipe import Recipe

TOKENS_A_PARAMETER = 20
"""What Chinchilla's 1.4T tokens are over its 70B parameters."""

_FAR = 32.0  # times as large or small; both rules were found within less
_FITTED = (1e17, _FAR * 6.0 * 67e9 * 2e12)  # operations: the fits' smallest run, from memory; far from the largest one
_LENGTHS = ("schedule.warmup", "schedule.decay", "schedule.half_life", "schedule.first_warmup")
_ASKED = "as asked"
_UNVERIFIED = "; the value before it is unverified"
_UNVERIFIED_RUN = ", whose length or batch is unverified"
_RULE_SOURCES = {
    "sqrt": "Malladi et al. 2022, https://arxiv.org/abs/2205.10287, whose rule also moves betas and eps: not done here",
    "linear": "Goyal et al. 2017, https://arxiv.org/abs/1706.02677, found for SGD",
}


def compute_fit(size: float, total: float) -> tuple[float, float]:
    """Rate and batch [tokens] that DeepSeek LLM's fits give for a size [parameters] and a length [tokens].

    With ``C = 6 * size * total`` operations: ``0.3118 * C ** -0.1250`` and ``0.2920 * C ** 0.3271``. The paper counts
    operations without embeddings, layer by layer; six for each parameter and token is coarser. The coefficients are
    from memory; for 7B and 67B with 2T tokens they give the published rates and batches within 3 %.

    Source:
        Bi et al. 2024, https://arxiv.org/abs/2401.02954, section 3.1.

    Example:
        >>> rate, batch = compute_fit(67e9, 2e12)  # published: 3.2e-4 and 18.9M
        >>> round(rate, 6), round(batch / 1e6, 1)
        (0.00032, 19.3)
    """
    compute = 6.0 * size * total
    return 0.3118 * compute**-0.1250, 0.2920 * compute**0.3271


def rescaled(
    recipe: "Recipe",
    *,
    batch: int | str | None = None,
    total: int | str | None = None,
    size: int | str | None = None,
    rule: str = "sqrt",
    extrapolate: bool = False,
) -> "Recipe":
    """The recipe for another batch, length or size; ``Recipe.rescaled`` says how."""
    if batch is None and total is None and size is None:
        raise ValueError("rescaled needs batch, total or size, got none of them.")
    if rule not in (*RULES, "keep"):
        raise ValueError(f"rule must be one of {[*RULES, 'keep']}, got {rule!r}.")
    if not isinstance(extrapolate, bool):
        raise ValueError(f"extrapolate must be True or False, got {extrapolate!r}.")
    wanted_size = None if size is None else _count("size", size)
    wanted_batch = None if batch is None else _tokens("batch", batch)
    draft = _Draft(recipe, {receipt.name: receipt for receipt in recipe.receipts}, [])
    old_batch, old_total = _stated(recipe, "batch"), _stated(recipe, "total")
    if wanted_size is not None:
        draft.put("size", wanted_size, _ASKED)
    wanted_total = None if total is None else _total(total, draft)
    if wanted_total is not None:
        why = (
            f"{TOKENS_A_PARAMETER} tokens a parameter, as Hoffmann et al. 2022 trained" if total == "chinchilla" else ""
        )
        draft.put("total", f"{in_words(wanted_total)} tokens", why or _ASKED)
    if (recipe.size_rule == "compute" and (wanted_size or wanted_total)) or wanted_size is not None:
        _follow_size(draft, extrapolate)
    if wanted_batch is not None:
        _follow_batch(draft, wanted_batch, rule)
    _refuse_nonsense(draft)
    _keep_shares(draft, old_batch, old_total)
    draft.drop("batch_ramp", "it belongs to the published batch and length, and nothing here plays it")
    receipts = tuple(draft.receipts[one.name] for one in recipe.receipts if one.name in draft.receipts)
    further = tuple(one for name, one in draft.receipts.items() if name not in recipe)
    return replace(recipe, receipts=(*receipts, *further), changes=(*recipe.changes, *draft.changes))


@dataclass
class _Draft:
    """A recipe being rescaled."""

    recipe: "Recipe"
    receipts: dict[str, Receipt]
    changes: list[Change]

    def number(self, name: str) -> float:
        """A value as a number, in parameters or tokens."""
        return _stated_in(self.receipts, self.recipe.name, name)

    def put(self, name: str, value: Any, why: str) -> None:
        """Write a value, and say so if it is another."""
        before = self.receipts.get(name)
        if before is not None and before.value == value:
            return
        if before is not None and why != _ASKED and _is_unverified(before):
            why += _UNVERIFIED
        self.receipts[name] = Receipt(name, value, f"rescaled: {why}", "rescaled")
        self.changes.append(
            Change(name, "not stated" if before is None else in_words(before.value), in_words(value), why)
        )

    def drop(self, name: str, why: str) -> None:
        """Take a value out, if it is there."""
        before = self.receipts.pop(name, None)
        if before is not None:
            self.changes.append(Change(name, in_words(before.value), "left out", why))


def _follow_size(draft: _Draft, extrapolate: bool) -> None:
    recipe, size = draft.recipe, draft.number("size")
    if recipe.size_rule == "mup":
        draft.changes.append(Change("peak_lr", in_words(recipe.value("peak_lr")), "the same",
                                    "under muP the rate of the base width serves at every width: Yang et al. 2022, "
                                    "https://arxiv.org/abs/2203.03466"))  # fmt: skip
    elif recipe.size_rule == "compute":
        total = draft.number("total")
        beyond = _beyond_the_fit(draft, size, total, extrapolate)
        rate, batch = compute_fit(size, total)
        why = "DeepSeek LLM's fit over compute, 6 * size * total: Bi et al. 2024, https://arxiv.org/abs/2401.02954"
        draft.put("peak_lr", _rounded(rate), why + beyond)
        draft.put("batch", int(_rounded(batch)), why + beyond)
    elif recipe.size_rule == "family":
        _follow_family(draft, size, extrapolate)
    elif "size" not in recipe:
        _stated_in({}, recipe.name, "size")
    else:
        raise ValueError(
            f"{recipe.name}: one size alone was published, so nobody knows how its rate goes with the size. Leave size "
            "out and look for the rate with find_lr, or begin with gpt3-*, llama2-* or deepseek-llm."
        )


def _follow_family(draft: _Draft, size: float, extrapolate: bool) -> None:
    family = draft.recipe.family
    try:
        rate = rate_for_size(size, family, extrapolate=extrapolate)
    except ValueError as error:
        raise ValueError(f"size: {error}") from error
    rows = published_rates().of(family)
    near = min(rows, key=lambda row: abs(math.log(row.parameters / size)))
    inside = rows[0].parameters <= size <= rows[len(rows) - 1].parameters
    where = (
        f"between the published sizes of {family}" if inside else f"beyond the published sizes of {family} and a guess"
    )
    draft.put("peak_lr", _rounded(rate), f"on a straight line in logarithms {where}: planning.rate_for_size")
    draft.put("batch", near.batch, f"that of {near.model}, the nearest size; the rate belongs to it")


def _beyond_the_fit(draft: _Draft, size: float, total: float, extrapolate: bool) -> str:
    """What to add where the fits were never held against a run; refused unless it is asked for."""
    low, high = _FITTED
    compute = 6.0 * size * total
    if low <= compute <= high:
        return ""
    if not extrapolate:
        raise ValueError(
            f"size ({in_words(size)}) and total ({in_words(total)} tokens) make {compute:.2g} operations, and "
            f"{draft.recipe.name}'s fits are good for {low:.2g} to {high:.2g}. Choose others, or say "
            "extrapolate=True and take the answer for a guess."
        )
    return f"; {compute:.2g} operations are beyond what was fitted, and this is a guess"


def _follow_batch(draft: _Draft, batch: int, rule: str) -> None:
    old = draft.number("batch")
    if rule == "keep":
        draft.put("batch", batch, "as asked; the rate is to stay")
        return
    power = "the square root of the batch" if rule == "sqrt" else "the batch"
    rate = scale_lr(float(draft.receipts["peak_lr"].value), old, batch, rule)
    far = "" if 1 / _FAR <= batch / old <= _FAR else "; so far from the published batch nobody has checked it"
    draft.put("peak_lr", _rounded(rate), f"goes with {power}, x {batch / old:.3g}: {_RULE_SOURCES[rule]}{far}")
    draft.put("batch", batch, _ASKED)


def _keep_shares(draft: _Draft, batch: float | None, total: float | None) -> None:
    """Lengths in updates or tokens become parts of the run: those that they were."""
    doubted = any(_is_unverified(draft.recipe[name]) for name in ("batch", "total") if name in draft.recipe)
    why = f"keeps its part of the published run{_UNVERIFIED_RUN if doubted else ''}; ours"
    for name, receipt in list(draft.receipts.items()):
        phase = is_pairs(receipt.value) and draft.receipts["schedule"].value == "phases"
        if not name.startswith("schedule.") or not (phase or name in _LENGTHS):
            continue
        if phase:
            pairs = ((key, _share(draft, one, batch, total) if key in ("length", "until") else one)
                     for key, one in receipt.value)  # fmt: skip
            draft.put(name, tuple(pairs), why)
        else:
            draft.put(name, _share(draft, receipt.value, batch, total), why)


def _is_unverified(receipt: Receipt) -> bool:
    """Whether it is, or was worked out from something that is."""
    return receipt.checked == "unverified" or receipt.source.endswith(_UNVERIFIED)


def _share(draft: _Draft, written: Any, batch: float | None, total: float | None) -> Any:
    """``written`` as a part of the run, if it is updates or tokens."""
    length = parse_duration("length", written)
    if length.unit not in ("updates", "tokens") or not length.amount:
        return written
    if total is None or batch is None:
        raise ValueError(
            f"{draft.recipe.name} states no batch or no total, so {written!r} is no known part of its run."
        )
    tokens = length.amount * (Fraction(batch) if length.unit == "updates" else 1)
    return f"{float(tokens / Fraction(total) * 100):.10g}%"


def _total(total: int | str, draft: _Draft) -> int:
    if total != "chinchilla":
        return _tokens("total", total)
    return round(TOKENS_A_PARAMETER * draft.number("size"))


def _refuse_nonsense(draft: _Draft) -> None:
    if "batch" in draft.receipts and "total" in draft.receipts and draft.number("batch") > draft.number("total"):
        raise ValueError(
            f"batch ({in_words(draft.number('batch'))} tokens) must not be larger than total "
            f"({in_words(draft.number('total'))} tokens): not one update would be made."
        )


def _stated(recipe: "Recipe", name: str) -> float | None:
    return _stated_in({one.name: one for one in recipe}, recipe.name, name) if name in recipe else None


def _stated_in(receipts: Mapping[str, Receipt], recipe: str, name: str) -> float:
    if name not in receipts or receipts[name].value is None:
        raise ValueError(
            f"{recipe} states no {name}, so there is nothing to scale from: its lengths are parts of the run, and its "
            "rate goes with no batch or size in particular. Find the rate with find_lr."
        )
    value = receipts[name].value
    return float(_tokens(name, value) if isinstance(value, str) else value)


def _tokens(name: str, amount: int | str) -> int:
    bare = amount.strip().removesuffix("tokens").removesuffix("token") if isinstance(amount, str) else amount
    try:
        return _count(name, bare.strip() if isinstance(bare, str) else bare)
    except ValueError as error:
        word = ", or 'chinchilla'" if name == "total" else ""
        raise ValueError(f"{name} must be a number of tokens such as '10B' or '500k'{word}, got {amount!r}.") from error


def _count(name: str, amount: Any) -> int:
    if isinstance(amount, float) and amount.is_integer() and amount >= 1:
        return int(amount)
    return parse_count(amount, name=name)


def _rounded(number: float) -> float:
    """To six digits: what rules give is no better known."""
    return float(f"{number:.6g}")
