"""Allocation strategies: one file each, with its Params; found through entry points."""
