"""Recommendation of a codec, by the rules in `RULES`: pure functions of the measured figures.

``numcodecs-qpl bench --help`` prints the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

STORES = {100: "a network or an object store", 1000: "a local disk"}
"""Speeds of a store in MB/s, with examples. A codec is chosen for each speed."""

CLOSE = 0.05
"""Relative difference of time or speed that is noise on most machines: codecs within it count as equally good."""

REFERENCE = "gzip 1"
"""Codec to compare QPL with: most programs that write gzip chunks use it or a slower level."""

SHUFFLED = "shuffle + "
"""Prefix of the name of a codec with shuffle."""

SHUFFLED_GZIP = "gzip, shuffle allowed"
"""Name of the rule for gzip chunks whose readers can undo shuffle."""

GZIP_READERS = {
    "gzip": "any gzip must be able to read what you write",
    SHUFFLED_GZIP: "what you write must be gzip and its readers can undo shuffle, as zarr can",
}
"""Requirements of the chunks' readers, by rule."""

LEAST_SAVING = 0.05
"""Fraction of the bytes that the smallest result must save. Below it, no codec is recommended."""

ENOUGH = 2 / 3
"""Fraction of the smallest result's saving that a codec must reach to be chosen."""

MOST_RIVALS = 2
"""Most codecs to name as equally good."""

RULES = f"""\
front    A codec is off the front if another one has at least its ratio, is
         at least as fast both ways, and is more than {CLOSE:.0%} better in one.
store    The codec with the least time for a GB (10**9 bytes): to encode it,
         write it, read it and decode it, one after the other in one thread,
         through a store of {" or of ".join(f"{speed:,} MB/s" for speed in STORES)}.
gzip     The same at {min(STORES)} MB/s, among those whose chunks any gzip reads: first
         only those without shuffle, then those with it, too.
CPU      The least CPU time to encode and decode, of the whole process.
enough   These rules choose only codecs that save at least two thirds of what
         the smallest result saves.
as good  Codecs within {CLOSE:.0%} of the choice, or within the noise of the run if
         that is more, are called as good: QPL, and up to {MOST_RIVALS} others.
         Of QPL's containers, gzip is named if it is as good as the best.
nothing  If no codec saves {LEAST_SAVING:.0%} of the bytes, nothing is chosen.
Rows of several threads, of an emulated IAA, and of bare deflate, which has
no checksum, are shown and not judged."""


class Figures(NamedTuple):
    """Figures of a codec.

    Attributes
    ----------
    name : str
    ratio : float
        Uncompressed over compressed size.
    encode, decode : float
        Uncompressed MB/s.
    encode_cpu, decode_cpu : float
        Seconds of CPU time for an uncompressed GB.
    ours : bool
        True for QPL.
    gzip : bool
        True if any gzip reads the result: the data, or its shuffled bytes.
    codec : bool
        True if zarr has a codec for it.
    shuffle : bool
        True if the bytes are shuffled before the codec.
    """

    name: str
    ratio: float
    encode: float
    decode: float
    encode_cpu: float
    decode_cpu: float
    ours: bool = False
    gzip: bool = False
    codec: bool = True
    shuffle: bool = False

    @property
    def saving(self) -> float:
        """Fraction of the bytes that the codec saves."""
        return 1 - 1 / self.ratio

    @property
    def cpu(self) -> float:
        """Seconds of CPU time to encode and decode a GB."""
        return self.encode_cpu + self.decode_cpu


class Choice(NamedTuple):
    """Codec that a rule chooses.

    Attributes
    ----------
    rule : str
        Name in `RULES`, with the store's speed.
    best : Figures
        The codec of the least cost by the rule.
    usable : Figures or None
        The codec of the least cost that zarr can use; None without one.
    close : Figures or None
        QPL, if it is as good as `usable` and another codec.
    rivals : tuple of Figures
        Other codecs that zarr can use and that are as good as `usable`, the best first.
    """

    rule: str
    best: Figures
    usable: Figures | None
    close: Figures | None
    rivals: tuple[Figures, ...] = ()

    @property
    def is_ours(self) -> bool:
        """True if the rule chooses QPL for zarr, or QPL is as good."""
        return self.close is not None or (self.usable is not None and self.usable.ours)


class Verdict(NamedTuple):
    """Conclusions from the figures.

    Attributes
    ----------
    front : tuple of str
        Names of the codecs on the Pareto front: no other codec is better in all of ratio, encoding and decoding.
    choices : tuple of Choice
        Empty if no codec saves enough.
    sentences : tuple of str
        The conclusions as sentences, the most important first.
    """

    front: tuple[str, ...]
    choices: tuple[Choice, ...]
    sentences: tuple[str, ...]


