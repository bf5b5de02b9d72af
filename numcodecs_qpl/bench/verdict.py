"""What to choose, by rules that are written down: pure functions of what was measured.

The rules, in `RULES`, are what ``numcodecs-qpl bench --help`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

STORES = {100: "a network or an object store", 1000: "a local disk"}
"""Speeds of a store in MB/s for which something is chosen, and what is about as fast."""

CLOSE = 0.05
"""What differs by less is called as good: that much is noise on most machines."""

REFERENCE = "gzip 1"
"""Whom QPL is compared with: what most who write gzip chunks have."""

SHUFFLED = "shuffle + "
"""Before the name of a codec whose data is shuffled first."""

SHUFFLED_GZIP = "gzip, shuffle allowed"
"""The rule for gzip chunks whose readers can undo shuffle."""

GZIP_READERS = {
    "gzip": "any gzip must be able to read what you write",
    SHUFFLED_GZIP: "what you write must be gzip and its readers can undo shuffle, as zarr can",
}
"""By rule: who reads the chunks."""

LEAST_SAVING = 0.05
"""Part of the bytes that the smallest must save for compression to be worth anything."""

ENOUGH = 2 / 3
"""Part of what the smallest saves that is asked of whoever is chosen."""

RULES = f"""\
front     A codec is off the front if another one has at least its ratio, and is at least as fast
          both ways, and is more than {CLOSE:.0%} better in one of the three.
store     The codec with the least time for a GB (10**9 bytes): to encode it, write it, read it
          and decode it, one after the other in one thread, through a store of
          {" and of ".join(f"{speed:,} MB/s ({what})" for speed, what in STORES.items())}.
gzip      The same at {min(STORES)} MB/s, among those whose chunks any gzip reads: first only those
          without shuffle, then those with it too.
CPU       The least CPU time to encode and decode, of the whole process.
enough    By these three rules only those are chosen that save at least two thirds of the bytes
          that the smallest of those in question saves.
as good   QPL is named too where it is within {CLOSE:.0%} of the choice.
nothing   If nobody saves {LEAST_SAVING:.0%} of the bytes, nothing is chosen.
Rows of several threads, of an emulated IAA, and of bare deflate, which has no checksum, are
shown, and not judged."""


class Figures(NamedTuple):
    """What was measured of a contender.

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
        Whether it is QPL.
    gzip : bool
        Whether any gzip reads it, the data or its shuffled bytes.
    codec : bool
        Whether zarr can use it, as a numcodecs codec.
    shuffle : bool
        Whether the bytes are shuffled before the codec.
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
        """Part of the bytes that it saves."""
        return 1 - 1 / self.ratio

    @property
    def cpu(self) -> float:
        """Seconds of CPU time to encode and decode a GB."""
        return self.encode_cpu + self.decode_cpu


class Choice(NamedTuple):
    """Who is chosen by a rule.

    Attributes
    ----------
    rule : str
        Its name in `RULES`, with the store's speed.
    best : Figures
        Who has the least of what the rule counts.
    usable : Figures or None
        The same among those that zarr can use; None if there is none.
    close : Figures or None
        QPL's best, if it is as good as `usable` and not the same.
    """

    rule: str
    best: Figures
    usable: Figures | None
    close: Figures | None

    @property
    def is_ours(self) -> bool:
        """Whether QPL is what zarr should use by this rule, or as good."""
        return self.close is not None or (self.usable is not None and self.usable.ours)


class Verdict(NamedTuple):
    """What follows from the figures.

    Attributes
    ----------
    front : tuple of str
        Names of those that nobody beats in all of ratio, encoding and decoding.
    choices : tuple of Choice
        None if nothing is worth choosing.
    sentences : tuple of str
        All of it in words, the most important first.
    """

    front: tuple[str, ...]
    choices: tuple[Choice, ...]
    sentences: tuple[str, ...]


def judge(everyone: Sequence[Figures]) -> Verdict:
    """Apply the rules to contenders of one thread, at least one of which makes what any gzip reads."""
    on_front = front(everyone)
    smallest = max(everyone, key=lambda one: one.ratio)
    if smallest.saving < LEAST_SAVING:
        said = f"Store this data as it is: the smallest, {smallest.name}, saves {max(smallest.saving, 0):.1%} of it. "
        said += "A filter before the codec (delta, fewer bits) may change that."
        return Verdict(on_front, (), (said,))
    choices = tuple(_choices(everyone))
    return Verdict(on_front, choices, tuple(_sentences(everyone, choices)))


