# SPDX-License-Identifier: GPL-2.0-only
"""A generated directory that BCC takes for kernel headers, so that none have to be installed.

Tracepoint programs need no kernel struct. BCC insists on a build directory all the same; these few files are
all that its own headers include. The tree lives in a private 0700 directory for the time of the compilation
only.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_TYPES = """\
#ifndef TRACEREPLAY_TYPES_H
#define TRACEREPLAY_TYPES_H
typedef signed char __s8; typedef unsigned char __u8; typedef short __s16; typedef unsigned short __u16;
typedef int __s32; typedef unsigned int __u32; typedef long long __s64; typedef unsigned long long __u64;
typedef __s8 s8; typedef __u8 u8; typedef __s16 s16; typedef __u16 u16;
typedef __s32 s32; typedef __u32 u32; typedef __s64 s64; typedef __u64 u64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
typedef __u16 __le16; typedef __u32 __le32; typedef __u64 __le64;
typedef __u16 __sum16; typedef __u32 __wsum;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
typedef unsigned long size_t; typedef long ssize_t; typedef unsigned long uintptr_t; typedef int pid_t;
typedef unsigned int dev_t; typedef u64 sector_t; typedef unsigned int gfp_t; typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
#define TASK_COMM_LEN 16
#define __bitwise
#define __user
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
struct pt_regs { unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip,
cs, flags,
    sp, ss; };
#endif
"""
_BPF_COMMON = """\
#pragma once
#define BPF_CLASS(code) ((code) & 0x07)
#define BPF_LD 0x00
#define BPF_LDX 0x01
#define BPF_ST 0x02
#define BPF_STX 0x03
#define BPF_ALU 0x04
#define BPF_JMP 0x05
#define BPF_RET 0x06
#define BPF_MISC 0x07
#define BPF_W 0x00
#define BPF_H 0x08
#define BPF_B 0x10
#define BPF_K 0x00
#define BPF_X 0x08
"""
_LOG2 = """\
#pragma once
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : (1UL << (64 - __builtin_clzl((unsigned long)(n) - 1))))
"""

_KCONFIG = "#define CONFIG_BPF_SYSCALL 1\n#define CONFIG_64BIT 1\n"
_ARCHES = {
    "x86_64": ("x86", "CONFIG_X86_64"),
    "aarch64": ("arm64", "CONFIG_ARM64"),
    "ppc64le": ("powerpc", "CONFIG_PPC64"),
    "s390x": ("s390", "CONFIG_S390"),
    "riscv64": ("riscv", "CONFIG_RISCV"),
}
"""``uname -m`` -> directory of the architecture in a kernel tree (BCC's choice), and its config symbol."""


def _version(release: str) -> str:
    numbers = []
    for part in release.split("-")[0].split(".")[:3]:
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits) if digits else 0)
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return (
        "#pragma once\n#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))\n"
        f"#define LINUX_VERSION_CODE KERNEL_VERSION({major}, {minor}, {patch})\n"
    )


def _page_header() -> str:
    size = os.sysconf("SC_PAGESIZE")
    return f"#pragma once\n#define PAGE_SHIFT {size.bit_length() - 1}\n#define PAGE_SIZE {size}UL\n"


def stub_files(machine: str, release: str) -> dict[str, str]:
    """Path -> text of the tree for a machine (``uname -m``) and a kernel release."""
    arch, config = _ARCHES.get(machine, (machine, "CONFIG_64BIT"))
    return {
        "include/linux/kconfig.h": f"{_KCONFIG}#define {config} 1\n",
        "include/linux/types.h": _TYPES,
        "include/linux/bpf_common.h": _BPF_COMMON,
        "include/uapi/linux/bpf.h": "#include <linux/types.h>\n",
        "include/uapi/linux/if_packet.h": "",
        "include/uapi/linux/ptrace.h": "",
        "include/linux/version.h": _version(release),
        "include/linux/log2.h": _LOG2,
        "include/asm/page.h": _page_header(),
        f"arch/{arch}/include/.keep": "",
    }


@contextlib.contextmanager
def stub_tree() -> Iterator[Path]:
    """The tree on disk with ``BCC_KERNEL_SOURCE`` pointing at it; both are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="tracereplay-stub-"))  # mkdtemp makes it 0700
    before = os.environ.get("BCC_KERNEL_SOURCE")
    try:
        for name, text in stub_files(platform.machine(), platform.release()).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        os.environ["BCC_KERNEL_SOURCE"] = str(root)
        yield root
    finally:
        if before is None:
            os.environ.pop("BCC_KERNEL_SOURCE", None)
        else:
            os.environ["BCC_KERNEL_SOURCE"] = before
        shutil.rmtree(root, ignore_errors=True)
