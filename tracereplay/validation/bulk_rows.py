"""Rows about the bulk allocator by itself: Brouer's curves, vmalloc, SUNRPC, page_pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from tracereplay.cost.price import total
from tracereplay.cost.profile import Profile, load_profile
from tracereplay.validation.measure import Bench, difference, loop, priced, ratio
from tracereplay.validation.verdict import Claim, Figure

BATCHES = (1, 2, 3, 4, 8, 16, 32, 64, 128)
SINGLE = 55.472
CURVES = {
    "array": ("brouer-2021", (56.383, 40.047, 37.339, 35.578, 33.592, 32.362, 31.476, 30.633, 30.596)),
    "list": ("brouer-2021-list", (57.478, 42.861, 40.536, 39.477, 39.610, 38.155, 37.739, 37.282, 36.993)),
}
"""Form -> profile fitted to it, and ns per page allocated and freed, by batch."""
XEON = "Xeon E5-1650 v4, 3.6 GHz, Linux 5.12-rc, one CPU"
BROUER = "page_bench04_bulk, J. Brouer, 2021-03-22, on '[PATCH 0/3 v5] Introduce a bulk order-0 page allocator'"
COVER = "'[PATCH 0/9 v6] Introduce a bulk order-0 page allocator with two in-tree users', M. Gorman, 2021-03-25"
SUNRPC = {"list": 25.007 / 6.258, "array": 25.007 / 4.590}
"""Time of a call singly by time of a call in bulk."""
WARM = Bench()


@cache
def counted(strategy: str, pages: int) -> dict[str, int]:
    """Counters of allocating and freeing so many pages on warm lists."""
    return loop(strategy, pages, WARM)


def points(form: str, profile: Profile, batches: Sequence[int], given: Sequence[int]) -> tuple[Figure, ...]:
    """The simulator's curve beside Brouer's, ns per page; of ``given`` batches the profile was told the value."""
    published = dict(zip(BATCHES, CURVES[form][1], strict=True))
    return tuple(
        priced(f"n = {n}", published[n], "ns", counted("bulk", n), profile, per(n), given=n in given) for n in batches
    )


def per(pages: int) -> Callable[[float], float]:
    """A cost as one of so many pages."""
    return lambda cost: cost / pages


def from_ends(form: str) -> Profile:
    """The form's profile with price of a call and of a page from n = 2 and n = 128 alone, instead of a fit to all."""
    profile = load_profile(CURVES[form][0])
    two, most = (dict(zip(BATCHES, CURVES[form][1], strict=True))[n] for n in (2, 128))
    call = (two - most) / (1 / 2 - 1 / 128)
    return profile.with_parameters(bulk_call=call, bulk_page=two - call / 2)


def curves() -> list[Claim]:
    """Rows 1 to 3, with the ratio of section 3.5."""
    array, listed = (load_profile(CURVES[form][0]) for form in ("array", "list"))
    claims = [
        Claim(
            "1",
            "single page, allocated and freed",
            "A",
            XEON,
            BROUER,
            (priced("single", SINGLE, "ns", counted("per-page", 1), array, given=True),),
            "The figure is the profile's parameter `single`: what comes out is what was put in, through the counters"
            " of one call, one watermark test, two locks, one pop and one free.",
        )
    ]
    for row, form, profile in (("2", "array", array), ("3", "list", listed)):
        claims.append(
            Claim(
                row,
                f"bulk, {form} form, per page, n = 2 to 128",
                "A",
                XEON,
                BROUER,
                points(form, profile, BATCHES, given=(1,)),
                "Two of the profile's parameters were fitted to these points; n = 1 is a third, hence given. What is"
                " tested is that the machine's counters for n pages make a curve of this form.",
            )
        )
        claims.append(
            Claim(
                f"{row}a",
                f"the same, prices from n = 2 and n = 128 alone, n = 3 to 64, {form} form",
                "A",
                XEON,
                BROUER,
                points(form, from_ends(form), BATCHES[2:-1], given=()),
                "None of these points was used: two others give the price of a call and of a page.",
            )
        )
    single, bulk = counted("per-page", 64), counted("bulk", 64)
    ratios = [
        ratio(f"{form}, n = 64", CURVES[form][1][BATCHES.index(64)] / SINGLE, bulk, single, profile)
        for form, profile in (("array", array), ("list", listed))
    ]
    claims.append(
        Claim(
            "2b",
            "bulk of 64 to single",
            "A",
            XEON,
            BROUER,
            tuple(ratios),
            "Follows from rows 1 to 3: the same measurements, the same parameters.",
        )
    )
    return claims


