"""Files behind URLs: reaching them, and saying what is wrong in the same words for every protocol.

A URL is whatever fsspec serves: ``s3://bucket/key``, ``gs://``, ``az://``, ``http(s)://``, ``memory://`` ...; ``file://``
is a path. fsspec is imported when the first URL is met, never for paths. Settings are those of each protocol's own
client (for S3: ``AWS_*`` variables and ``~/.aws``) and of fsspec (``~/.config/fsspec``). Waiting is bounded: a store
that does not answer is an error within seconds, unless fsspec's settings say otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tracereplay.errors import StorageError, TracereplayError, nearest

Place = str | PathLike[str]
"""A path, or a URL as text."""

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 5
ATTEMPTS = 2
"""Of a client, and again of fsspec over it where it has its own."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_EXTRAS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_ENDPOINT_URL for a store of your own",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}


def is_url(place: Place) -> bool:
    """The place is behind a URL, and not on a file system of this machine."""
    match = _URL.match(str(place))
    return match is not None and match[1].lower() not in ("file", "local")


def path_of(place: Place) -> Path:
    """The path of a place on this machine; of ``file://`` URLs too."""
    text = str(place)
    return Path(_URL.sub("", text, count=1)) if _URL.match(text) else Path(place)


def below(place: Place, name: str) -> str:
    """Something in a directory."""
    return f"{str(place).rstrip('/')}/{name}"


def name_of(place: Place) -> str:
    """Last part of a path or URL."""
    return str(place).rstrip("/").rsplit("/", 1)[-1] if is_url(place) else path_of(place).name


@dataclass(frozen=True)
class Store:
    """A URL, and the file system that serves it."""

    url: str
    fs: Any
    path: str
    """Of the URL, as the file system calls it."""

    def inside(self, name: str) -> Store:
        """Something below it."""
        return Store(below(self.url, name), self.fs, below(self.path, name))

    def read(self) -> bytes:
        """All of it. Raises FileNotFoundError, StorageError."""
        with asking(self.url):
            content: bytes = self.fs.cat_file(self.path)
        return content

    def info(self) -> dict[str, Any] | None:
        """What the store says of the file now: ``size``, and its version under a key that depends on the store; None
        when there is none. Raises StorageError."""
        try:
            with asking(self.url):
                self.fs.invalidate_cache()
                found: dict[str, Any] = self.fs.info(self.path)
        except FileNotFoundError:
            return None
        return found

    def listing(self) -> dict[str, dict[str, Any]] | None:
        """Files below it, by path inside it; None where the store lists nothing (HTTP), or not to this user.

        Raises StorageError.
        """
        if self.url.lower().startswith("http"):
            return None
        try:
            with asking(self.url):
                self.fs.invalidate_cache()
                try:
                    found = self.fs.find(self.path, detail=True)
                except PermissionError:
                    return None
        except NotImplementedError:
            return None
        except FileNotFoundError:
            return {}
        start = len(self.fs._strip_protocol(self.path).rstrip("/")) + 1
        return {n[start:]: info for n, info in found.items() if n[start:] and not n.endswith("/")}  # marks of folders

    def get(self, target: Path) -> None:
        """Copy it to a file on this machine. Raises FileNotFoundError, StorageError."""
        with asking(self.url, target):
            self.fs.get_file(self.path, str(target))

    def entries(self) -> list[tuple[str, bool]] | None:
        """Names of what lies right below it, and whether each is a folder; None where that cannot be listed, or there
        is nothing. Raises StorageError."""
        if self.url.lower().startswith("http"):
            return None
        try:
            with asking(self.url):
                self.fs.invalidate_cache()
                found = self.fs.ls(self.path, detail=True)
        except (FileNotFoundError, NotADirectoryError, NotImplementedError):
            return None
        root = self.fs._strip_protocol(self.path).rstrip("/")
        found_below = {(e["name"].rstrip("/"), e["type"] == "directory") for e in found}
        return sorted((name.rpartition("/")[2], folder) for name, folder in found_below if name != root) or None

    def folders(self) -> list[str]:
        """URLs of the folders that match it, a pattern with ``*``, ``?``, ``[``. Raises StorageError."""
        with asking(self.url):
            self.fs.invalidate_cache()
            found = self.fs.glob(self.path, detail=True)
        protocol = self.url.partition("://")[0]
        return sorted(f"{protocol}://{name.lstrip('/')}" for name, info in found.items() if info["type"] == "directory")

    def check_bucket(self) -> None:
        """Raise StorageError where nothing can be written: over HTTP, into a bucket that is not there.

        Who may only write is not told whether there is a bucket, and finds out by writing.
        """
        protocol = self.url.partition("://")[0].lower()
        if protocol in ("http", "https"):
            hint = "write to a path, or to s3://, gs://, az://"
            raise StorageError(f"cannot write {self.url}: HTTP is for reading", hint=hint)
        bucket = self.path.split("/")[0]
        if protocol not in _CREDENTIALS or not bucket:
            return
        try:
            found = Store(self.url, self.fs, bucket).info()
        except StorageError as error:
            if isinstance(error.__cause__, PermissionError):
                return
            raise
        if found is None:
            raise StorageError(
                f"cannot write {self.url}: there is no bucket {bucket}", hint="make it, or check its name"
            )

    def put(self, source: Path) -> None:
        """Put a file in its place: object stores show it when it is whole. Raises StorageError."""
        try:
            with asking(self.url):
                self.fs.put_file(str(source), self.path)
        except FileNotFoundError:
            raise StorageError(
                f"cannot write {self.url}: there is no such bucket or directory", hint="make it, or check its name"
            ) from None

    def remove(self) -> None:
        """Remove the file. Raises StorageError; one that is not there is removed."""
        with asking(self.url), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path)


