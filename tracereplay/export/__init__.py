"""Traces in the formats of other tools: flame graphs, timelines, iologs, plain tables."""
