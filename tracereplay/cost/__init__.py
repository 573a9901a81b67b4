"""Prices: named coefficients applied to counters after the replay."""
