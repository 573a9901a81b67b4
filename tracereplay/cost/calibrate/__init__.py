"""Prices of this host, measured: samples of collectors/calibrate.py -> figures -> intervals -> a profile.

Reading order: ``samples`` (what the collector wrote), ``figures`` (which difference of which gaps is which price),
``estimate`` (medians of blocks, intervals, refusals), ``write`` (the TOML profile), ``run`` (the collector as a
process).
"""
