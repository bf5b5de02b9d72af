"""The recommendation of the bench, on made-up figures."""

import re

import pytest

from numcodecs_qpl.bench.verdict import (
    CLOSE,
    RULES,
    STORES,
    Figures,
    beats,
    choose,
    front,
    judge,
    plain_seconds,
    store_seconds,
)


def figures(name: str, ratio: float, encode: float, decode: float, **more: bool) -> Figures:
    """A contender of one thread, whose CPU time is its time by the clock."""
    return Figures(name, ratio, encode, decode, 1000 / encode, 1000 / decode, **more)


def qpl(ratio: float, encode: float, decode: float, name: str = "QPL") -> Figures:
    return figures(name, ratio, encode, decode, ours=True, gzip=True)


GZIP = figures("gzip 1", 2.3, 90, 250, gzip=True)
ZSTD = figures("zstd 1", 2.4, 330, 950)
LZ4 = figures("lz4", 1.4, 500, 2000)
SHUFFLED_GZIP = figures("shuffle + gzip 1", 3.2, 100, 240, gzip=True, shuffle=True)
SHUFFLED_QPL = figures("shuffle + QPL", 3, 420, 580, ours=True, gzip=True, shuffle=True)
ISAL = figures("isal gzip 1", 2.35, 500, 700, gzip=True, codec=False)
QPL = qpl(2.3, 400, 600)


def chosen(rule: str, *everyone: Figures) -> str:
    return {choice.rule: choice.best.name for choice in judge(everyone).choices}[rule]


# ---- The front ----------------------------------------------------------------------------------


def test_one_that_is_better_in_all_three_beats_the_other() -> None:
    assert beats(ZSTD, GZIP)
    assert not beats(GZIP, ZSTD)


@pytest.mark.parametrize("worse", ["ratio", "encode", "decode"])
def test_one_that_is_worse_in_one_of_three_does_not_beat_the_other(worse: str) -> None:
    better = figures("better", 4, 1000, 1000)
    other = figures("other", 2, 500, 500)
    assert beats(better, other)
    assert not beats(better._replace(**{worse: 0.99 * getattr(other, worse)}), other)


@pytest.mark.parametrize("better", ["ratio", "encode", "decode"])
def test_what_is_better_by_noise_only_beats_nobody(better: str) -> None:
    other = figures("other", 2, 500, 500)
    value = getattr(other, better)
    assert not beats(other._replace(**{better: value * (1 + 0.9 * CLOSE)}), other)
    assert beats(other._replace(**{better: value * (1 + 1.1 * CLOSE)}), other)


def test_the_front_is_who_is_beaten_by_nobody() -> None:
    assert front([GZIP, ZSTD, LZ4, ISAL, QPL]) == ("zstd 1", "lz4", "isal gzip 1")


def test_cpu_time_puts_nobody_off_the_front() -> None:
    assert front([QPL, QPL._replace(name="costly", encode_cpu=99, decode_cpu=99)]) == ("QPL", "costly")


# ---- Stores -------------------------------------------------------------------------------------


def test_a_gigabyte_through_a_store_takes_both_ways_of_codec_and_store() -> None:
    # 10**9 bytes: 2 s to encode, 1 s to decode, and 0.5 GB written and read at 100 MB/s.
    assert store_seconds(figures("any", 2, 500, 1000), 100) == pytest.approx(2 + 1 + 5 + 5)
    assert plain_seconds(100) == 20


def test_a_slow_store_asks_for_ratio_and_a_fast_one_for_speed() -> None:
    small = figures("small", 4, 300, 1000)
    quick = figures("quick", 2.2, 1000, 2000)
    assert chosen("store 100", small, quick, GZIP) == "small"
    assert chosen("store 1000", small, quick, GZIP) == "quick"


def test_where_the_store_is_faster_than_any_codec_that_is_said() -> None:
    sentences = judge([ZSTD, GZIP, QPL]).sentences
    slow, fast = (next(said for said in sentences if f"{speed:,} MB/s (" in said) for speed in STORES)
    assert "to save space, not time" not in slow
    assert fast.endswith(". Without a codec: 2 s, so compress there to save space, not time.")


# ---- gzip and CPU time --------------------------------------------------------------------------


