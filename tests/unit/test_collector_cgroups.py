"""Control groups by id and by path: on ordinary directories that stand for a mount, and on this host's mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors import cgroups
from collectors.cgroups import CgroupTree
from collectors.errors import CollectorError

MOUNTINFO = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw
42 31 0:38 /a /mnt rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.fixture
def tree(tmp_path: Path) -> CgroupTree:
    (tmp_path / "system.slice/postgres.service/worker").mkdir(parents=True)
    (tmp_path / "user.slice").mkdir()
    return CgroupTree(tmp_path)


def test_the_mount_is_found_among_others(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    found = CgroupTree.find(path)
    assert found is not None
    assert (found.mount, found.root) == (Path("/sys/fs/cgroup/uni fied"), "/")


def test_the_root_of_a_partial_mount_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO.splitlines()[-1])
    found = CgroupTree.find(path)
    assert found is not None
    assert found.root == "/a"


def test_no_mount_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text("\n".join(MOUNTINFO.splitlines()[:2]))
    assert CgroupTree.find(path) is None
    assert CgroupTree.find(tmp_path / "none") is None


def test_a_group_is_named_by_its_path_or_its_directory(tree: CgroupTree) -> None:
    expected = (tree.mount / "system.slice/postgres.service").stat().st_ino, 2
    for name in (
        "/system.slice/postgres.service",
        "system.slice/postgres.service/",
        f"{tree.mount}/system.slice/postgres.service",
    ):
        assert tree.id_of(name) == expected
    assert tree.id_of("/") == (tree.mount.stat().st_ino, 0)


@pytest.mark.parametrize("wrong", ["/system.slice/postgre.service", "postgres.service", "/postgres.service"])
def test_a_group_that_does_not_exist_is_refused_with_the_nearest(tree: CgroupTree, wrong: str) -> None:
    with pytest.raises(CollectorError) as caught:
        tree.id_of(wrong)
    assert wrong in caught.value.message
    assert "/system.slice/postgres.service" in caught.value.hint


def test_a_path_out_of_the_tree_is_refused(tree: CgroupTree) -> None:
    with pytest.raises(CollectorError, match="no control group"):
        tree.id_of("/user.slice/../../..")


@pytest.fixture
def no_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_tree: CgroupTree, _cgroup_id: int) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(CgroupTree, "_open_by_id", refuse)


@pytest.mark.usefixtures("no_handles")
def test_levels_and_paths_of_a_partial_mount_are_those_of_the_hierarchy(tree: CgroupTree) -> None:
    part = CgroupTree(tree.mount / "system.slice", "/system.slice")
    worker = (tree.mount / "system.slice/postgres.service/worker").stat().st_ino
    assert part.id_of("/system.slice/postgres.service/worker") == (worker, 3)
    assert part.path_of(worker) == "/system.slice/postgres.service/worker"
    with pytest.raises(CollectorError, match="outside"):
        part.id_of("/user.slice")


@pytest.mark.usefixtures("no_handles")
def test_where_handles_are_refused_the_directories_are_walked(tree: CgroupTree) -> None:
    worker = tree.mount / "system.slice/postgres.service/worker"
    assert tree.path_of(worker.stat().st_ino) == "/system.slice/postgres.service/worker"
    assert tree.path_of(tree.mount.stat().st_ino) == "/"
    assert tree.path_of(1 << 60) is None


def test_without_a_mount_a_filter_is_refused_and_ids_stay_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_trees", {})
    monkeypatch.setattr(CgroupTree, "find", classmethod(lambda _cls: None))
    assert cgroups.path_of(1) is None
    with pytest.raises(CollectorError, match="no cgroup v2 hierarchy is mounted"):
        cgroups.id_of("/system.slice")


@pytest.fixture
def group() -> Iterator[str]:
    """A group of this host; skips where there is no hierarchy, or no right to make one."""
    tree = CgroupTree.find()
    if tree is None or not os.access(tree.mount, os.W_OK):
        pytest.skip("no cgroup v2 mount that can be written")
    name = f"tracereplay-test-{os.getpid()}"
    directory = tree.mount / name / "inner blank"
    directory.mkdir(parents=True)
    yield f"/{name}/inner blank"
    if directory.is_dir():
        directory.rmdir()
    directory.parent.rmdir()


def test_this_hosts_group_is_found_by_the_id_that_programs_see(group: str) -> None:
    tree = CgroupTree.find()
    assert tree is not None
    number, level = tree.id_of(group)
    assert level == 2
    assert tree.path_of(number) == group
    assert tree._walked_at is None, "by handle, not by walking"
    assert tree._walk(number) == group
    assert tree.path_of(tree.id_of("/")[0]) == "/"
    (tree.mount / group[1:]).rmdir()
    assert tree.path_of(number) is None