def store_of(url: str) -> Store:
    """The file system that serves a URL. Raises StorageError for a protocol that is unknown or not installed."""
    match = _URL.match(url)
    assert match is not None
    protocol = match[1].lower()
    try:
        import fsspec
    except ImportError:
        raise StorageError(
            f"cannot open {url}: URLs need the package fsspec", hint="pip install 'tracereplay[stores]'"
        ) from None
    try:
        fs, path = fsspec.core.url_to_fs(url, **_bounded(protocol))
    except ImportError as error:
        package = _EXTRAS.get(protocol, f"that serves {protocol}://")
        install = "'tracereplay[stores]'" if package == "s3fs" else package
        raise StorageError(
            f"cannot open {url}: {protocol}:// needs the package {package} ({error})", hint=f"pip install {install}"
        ) from None
    except ValueError as error:
        known = fsspec.available_protocols()
        if protocol in known:
            raise StorageError(f"cannot open {url}: {error}", hint="check the URL") from None
        guess = nearest(protocol, known)
        raise StorageError(
            f"cannot open {url}: no protocol {protocol}://",
            hint=f"did you mean {guess}://?" if guess else "for example s3://bucket/prefix",
        ) from None
    except Exception as error:  # some clients look for credentials at once
        raise _refusal(url, error, None) from error
    if hasattr(fs, "retries"):
        fs.retries = min(fs.retries, ATTEMPTS)
    return Store(url, fs, path)


def _bounded(protocol: str) -> dict[str, Any]:
    """Options that keep a silent store from holding up a command for minutes, where fsspec's settings have none."""
    from fsspec.config import conf

    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):
        retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
        bounds = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S, "retries": retries}
        options["config_kwargs"] = bounds
    elif protocol in ("http", "https"):
        with contextlib.suppress(ImportError):
            import aiohttp

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
            options["client_kwargs"] = {"timeout": timeout}
    return {name: value for name, value in options.items() if name not in conf.get(protocol, {})}


@contextlib.contextmanager
def asking(url: str, target: Path | None = None) -> Iterator[None]:
    """What a store's client raises, as StorageError with the URL and the next step. ``target``: the file on this
    machine that is written meanwhile.

    FileNotFoundError and NotImplementedError pass: what they mean is known to the caller.
    """
    try:
        yield
    except (TracereplayError, FileNotFoundError, NotImplementedError):
        raise
    except Exception as error:  # each protocol's client raises its own
        raise _refusal(url, error, target) from error


def _refusal(url: str, error: Exception, target: Path | None) -> StorageError:
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    protocol = url.partition("://")[0].lower()
    rights = _CREDENTIALS.get(protocol, "check the credentials")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and target is not None:
        return StorageError(
            f"no space for {url} at {target.parent}",
            hint="free some, or name another place: TRACEREPLAY_CACHE_DIR for traces, TMPDIR for results",
        )
    if "Credential" in kind:
        return StorageError(f"no credentials for {url}: {text}", hint=rights)
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return StorageError(f"the store refuses {url}: {text or kind}", hint=f"check the rights there, or {rights}")
    if isinstance(error, TimeoutError | ConnectionError) or "Connect" in kind or "Timeout" in kind:
        hint = "check the network and the address"
        return StorageError(
            f"cannot reach the store of {url}: {text or kind}",
            hint=f"{hint} (AWS_ENDPOINT_URL)" if protocol == "s3" else hint,
        )
    return StorageError(f"the store failed on {url}: {kind}: {text}", hint="try again, or check the store")
