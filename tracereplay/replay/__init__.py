"""Demand x strategy x machine -> counters."""