def test_where_any_gzip_must_read_it_only_gzip_is_chosen() -> None:
    assert chosen("gzip", ZSTD, GZIP, QPL) == "QPL"
    assert chosen("gzip", ZSTD, GZIP, QPL._replace(ratio=1.2)) == "gzip 1"


def test_who_has_no_codec_for_zarr_is_named_with_the_best_that_has_one() -> None:
    verdict = judge([ZSTD, GZIP, ISAL, QPL])
    choice = next(choice for choice in verdict.choices if choice.rule == "gzip")
    assert choice.best is ISAL
    assert choice.usable is QPL
    said = next(said for said in verdict.sentences if said.startswith("Where any gzip"))
    assert "isal gzip 1, ratio 2.35, 500 MB/s to encode and 700 to decode; zarr has no codec for it" in said
    assert "of those that it has QPL, ratio 2.30" in said


def test_shuffled_bytes_are_not_what_any_gzip_reads() -> None:
    everyone = (ZSTD, GZIP, QPL, SHUFFLED_GZIP, SHUFFLED_QPL)
    assert chosen("gzip", *everyone) == "QPL"
    assert chosen("gzip, shuffle allowed", *everyone) == "shuffle + QPL"
    assert chosen("store 100", *everyone) == "shuffle + QPL"


def test_gzip_behind_shuffle_is_told_only_if_it_is_better_than_gzip_alone() -> None:
    told = "Where what you write must be gzip and its readers can undo shuffle, as zarr can: "
    better, worse = SHUFFLED_QPL, SHUFFLED_QPL._replace(ratio=2.1)
    (sentence,) = (said for said in judge([GZIP, QPL, better]).sentences if said.startswith(told))
    assert sentence == f"{told}shuffle + QPL, ratio 3.00, 420 MB/s to encode and 580 to decode."
    assert not any(said.startswith(told) for said in judge([GZIP, QPL, worse]).sentences)


@pytest.mark.parametrize("rule", ["store 1000", "CPU"])
def test_speed_is_no_reason_for_who_saves_little(rule: str) -> None:
    # Of 58 % that zstd saves two thirds are 39 %, and lz4 saves 29 %.
    assert chosen(rule, ZSTD, GZIP, LZ4) == "zstd 1"
    assert chosen(rule, ZSTD, GZIP, LZ4._replace(ratio=1.7)) == "lz4"


def test_what_gzip_saves_is_compared_with_what_gzip_can_save() -> None:
    smaller = figures("zstd 1", 50, 330, 950)
    assert chosen("gzip", smaller, GZIP, QPL) == "QPL"


def test_of_those_that_make_data_larger_the_smallest_is_chosen() -> None:
    assert chosen("gzip", ZSTD, GZIP._replace(ratio=0.97), QPL._replace(ratio=0.9)) == "gzip 1"


def test_an_accelerator_is_chosen_for_its_cpu_time_and_not_for_its_speed() -> None:
    device = qpl(2.3, 300, 300, "QPL, IAA")._replace(encode_cpu=0.1, decode_cpu=0.1)
    assert chosen("CPU", ZSTD, GZIP, device) == "QPL, IAA"
    assert chosen("store 100", ZSTD, GZIP, device) == "zstd 1"


def test_cpu_time_counts_both_ways() -> None:
    idle = GZIP._replace(name="idle", encode_cpu=1, decode_cpu=1)
    for busy in (idle._replace(name="busy", encode_cpu=2), idle._replace(name="busy", decode_cpu=2)):
        assert chosen("CPU", idle, busy) == chosen("CPU", busy, idle) == "idle"


# ---- Close calls --------------------------------------------------------------------------------


def cost(one: Figures) -> float:
    return one.cpu


def test_ours_is_as_good_where_it_costs_hardly_more() -> None:
    peer = figures("peer", 2, 400, 400)
    near, far = (qpl(2, 400 / factor, 400 / factor) for factor in (1 + 0.9 * CLOSE, 1 + 1.1 * CLOSE))
    assert choose("any", [peer, near], cost).close is near
    assert choose("any", [peer, near], cost).is_ours
    assert choose("any", [peer, far], cost).close is None
    assert not choose("any", [peer, far], cost).is_ours


def test_ours_is_not_as_good_as_itself() -> None:
    choice = choose("any", [QPL, qpl(2.3, 399, 599, "QPL zlib")], cost)
    assert choice.best is QPL
    assert choice.close is None
    assert choice.is_ours


