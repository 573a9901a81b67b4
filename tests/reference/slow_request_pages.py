"""Requests cut into pieces, one operation after another: what demand/request_pages.py has to make of a stream."""

from __future__ import annotations

from typing import Any

from tracereplay.demand.stream import ALLOC, BATCH, FIRST, OF_BIO, PIECE, REQUIRED, TARGETED

TS, KEY, GFP, PAGES, CALLER, CPU, FLAGS, KIND, ORDER = range(9)


def cut_requests(ops: list[tuple[Any, ...]], most: int, first_bio: int) -> list[tuple[Any, ...]]:
    """Records in the order of OP's fields."""
    made: list[tuple[Any, ...]] = []
    bio, i = first_bio, 0
    while i < len(ops):
        extents = [ops[i]]
        while i + len(extents) < len(ops) and _goes_on(ops[i + len(extents)]):
            extents.append(ops[i + len(extents)])
        i += len(extents)
        op = extents[0]
        large = op[KIND] == ALLOC and op[FLAGS] & TARGETED and not op[FLAGS] & REQUIRED and op[PAGES] > most
        if not large:
            made += extents
            continue
        pieces: list[list[tuple[int, int]]] = [[] for _ in range(-(-op[PAGES] // most))]
        offset = 0
        for extent in extents:
            _put(pieces, extent[KEY], extent[ORDER], offset, most)
            offset += 1 << extent[ORDER]
        number, to_come = None, 0
        if op[FLAGS] & OF_BIO:
            if made and made[-1][KIND] == PIECE:
                number, to_come = made[-1][KEY], made[-1][PAGES]
                made.pop()
            else:
                number = bio
                bio += 1
        for k, piece in enumerate(pieces):
            if number is not None:
                left = len(pieces) - k - 1 + to_come
                made.append((op[TS], number, 0, left, 0, op[CPU], 0, PIECE, 0, 0, 0))
            pages = sum(1 << order for _, order in piece)
            for n, (key, order) in enumerate(piece):
                flags = op[FLAGS] & ~FIRST | (0 if n else FIRST)
                if pages == 1:
                    flags &= ~BATCH
                record = list(extents[0])
                record[KEY], record[ORDER], record[FLAGS], record[PAGES] = key, order, flags, 0 if n else pages
                made.append(tuple(record))
    return made


def _goes_on(op: tuple[Any, ...]) -> bool:
    return bool(op[KIND] == ALLOC and not op[FLAGS] & FIRST)


def _put(pieces: list[list[tuple[int, int]]], key: int, order: int, offset: int, most: int) -> None:
    """Put an extent into the piece in which it lies, else each half of it."""
    if offset // most == (offset + (1 << order) - 1) // most:
        pieces[offset // most].append((key, order))
        return
    half = 1 << order - 1
    _put(pieces, key, order - 1, offset, most)
    _put(pieces, key + half, order - 1, offset + half, most)
