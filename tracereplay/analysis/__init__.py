"""Canned analyses: what a trace holds, as a function of it to a data frame. Each names the events that it needs."""
