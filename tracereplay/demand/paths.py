"""Paths: kernel code that takes pages for each WRITE bio, as data. ``--path NAME`` or ``--path NAME:key=value,...``.

A path says how a bio becomes requests (here and in path_bios.py) and which resources those requests share: reserve and
quota, which replay/run.py reads from ``PathSpec.options``. Each option has a range and the source of its default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracereplay.errors import UsageError, nearest
from tracereplay.kernel.constants import PAGE_SIZE, SECTOR_SIZE
from tracereplay.kernel.gfp import GFP_HIGHMEM, GFP_NOIO, GFP_NOMEMALLOC, GFP_NORETRY, GFP_NOWAIT, GFP_NOWARN

MAX_WRITE = 1 << 20
"""BIO_MAX_VECS pages: what one bio of single pages holds, and dm-crypt's largest write until about 6.11."""
NEWER_MAX_WRITE = 1 << 17
"""dm-crypt's ``max_write_size`` where it is left at its default (strategies.md 1.1)."""
NEWER_SINCE = (6, 11)
BIO_PAGES = MAX_WRITE // PAGE_SIZE

Value = int | str


@dataclass(frozen=True, slots=True)
class PathOption:
    """One option of a path. An integer unless it has ``choices``."""

    name: str
    default: Value
    unit: str
    doc: str
    source: str
    low: int = 0
    high: int = 1 << 30
    multiple: int = 1
    choices: tuple[str, ...] = ()

    @property
    def range_text(self) -> str:
        """Allowed values in words."""
        if self.choices:
            return " or ".join(self.choices)
        text = f"{self.low}..{self.high} {self.unit}"
        return text + (f", a multiple of {self.multiple}" if self.multiple > 1 else "")

    def check(self, path: str, value: Value) -> Value:
        """The value, as a number where it is one. Raises UsageError with what is allowed."""
        if self.choices:
            if value in self.choices:
                return value
            guess = nearest(str(value), self.choices)
        else:
            guess = None
            try:
                number = int(value)
            except ValueError:
                number = -1
            if self.low <= number <= self.high and number % self.multiple == 0:
                return number
        hint = f"it takes {self.range_text}"
        raise UsageError(
            f"{path}: {self.name} cannot be {value!r}", hint=f"did you mean {guess!r}? {hint}" if guess else hint
        )


@dataclass(frozen=True, slots=True)
class PathKind:
    """A path as users choose it."""

    name: str
    summary: str
    mimics: str
    options: tuple[PathOption, ...]
    gfp: int
    """What its requests ask with at first; a strategy's own passes may change it."""
    encrypts: bool
    """Bios that dm-crypt encrypts already are left alone."""


_POOL = "elements of the mempool"
_MODE = PathOption(
    "mode",
    "workqueue",
    "",
    "who encrypts: a kcryptd worker, or the task that submits (no_write_workqueue)",
    "strategies.md 1.2",
    choices=("workqueue", "inline"),
)