def judge(everyone: Sequence[Figures], noise: float = 0) -> Verdict:
    """Apply the rules to codecs in one thread. At least one of them must write gzip.

    Parameters
    ----------
    everyone : sequence of Figures
    noise : float
        Typical difference between rounds, as a fraction.
    """
    tolerance = max(CLOSE, noise)
    on_front = front(everyone, tolerance)
    smallest = max(everyone, key=lambda one: one.ratio)
    if smallest.saving < LEAST_SAVING:
        advice = f"Store this data as it is: the smallest result, that of {smallest.name}, saves "
        advice += f"{max(smallest.saving, 0):.1%} of it. A filter before the codec (delta, fewer bits) may change that."
        return Verdict(on_front, (), (advice,))
    choices = tuple(_choices(everyone, tolerance))
    return Verdict(on_front, choices, tuple(_sentences(everyone, choices, tolerance)))


def beats(one: Figures, other: Figures, tolerance: float = CLOSE) -> bool:
    """Return True if `one` is not worse than `other` in any figure, and better in one by more than the tolerance."""
    pairs = [(one.ratio, other.ratio), (one.encode, other.encode), (one.decode, other.decode)]
    return all(a >= b for a, b in pairs) and any(a > b * (1 + tolerance) for a, b in pairs)


def front(everyone: Sequence[Figures], tolerance: float = CLOSE) -> tuple[str, ...]:
    """Return the names of the codecs on the Pareto front."""
    return tuple(one.name for one in everyone if not any(beats(other, one, tolerance) for other in everyone))


def store_seconds(one: Figures, store: float) -> float:
    """Return the seconds to encode a GB, write it to a store of `store` MB/s, read it back and decode it."""
    return 1000 * (1 / one.encode + 1 / one.decode + 2 / (one.ratio * store))


def plain_seconds(store: float) -> float:
    """Return the seconds to write a GB to a store of `store` MB/s and read it back, without a codec."""
    return 2 * 1000 / store


def choose(
    rule: str, candidates: Sequence[Figures], cost: Callable[[Figures], float], tolerance: float = CLOSE
) -> Choice:
    """Choose the candidate of the least cost among those that save enough, and list the equally good ones."""
    most = max(one.saving for one in candidates)
    enough = sorted((one for one in candidates if one.saving >= min(most, ENOUGH * most)), key=cost)
    in_zarr = [one for one in enough if one.codec]
    if not in_zarr:
        return Choice(rule, enough[0], None, None)
    best, usable = enough[0], in_zarr[0]
    as_good = [one for one in in_zarr if cost(one) <= cost(usable) * (1 + tolerance)]
    ours = [one for one in as_good if one.ours]
    rivals = tuple(one for one in as_good if one is not usable and not one.ours)[:MOST_RIVALS]
    if not usable.ours:
        return Choice(rule, best, usable, _container(ours) if ours else None, rivals)
    named = _container(ours)
    return Choice(rule, named if best is usable else best, named, None, rivals)


def _container(ours: Sequence[Figures]) -> Figures:
    """Return the container to name. `ours` are as good as each other, the best first; gzip is preferred."""
    return next((one for one in ours if one.gzip and one.shuffle == ours[0].shuffle), ours[0])


def _choices(everyone: Sequence[Figures], tolerance: float) -> Iterator[Choice]:
    for speed in STORES:
        yield choose(_store_rule(speed), everyone, partial(store_seconds, store=speed), tolerance)
    gzip = [one for one in everyone if one.gzip]
    for rule, candidates in (("gzip", [one for one in gzip if not one.shuffle]), (SHUFFLED_GZIP, gzip)):
        yield choose(rule, candidates, partial(store_seconds, store=min(STORES)), tolerance)
    yield choose("CPU", everyone, lambda one: one.cpu)  # CPU time is less noisy than elapsed time


def _store_rule(speed: int) -> str:
    return f"store {speed}"


