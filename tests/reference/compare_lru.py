"""The miss-ratio curve of a trace against a plain LRU cache, and its samples against the exact curve.

    python tests/reference/compare_lru.py TRACE [TRACE ...]

Prints, for each trace, exact and simulated misses at seven sizes (they must be equal), then for several ``hold`` the
sampling rate, the mean and largest absolute error of the curve, and how often the exact ratio is inside the interval.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from tests.reference.slow_blocks import lru_misses
from tracereplay import Trace
from tracereplay.analysis.bio_blocks import MISS_RATIO
from tracereplay.analysis.bio_stage import stage_of
from tracereplay.analysis.block_accesses import block_accesses
from tracereplay.analysis.view import View

BLOCK = 4096
HOLDS = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18)


def accesses(trace: Trace) -> list[int]:
    """Keys of the blocks accessed, one by one."""

    def keys() -> Iterator[int]:
        for part in block_accesses(stage_of(View.of(trace), "auto"), "data", BLOCK):
            for first, count in zip(part.first.tolist(), part.count.tolist(), strict=True):
                yield from range(first, first + count)

    return list(keys())


def main() -> None:
    """Compare all traces named."""
    for path in sys.argv[1:]:
        trace = Trace.open(path)
        blocks = accesses(trace)
        exact = MISS_RATIO(trace, by="all", per_octave=16)
        sizes = exact["cache_bytes"].to_numpy() // BLOCK
        ratios = exact["miss_ratio"].to_numpy()
        print(f"{path}: {len(blocks):,} accesses of {len(set(blocks)):,} blocks")
        for i in np.linspace(0, len(sizes) - 1, 7).astype(int):
            simulated = lru_misses(blocks, int(sizes[i]))
            print(f"  {sizes[i]:>9,} blocks: {round(ratios[i] * len(blocks)):>9,} misses, simulated {simulated:>9,}")
        for hold in HOLDS:
            answer = MISS_RATIO.answer(trace, by="all", per_octave=16, hold=hold)
            sampled = answer.frame
            size, ratio = (sampled[c].to_numpy() for c in ("cache_bytes", "miss_ratio"))
            error = np.abs(np.interp(exact["cache_bytes"].to_numpy(), size, ratio) - ratios)
            bound = np.interp(exact["cache_bytes"].to_numpy(), size, sampled["error95"].to_numpy())
            print(
                f"  hold {hold:>7,}: mean error {error.mean():.4f}, largest {error.max():.4f}, within the interval at"
                f" {np.mean(error <= bound + 1e-12):.0%} of {len(error)} sizes; {answer.method.split(';')[0]}"
            )


if __name__ == "__main__":
    main()