def sunrpc() -> Claim:
    """Row 12: one call that refills a request's pages. They are freed elsewhere, so only the allocation counts."""
    bench = Bench(pcp_high=1024, freed=False)
    single, bulk = loop("per-page", 256, bench), loop("bulk", 256, bench)
    figures = [
        ratio(f"single to {form}", published, single, bulk, load_profile(CURVES[form][0]))
        for form, published in SUNRPC.items()
    ]
    return Claim(
        "12",
        "SUNRPC, a call of svc_alloc_arg: 25.007 us singly, 6.258 by list, 4.590 by array",
        "B",
        "NFS server, 517,034 to 532,571 calls; CPU and pages a call are not published",
        f"C. Lever, in {COVER}",
        tuple(figures),
        "256 pages on warm lists, allocation only: the ratio hangs on the share of 55.472 ns that is the free, an"
        " assumption (0.40, 0.30 to 0.50). Times are not compared: pages a call are not published.",
    )


def xdp() -> Claim:
    """Row 13: page_pool refilled by 64 instead of one by one."""
    packet = {"one by one": 1e9 / 3_771_046, "list": 1e9 / 3_940_242, "array": 1e9 / 4_249_224}
    saved = difference(counted("per-page", 64), counted("bulk", 64))
    figures = [
        priced(
            f"saved a packet, {form}",
            packet["one by one"] - packet[form],
            "ns",
            saved,
            load_profile(CURVES[form][0]),
            per(64),
        )
        for form in ("list", "array")
    ]
    return Claim(
        "13",
        "XDP receive, page_pool refilled by 64: 3,771,046, by list 3,940,242, by array 4,249,224 packets/s",
        "B",
        "a network driver with page_pool; that its pages go back to the allocator one by one is our reading",
        f"J. Brouer, in {COVER}",
        tuple(figures),
        "Rows 2 and 3 at n = 64, and nothing else: a packet is taken to cost one page allocated and freed. What the"
        " packet paid in cache misses and in the list walk is not in the prices.",
    )


def vmalloc() -> Claim:
    """Row 14: 4 MiB by single pages and in chunks of 100, beside everything else that vmalloc does."""
    profile = load_profile("brouer-2021")
    lists = Bench(pcp_high=2048)  # with the fixed batches of 5.12 both sides refill alike, so leave refills out
    single, bulk = (loop(strategy, 1024, lists) for strategy in ("per-page", "bulk:batch_cap=100"))
    gone = difference(single, bulk)
    left = priced("bulk to single", 70.639 / 89.219, "", gone, profile, lambda ns: 1 - ns / 89_219, neutral=1.0)
    return Claim(
        "14",
        "vmalloc + vfree of 4 MiB: 89.219 -> 70.639 us, a ratio of 0.792",
        "A",
        "one CPU, a million loops; CPU not published",
        "U. Rezki, 2021-03-23, on the vmalloc patch",
        (left,),
        "The constant part is 89.219 us less the simulator's 1,024 single pages; of those"
        f" {total(gone, profile) / 1000:.1f} us go with bulk, where 18.6 us went. Brouer's CPU is not Rezki's, and part"
        " of what Rezki saved (5 points of 21, by M. Wilcox) is kvmalloc of the page array, not bulk.",
    )


def claims() -> list[Claim]:
    """All rows of this module."""
    return [*curves(), sunrpc(), xdp(), vmalloc()]