PATHS: dict[str, PathKind] = {
    kind.name: kind
    for kind in (
        PathKind(
            "dm-crypt",
            "full-disk encryption: each WRITE is encrypted into pages of its own",
            "crypt_map, kcryptd_crypt_write_convert, crypt_endio (drivers/md/dm-crypt.c)",
            (
                _MODE,
                PathOption(
                    "max_write",
                    MAX_WRITE,
                    "bytes",
                    "largest request; larger WRITEs are split",
                    "strategies.md 1.1, by the kernel of the trace",
                    SECTOR_SIZE,
                    MAX_WRITE,
                    SECTOR_SIZE,
                ),
                PathOption(
                    "encrypt_ns",
                    0,
                    "ns per page",
                    "time that encrypting adds before the device sees a page; 0: not added",
                    "none: it belongs to the CPU and the cipher",
                    0,
                    1_000_000,
                ),
                PathOption(
                    "workers",
                    0,
                    "workers",
                    "buffers that kcryptd encrypts at once; 0: as many as CPUs",
                    "strategies.md 1.2",
                    0,
                    1 << 16,
                ),
                PathOption("pool_min", BIO_PAGES, "pages", _POOL, "strategies.md 1.1", 0, 1 << 16),
                PathOption("n_devices", 1, "devices", "dm-crypt devices that share the quota", "ours", 1, 1 << 16),
            ),
            GFP_NOWAIT | GFP_HIGHMEM | GFP_NORETRY | GFP_NOMEMALLOC | GFP_NOWARN,
            True,
        ),
        PathKind(
            "blk-crypto",
            "blk-crypto-fallback: each WRITE is encrypted into bounce pages",
            "the bounce bios of block/blk-crypto-fallback.c",
            (
                PathOption(
                    "pool_min",
                    BIO_PAGES,
                    "pages",
                    _POOL,
                    "ours: mempool_alloc_bulk needs count <= min_nr (strategies.md 4.6), and a bio has up to 256 pages",
                    0,
                    1 << 16,
                ),
            ),
            GFP_NOIO,
            True,
        ),
        PathKind(
            "f2fs-compress",
            "f2fs compression: each cluster of a WRITE takes pages for its compressed data",
            "the page mempool of fs/f2fs/compress.c",
            (
                PathOption("cluster", 4, "pages", "pages of a cluster", "strategies.md 8", 4, 256),
                PathOption(
                    "pool_min",
                    0,
                    "pages",
                    f"{_POOL}; 0: one cluster",
                    "ours: the least that lets one cluster go on",
                    0,
                    1 << 16,
                ),
            ),
            GFP_NOIO,
            False,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class PathSpec:
    """A path with its options."""

    kind: PathKind
    options: dict[str, Value]
    max_write_from: str = ""
    """Where dm-crypt's largest request comes from."""

    @property
    def name(self) -> str:
        """Name of the path."""
        return self.kind.name

    def number(self, option: str) -> int:
        """An option that is a number."""
        return int(self.options[option])

    @property
    def request_bytes(self) -> int:
        """Largest request."""
        if self.name == "dm-crypt":
            return self.number("max_write")
        return self.number("cluster") * PAGE_SIZE if self.name == "f2fs-compress" else MAX_WRITE

    @property
    def pool_pages(self) -> int:
        """Elements of the path's mempool."""
        return self.number("pool_min") or (self.number("cluster") if self.name == "f2fs-compress" else 0)

    @property
    def hold(self) -> str:
        """From when to when a request's pages are held, and what that assumes."""
        if self.name != "dm-crypt":
            return "from the bio's arrival to its completion on the device; work on the data takes no time"
        added = self.number("encrypt_ns")
        if self.options["mode"] == "inline":
            if not added:
                return (
                    "from the bio's arrival to its completion on the device; the submitter encrypts, and that takes no "
                    "time here"
                )
            return f"a task encrypts its bios one after another, {added} ns a page, then the device takes its time"
        if not added:
            return (
                "from the bio's arrival to its completion on the device; a kcryptd worker is there at once, and "
                "encrypting takes no time here"
            )
        workers = self.number("workers") or "as many"
        of = "" if self.number("workers") else " as CPUs"
        return f"{workers} workers{of} encrypt, {added} ns a page, first come first served, then the device"

    def describe(self) -> dict[str, Any]:
        """Name, options and what they assume, for reports."""
        made: dict[str, Any] = {"name": self.name, "options": dict(self.options)}
        if self.max_write_from:
            made["max_write_from"] = self.max_write_from
        return made | {"hold": self.hold}


def parse_path(text: str, *, release: str | None = None, max_write: int | None = None) -> PathSpec:
    """A path from ``NAME`` or ``NAME:key=value,...``.

    ``release``: kernel of the trace, by which dm-crypt's largest request defaults. ``max_write`` overrides it. Raises
    UsageError naming what is wrong and the nearest that is right.
    """
    name, _, rest = text.partition(":")
    kind = PATHS.get(name)
    if kind is None:
        guess = nearest(name, PATHS)
        listing = f"known paths: {', '.join(PATHS)}"
        raise UsageError(f"unknown path {name!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing)
    known = {option.name: option for option in kind.options}
    options = {option.name: option.default for option in kind.options}
    given: dict[str, Value] = {}
    for term in filter(None, (t.strip() for t in rest.split(","))):
        key, _, value = term.partition("=")
        if key not in known:
            guess = nearest(key, known)
            listing = f"options of {name}: {', '.join(f'{o}=' for o in known)}"
            raise UsageError(
                f"path {name} has no option {key!r}", hint=f"did you mean {guess!r}? {listing}" if guess else listing
            )
        given[key] = value
    if max_write is not None:
        if "max_write" not in known:
            raise UsageError(f"path {name} has no largest write to set", hint="--max-write belongs to dm-crypt")
        given["max_write"] = max_write
    origin = ""
    if "max_write" in known:
        if "max_write" in given:
            origin = "as given"
        else:
            options["max_write"], origin = default_max_write(release)
    for key, asked in given.items():
        options[key] = known[key].check(name, asked)
    return PathSpec(kind, options, origin)


def default_max_write(release: str | None) -> tuple[int, str]:
    """dm-crypt's largest write on a kernel release, and why.

    The change came with about 6.11 (strategies.md 1.1); distributions may have it in other versions.
    """
    version = _version(release)
    if version is None:
        return MAX_WRITE, "the trace names no kernel: before 6.11 assumed"
    since = ".".join(map(str, NEWER_SINCE))
    if version >= NEWER_SINCE:
        return NEWER_MAX_WRITE, f"kernel {release}: {since} or later"
    return MAX_WRITE, f"kernel {release}: before {since}"


def _version(release: str | None) -> tuple[int, int] | None:
    parts = (release or "").split(".")
    try:
        return int(parts[0]), int("".join(c for c in parts[1] if c.isdigit()))
    except (ValueError, IndexError):
        return None