def _sentences(everyone: Sequence[Figures], choices: Sequence[Choice], tolerance: float) -> Iterator[str]:
    by_rule = {choice.rule: choice for choice in choices}
    if any(one.ours for one in everyone):
        yield _headline(by_rule[_store_rule(min(STORES))], by_rule["gzip"], by_rule[SHUFFLED_GZIP])
    else:
        yield "QPL itself is not judged: none of its rows counts here."
    if tolerance > CLOSE:
        yield (
            f"The rounds differ by {tolerance:.0%}, so this run cannot tell smaller differences of speed. Run it again "
            "on an idle machine."
        )
    for speed, what in STORES.items():
        choice, plain = by_rule[_store_rule(speed)], plain_seconds(speed)
        words = _named(choice, partial(_in_store_time, store=speed))
        words += f". Without a codec: {plain:.0f} s"
        if store_seconds(choice.best, speed) > plain:
            words += ", so compress there to save space, not time"
        yield f"Through a store of {speed:,} MB/s ({what}): {words}."
    yield f"Where {GZIP_READERS['gzip']}: {_named(by_rule['gzip'], _in_figures)}."
    if by_rule[SHUFFLED_GZIP].best.shuffle:
        yield f"Where {GZIP_READERS[SHUFFLED_GZIP]}: {_named(by_rule[SHUFFLED_GZIP], _in_figures)}."
    yield f"Where CPU time matters: {_named(by_rule['CPU'], _in_cpu_time)}."
    yield from _our_place(everyone, tolerance)


def _headline(choice: Choice, *gzip: Choice) -> str:
    as_good = [one.name for one in (choice.usable or choice.best, choice.close, *choice.rivals) if one is not None]
    if choice.is_ours:
        if len(as_good) == 1:
            return f"{as_good[0]} helps here."
        return f"{_listed(as_good, 'or')}: they are as good as each other here."
    name = _listed(as_good, "or")
    for one in gzip:
        if one.is_ours and one.usable is not None:
            return f"Take {name}, not QPL, unless {GZIP_READERS[one.rule]}: then {(one.close or one.usable).name}."
    return f"Take {name}: QPL does not help here."


def _named(choice: Choice, text: Callable[[Figures], str]) -> str:
    """Return the codecs that a rule chooses, each with its figures by `text`."""
    words = f"{choice.best.name}, {text(choice.best)}"
    if choice.usable is not None and choice.usable is not choice.best:
        words += f"; zarr has no codec for it, and of those that it has {choice.usable.name}, {text(choice.usable)}"
    if choice.close is not None:
        words += f"; {choice.close.name} is as good, {text(choice.close)}"
    if choice.rivals:
        names = _listed([one.name for one in choice.rivals], "and")
        words += f"; {names} {'is' if len(choice.rivals) == 1 else 'are'} as good"
    return words


def _in_store_time(one: Figures, store: float) -> str:
    return f"{short(store_seconds(one, store))} s to write and read a GB"


def _in_figures(one: Figures) -> str:
    return f"ratio {one.ratio:.2f}, {short(one.encode)} MB/s to encode and {short(one.decode)} to decode"


def _in_cpu_time(one: Figures) -> str:
    return f"{short(one.cpu)} s to encode and decode a GB at a ratio of {one.ratio:.2f}"


def _our_place(everyone: Sequence[Figures], tolerance: float) -> Iterator[str]:
    """Yield QPL's place, on the front or behind other codecs, and its figures relative to gzip's."""
    for ours in (one for one in everyone if one.ours and one.gzip):
        reference = SHUFFLED * ours.shuffle + REFERENCE
        gzip = next((one for one in everyone if one.name == reference), None)
        better = [one.name for one in everyone if not one.ours and beats(one, ours, tolerance)]
        place = "behind no other codec"
        if better:
            names = _listed(better, "and") if len(better) <= MOST_RIVALS else f"{len(better)} other codecs"
            place = f"behind {names} in all of ratio, encoding and decoding"
        against = ""
        if gzip is not None:
            against = (
                f" Compared with {gzip.name}, it encodes {_speed(ours.encode, gzip.encode, tolerance)} and decodes "
                f"{_speed(ours.decode, gzip.decode, tolerance)}, at {ours.ratio / gzip.ratio:.2f} times the ratio "
                f"and {short(ours.cpu / gzip.cpu)} times the CPU time."
            )
        yield f"{ours.name} is {place}.{against}"


def _speed(ours: float, theirs: float, tolerance: float) -> str:
    factor = ours / theirs
    if 1 / (1 + tolerance) <= factor <= 1 + tolerance:
        return "about as fast"
    return f"{short(factor)} times as fast"


def short(value: float) -> str:
    """Format `value` with two significant digits or more, so that a small value never becomes 0."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _listed(names: Sequence[str], joint: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joint} {names[-1]}"
