"""Doubly linked circular lists threaded through the page records, with list heads in the same array.

As the kernel's ``list_head`` (include/linux/list.h): additions and removals need no test for the ends.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from tracereplay.compiled import hot


@hot
def first(pg, head):
    """First node of a list; the head itself when the list is empty."""
    return np.int64(pg[3 * head])


@hot
def last(pg, head):
    """Last node of a list; the head itself when the list is empty."""
    return np.int64(pg[3 * head + 1])


@hot
def add_head(pg, head, node):
    """Put a node at the head of a list."""
    nxt = pg[3 * head]
    pg[3 * node] = nxt
    pg[3 * node + 1] = head
    pg[3 * head] = node
    pg[3 * nxt + 1] = node


@hot
def add_tail(pg, head, node):
    """Put a node at the tail of a list."""
    prv = pg[3 * head + 1]
    pg[3 * node] = head
    pg[3 * node + 1] = prv
    pg[3 * prv] = node
    pg[3 * head + 1] = node


@hot
def remove(pg, node):
    """Take a node out of its list."""
    nxt = pg[3 * node]
    prv = pg[3 * node + 1]
    pg[3 * prv] = nxt
    pg[3 * nxt + 1] = prv