def beats(one: Figures, other: Figures) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better by more than noise."""
    pairs = [(one.ratio, other.ratio), (one.encode, other.encode), (one.decode, other.decode)]
    return all(a >= b for a, b in pairs) and any(a > b * (1 + CLOSE) for a, b in pairs)


def front(everyone: Sequence[Figures]) -> tuple[str, ...]:
    """Names of those that nobody beats."""
    return tuple(one.name for one in everyone if not any(beats(other, one) for other in everyone))


def store_seconds(one: Figures, store: float) -> float:
    """Seconds to encode a GB, write it to a store of so many MB/s, read it back and decode it."""
    return 1000 * (1 / one.encode + 1 / one.decode + 2 / (one.ratio * store))


def plain_seconds(store: float) -> float:
    """The same without a codec."""
    return 2 * 1000 / store


def choose(rule: str, candidates: Sequence[Figures], cost: Callable[[Figures], float]) -> Choice:
    """The one of the least cost of those that save enough, and the best of these that zarr can use.

    QPL's best is named too where it costs hardly more.
    """
    most = max(one.saving for one in candidates)
    enough = [one for one in candidates if one.saving >= min(most, ENOUGH * most)]
    usable = min((one for one in enough if one.codec), key=cost, default=None)
    ours = min((one for one in enough if one.ours), key=cost, default=None)
    close = None
    if usable and ours and not usable.ours and cost(ours) <= cost(usable) * (1 + CLOSE):
        close = ours
    return Choice(rule, min(enough, key=cost), usable, close)


def _choices(everyone: Sequence[Figures]) -> Iterator[Choice]:
    for speed in STORES:
        yield choose(_store_rule(speed), everyone, partial(store_seconds, store=speed))
    gzip = [one for one in everyone if one.gzip]
    for rule, candidates in (("gzip", [one for one in gzip if not one.shuffle]), (SHUFFLED_GZIP, gzip)):
        yield choose(rule, candidates, partial(store_seconds, store=min(STORES)))
    yield choose("CPU", everyone, lambda one: one.cpu)


def _store_rule(speed: int) -> str:
    return f"store {speed}"


def _sentences(everyone: Sequence[Figures], choices: Sequence[Choice]) -> list[str]:
    by_rule = {choice.rule: choice for choice in choices}
    if any(one.ours for one in everyone):
        said = [_headline(by_rule[_store_rule(min(STORES))], by_rule["gzip"], by_rule[SHUFFLED_GZIP])]
    else:
        said = ["QPL itself is not judged: none of its rows counts here."]
    for speed, what in STORES.items():
        choice, plain = by_rule[_store_rule(speed)], plain_seconds(speed)
        words = _named(choice, partial(_in_store_time, store=speed))
        words += f"; {plain:.1f} s without a codec"
        if store_seconds(choice.best, speed) > plain:
            words += ", so compress there to save space, not time"
        said.append(f"Through a store of {speed:,} MB/s ({what}): {words}.")
    said.append(f"Where {GZIP_READERS['gzip']}: {_named(by_rule['gzip'], _in_figures)}.")
    if by_rule[SHUFFLED_GZIP].best.shuffle:
        named = _named(by_rule[SHUFFLED_GZIP], _in_figures)
        said.append(f"Where {GZIP_READERS[SHUFFLED_GZIP]}: {named}.")
    said.append(f"Where CPU time matters: {_named(by_rule['CPU'], _in_cpu_time)}.")
    return [*said, *_our_place(everyone)]


def _headline(choice: Choice, *gzip: Choice) -> str:
    if choice.usable is not None and choice.usable.ours:
        return f"{choice.usable.name} helps here."
    if choice.close is not None and choice.usable is not None:
        return f"{choice.usable.name} or {choice.close.name}: they are as good as each other here."
    name = (choice.usable or choice.best).name
    for one in gzip:
        if one.is_ours and one.usable is not None:
            return f"Take {name}, not QPL, unless {GZIP_READERS[one.rule]}: then {(one.close or one.usable).name}."
    return f"Take {name}: QPL does not help here."


def _named(choice: Choice, text: Callable[[Figures], str]) -> str:
    """Whom a rule chooses, each with what `text` says of it."""
    said = f"{choice.best.name}, {text(choice.best)}"
    if choice.usable is not None and choice.usable is not choice.best:
        said += f"; but zarr has no codec for it, and of those that it has {choice.usable.name}, {text(choice.usable)}"
    if choice.close is not None:
        said += f"; {choice.close.name} is as good, {text(choice.close)}"
    return said


def _in_store_time(one: Figures, store: float) -> str:
    return f"{store_seconds(one, store):.1f} s for a GB there and back"


def _in_figures(one: Figures) -> str:
    return f"ratio {one.ratio:.2f}, {one.encode:,.0f} MB/s to encode and {one.decode:,.0f} to decode"


def _in_cpu_time(one: Figures) -> str:
    return f"{one.cpu:.1f} s of it to encode and decode a GB at a ratio of {one.ratio:.2f}"


def _our_place(everyone: Sequence[Figures]) -> list[str]:
    """Where QPL is: on the front or behind whom, and against gzip, whose place it takes."""
    said = []
    for ours in (one for one in everyone if one.ours and one.gzip):
        reference = SHUFFLED * ours.shuffle + REFERENCE
        zlib = next((one for one in everyone if one.name == reference), None)
        better = [one.name for one in everyone if not one.ours and beats(one, ours)]
        place = "behind no other codec"
        if better:
            place = f"behind {_listed(better)} in all of ratio, encoding and decoding"
        against = ""
        if zlib is not None:
            against = (
                f"; against {zlib.name} it encodes {ours.encode / zlib.encode:.1f} and decodes "
                f"{ours.decode / zlib.decode:.1f} times as fast, at {ours.ratio / zlib.ratio:.2f} of the ratio and "
                f"{ours.cpu / zlib.cpu:.2f} of the CPU time"
            )
        said.append(f"{ours.name} is {place}{against}.")
    return said


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