def test_of_our_containers_gzip_is_named_unless_another_is_better() -> None:
    for factor, name in ((1 + CLOSE / 2, "QPL"), (1 + 4 * CLOSE, "QPL zlib")):
        other = figures("QPL zlib", 2.3, 400 * factor, 600 * factor, ours=True)
        choice = choose("any", [SHUFFLED_QPL._replace(ratio=2.3, encode=405), other, QPL], lambda one: 1 / one.encode)
        assert choice.usable is not None
        assert (choice.best.name, choice.usable.name, choice.close) == (name, name, None)
        faster = figures("zstd 1", 2.3, 400 * factor + 1, 600)
        choice = choose("any", [other, QPL, faster], lambda one: 1 / one.encode)
        assert choice.close is not None
        assert (choice.best.name, choice.close.name) == ("zstd 1", name)


def test_others_within_the_tolerance_are_rivals_the_best_first_and_not_all_of_them() -> None:
    best, *others = (figures(f"{number}", 2, 400 - number, 400) for number in range(5))
    choice = choose("any", [*others, best], cost)
    assert choice.usable is best
    assert [one.name for one in choice.rivals] == ["1", "2"]
    assert choose("any", [best, ISAL._replace(ratio=2, encode=399, decode=400)], cost).rivals == ()  # not in zarr
    slow = figures("slow", 2, 400 / (1 + 1.1 * CLOSE), 400 / (1 + 1.1 * CLOSE))
    assert choose("any", [best, slow], cost).rivals == ()
    assert choose("any", [best, slow], cost, 2 * CLOSE).rivals == (slow,)


def test_a_difference_below_the_noise_is_no_reason_to_choose() -> None:
    zstd = figures("zstd 1", 2.3, 480, 720)  # by 20 % faster than QPL
    calm, noisy = (judge([GZIP, zstd, QPL], noise).sentences for noise in (0.01, 0.3))
    warning = "The rounds differ by 30%, so this run cannot tell smaller differences of speed."
    assert calm[0].startswith("Take zstd 1, not QPL,")
    assert not any(warning in said for said in calm)
    assert calm[-1].startswith("QPL is behind zstd 1 in all of")
    assert noisy[0] == "zstd 1 or QPL: they are as good as each other here."
    assert noisy[1].startswith(warning)
    assert noisy[-1].startswith("QPL is behind no other codec.")


def test_the_noise_of_the_clock_does_not_blur_cpu_times() -> None:
    zstd = figures("zstd 1", 2.3, 480, 720)
    choice = next(choice for choice in judge([GZIP, zstd, QPL], 0.5).choices if choice.rule == "CPU")
    assert (choice.usable, choice.close, choice.rivals) == (zstd, None, ())


@pytest.mark.parametrize(
    ("noise", "sentence"), [(0.0, "encodes 1.2 times as fast and decodes 0.8 times"), (0.3, "encodes about as fast")]
)
def test_speeds_within_the_noise_are_called_about_as_fast(noise: float, sentence: str) -> None:
    ours = qpl(2.3, 1.2 * GZIP.encode, 0.8 * GZIP.decode)
    assert sentence in judge([GZIP, ours], noise).sentences[-1]


def test_no_figure_is_rounded_to_zero() -> None:
    slow = qpl(2.3, GZIP.encode / 3000, GZIP.decode / 400)._replace(encode_cpu=0.0001, decode_cpu=0.0001)
    said = " ".join(judge([GZIP, slow]).sentences)
    assert "encodes 0.00033 times as fast and decodes 0.0025 times as fast" in said
    assert "0.0002 s to encode and decode a GB" in said
    assert not re.search(r"(?<![\d.])0(\.0+)? (s|times|MB)", said)


def test_many_codecs_ahead_are_counted_and_not_listed() -> None:
    ahead = [ZSTD._replace(name=f"zstd {level}") for level in (1, 2, 3)]
    said = judge([GZIP, *ahead, QPL._replace(encode=100)]).sentences[-1]
    assert said.startswith("QPL is behind 3 other codecs in all of ratio, encoding and decoding.")


# ---- The first sentence -------------------------------------------------------------------------


def headline(*everyone: Figures) -> str:
    return judge(everyone).sentences[0]


def test_the_headline_is_ours_where_ours_is_best() -> None:
    assert headline(GZIP, LZ4, QPL) == "QPL helps here."


