# SPDX-License-Identifier: GPL-2.0-only
"""Control groups (v2) by id and by path.

The id that BPF programs see is that of the group's directory in kernfs. The kernel opens a directory by its
id through a file handle (fs/kernfs/mount.c: FILEID_KERNFS), whose name is then a link in /proc/self/fd. Where
handles are refused, the directories are walked: the id is their inode number.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import errno
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from collectors.errors import CollectorError

FILEID_KERNFS = 0xFE
_HANDLE = struct.Struct("=Ii8s")
"""struct file_handle with the 8 bytes of a kernfs id: length, type, id."""
_REFUSED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EINVAL)
INITIAL_NAMESPACE = "cgroup:[4026531835]"
"""The host's own cgroup namespace (include/uapi/linux/nsfs.h: CGROUP_NS_INIT_INO)."""
WALK_AGAIN_S = 1.0
SUGGESTIONS_FROM = 1000
"""At most so many groups are looked at for the nearest names."""


def _unescaped(text: str) -> str:
    """A path of mountinfo: blanks, newlines and backslashes are octal."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "replace")


@dataclass
class CgroupTree:
    """The cgroup v2 hierarchy as one of its mounts shows it."""

    mount: Path
    root: str = "/"
    """Path of the mount's root in the hierarchy; "/" but for bind mounts of a part."""
    _walked: dict[int, str] = field(default_factory=dict)
    _walked_at: float | None = None

    @classmethod
    def find(cls, mountinfo: Path = Path("/proc/self/mountinfo")) -> CgroupTree | None:
        """The first mount of type cgroup2; None where none is mounted."""
        try:
            lines = mountinfo.read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            before, _, after = line.partition(" - ")
            if after.split(" ")[0] == "cgroup2":
                root, mount = before.split(" ")[3:5]
                root = _unescaped(root)
                return cls(Path(_unescaped(mount)), "/" if root.startswith("/..") else root)
        return None

    def path_of(self, cgroup_id: int) -> str | None:
        """Path in the hierarchy, as in /proc/PID/cgroup; None when the group is gone or out of reach."""
        try:
            fd = self._open_by_id(cgroup_id)
        except OSError as error:
            return self._walk(cgroup_id) if error.errno in _REFUSED else None
        try:
            name = str(Path(f"/proc/self/fd/{fd}").readlink())
        finally:
            os.close(fd)
        mount = str(self.mount)
        if name == mount:
            return self.root
        if not name.startswith(mount.rstrip("/") + "/") or name.endswith(" (deleted)"):
            return None
        return self._in_hierarchy(name[len(mount.rstrip("/")) :])

    def id_of(self, path: str) -> tuple[int, int]:
        """Id and level (0: the hierarchy's root) of a group, given as a path in the hierarchy (as in
        /proc/PID/cgroup, the leading slash may be missing), or as that of its directory.

        Raises CollectorError when there is none, with the nearest names.
        """
        inside = path
        mount = str(self.mount).rstrip("/")
        if path == mount or path.startswith(mount + "/"):
            inside = path[len(mount) :]
        elif self.root != "/":
            inside = "/" + path.strip("/")
            if inside != self.root and not inside.startswith(self.root + "/"):
                raise CollectorError(
                    f"control group {path} is outside {self.root}, the part that is mounted at {mount}",
                    "capture on the host itself, not in a container",
                )
            inside = inside[len(self.root) :]
        parts = [part for part in inside.split("/") if part]
        directory = self.mount.joinpath(*parts)
        if ".." in parts or not directory.is_dir():
            if path.startswith("/sys/fs/cgroup/") and Path(path).is_dir():
                hint = "that is version 1; eBPF knows version 2: the line of /proc/PID/cgroup that begins with 0::"
            else:
                hint = self._nearest("/".join(parts))
            raise CollectorError(f"there is no control group {path} under {mount}", hint)
        level = len(parts) + len([part for part in self.root.split("/") if part])
        return directory.stat().st_ino, level

    # ------------------------------------------------------------ inner
    def _in_hierarchy(self, below: str) -> str:
        return below if self.root == "/" else self.root + below

    def _open_by_id(self, cgroup_id: int) -> int:
        """A descriptor of the group's directory. Raises OSError: ESTALE when it is gone."""
        libc = ctypes.CDLL(None, use_errno=True)
        handle = ctypes.create_string_buffer(_HANDLE.pack(8, FILEID_KERNFS, struct.pack("=Q", cgroup_id)), _HANDLE.size)
        mount = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fd = int(libc.open_by_handle_at(mount, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        finally:
            os.close(mount)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return fd

    def _walk(self, cgroup_id: int) -> str | None:
        """Path by inode number; the directories are walked anew at most once a second."""
        now = time.monotonic()
        if cgroup_id not in self._walked and (self._walked_at is None or now - self._walked_at >= WALK_AGAIN_S):
            self._walked_at = now
            mount = str(self.mount).rstrip("/")
            self._walked = {}
            for directory, _, _ in os.walk(self.mount):
                with contextlib.suppress(OSError):  # removed meanwhile
                    self._walked[Path(directory).stat().st_ino] = self._in_hierarchy(directory[len(mount) :]) or "/"
        return self._walked.get(cgroup_id)

    def _nearest(self, wanted: str) -> str:
        names: list[str] = []
        mount = str(self.mount).rstrip("/")
        for directory, _, _ in os.walk(self.mount):
            names.append(self._in_hierarchy(directory[len(mount) :]) or "/")
            if len(names) >= SUGGESTIONS_FROM:
                break
        # A group is as often meant by its last name as by its path.
        near = difflib.get_close_matches("/" + wanted, names, 3, 0.5)
        last = wanted.rsplit("/", 1)[-1]
        near += [n for n in names if last and n.endswith("/" + last) and n not in near][:3]
        if near:
            return f"the nearest: {', '.join(near)}"
        return "`systemd-cgls` or /proc/PID/cgroup (the line that begins with 0::) names the groups"


_trees: dict[str, CgroupTree | None] = {}


def _tree() -> CgroupTree | None:
    """The mount, looked for until there is one."""
    if _trees.get("found") is None:
        _trees["found"] = CgroupTree.find()
    return _trees["found"]


def path_of(cgroup_id: int) -> str | None:
    """Path of a control group (v2) by its id; None when it is gone, or no cgroup2 is mounted."""
    tree = _tree()
    return None if tree is None else tree.path_of(cgroup_id)


def id_of(path: str) -> tuple[int, int]:
    """(id, level) of a control group (v2) by its path.

    Raises CollectorError when it does not exist, when no cgroup2 is mounted, or in a cgroup namespace, where
    levels of the host's hierarchy are not known.
    """
    tree = _tree()
    if tree is None:
        raise CollectorError(
            f"no control group {path}: no cgroup v2 hierarchy is mounted here",
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or filter by --comm, --tgid or --pid",
        )
    with contextlib.suppress(OSError):
        if str(Path("/proc/self/ns/cgroup").readlink()) != INITIAL_NAMESPACE:
            raise CollectorError(
                f"control group {path} cannot be found from inside a cgroup namespace",
                "capture on the host itself, or in a container started with the host's cgroup namespace",
            )
    return tree.id_of(path)