def test_the_headline_names_both_where_ours_is_as_good() -> None:
    assert headline(GZIP, figures("zstd 1", 2.32, 405, 610), QPL) == (
        "zstd 1 or QPL: they are as good as each other here."
    )


def test_the_headline_is_another_codec_unless_any_gzip_must_read_it() -> None:
    assert headline(GZIP, figures("zstd 1", 3, 500, 950), ISAL, QPL) == (
        "Take zstd 1, not QPL, unless any gzip must be able to read what you write: then QPL."
    )


def test_the_headline_says_where_ours_does_not_help_at_all() -> None:
    assert headline(GZIP, figures("zstd 1", 3, 500, 950), QPL._replace(ratio=1.1)) == (
        "Take zstd 1: QPL does not help here."
    )


def test_the_headline_can_be_ours_behind_shuffle() -> None:
    assert headline(GZIP, QPL, SHUFFLED_QPL) == "shuffle + QPL helps here."


def test_the_headline_is_another_codec_unless_it_must_be_gzip_behind_shuffle() -> None:
    assert headline(GZIP, figures("zstd 1", 3.2, 500, 950), QPL._replace(ratio=1.1), SHUFFLED_QPL) == (
        "Take zstd 1, not QPL, unless what you write must be gzip and its readers can undo shuffle, as zarr can: "
        "then shuffle + QPL."
    )


def test_the_headline_is_one_that_zarr_can_use() -> None:
    assert headline(ISAL, LZ4, GZIP) == headline(LZ4, GZIP)
    assert headline(ISAL, GZIP, qpl(2.3, 300, 600)) == "QPL helps here."


def test_without_rows_of_ours_to_judge_nothing_is_said_for_or_against_it() -> None:
    sentences = judge([GZIP, ZSTD]).sentences
    assert sentences[0].startswith("QPL itself is not judged")
    assert not any("QPL does not help" in said for said in sentences)


# ---- Data that does not compress ----------------------------------------------------------------


def test_data_that_nobody_compresses_is_to_be_stored_as_it_is() -> None:
    verdict = judge([one._replace(ratio=1.04) for one in (GZIP, ZSTD, QPL)])
    assert verdict.choices == ()
    assert len(verdict.sentences) == 1
    assert verdict.sentences[0].startswith(
        "Store this data as it is: the smallest result, that of gzip 1, saves 3.8% of it."
    )


def test_data_that_grows_saves_nothing() -> None:
    assert "saves 0.0% of it" in judge([one._replace(ratio=0.99) for one in (GZIP, QPL)]).sentences[0]


def test_data_that_somebody_compresses_is_not_to_be_stored_as_it_is() -> None:
    assert judge([GZIP._replace(ratio=1.06), ZSTD._replace(ratio=1.0), QPL._replace(ratio=1.0)]).choices


# ---- Our place ----------------------------------------------------------------------------------


def test_whoever_is_ahead_of_ours_is_named_and_gzip_compared() -> None:
    said = judge([GZIP, ISAL, ZSTD, qpl(2.3, 300, 600)]).sentences[-1]
    assert said == (
        "QPL is behind isal gzip 1 and zstd 1 in all of ratio, encoding and decoding. Compared with gzip 1, it encodes "
        "3.3 times as fast and decodes 2.4 times as fast, at 1.00 times the ratio and 0.33 times the CPU time."
    )


def test_our_other_containers_do_not_put_ours_behind() -> None:
    zlib = figures("QPL zlib", 2.5, 900, 900, ours=True)
    assert judge([GZIP, QPL, zlib]).sentences[-1].startswith("QPL is behind no other codec. Compared with gzip 1,")


def test_ours_behind_shuffle_is_compared_with_gzip_behind_shuffle() -> None:
    assert judge([GZIP, QPL, SHUFFLED_GZIP, SHUFFLED_QPL]).sentences[-1] == (
        "shuffle + QPL is behind no other codec. Compared with shuffle + gzip 1, it encodes 4.2 times as fast and "
        "decodes 2.4 times as fast, at 0.94 times the ratio and 0.29 times the CPU time."
    )


def test_the_rules_tell_every_number_that_they_use() -> None:
    for number in ("5%", "100 MB/s", "1,000 MB/s", "two thirds"):
        assert number in RULES
    assert max(map(len, RULES.splitlines())) <= 77  # --help indents them
