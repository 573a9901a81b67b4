#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# qemu.sh VMLINUZ MODULE.ko PLAN DIRECTORY [KERNEL ARGUMENTS]
# Boot a kernel in QEMU's emulation with nothing but busybox, load MODULE.ko, run PLAN, write what measure.sh writes into DIRECTORY.
# One instruction takes one virtual nanosecond (-icount shift=0), so the rows count instructions and repeat.
# Needs qemu-system-x86_64, a static busybox and cpio. MEM: MiB of memory (2048).
set -e
kernel=$1 module=$2 plan=$3 results=$4 arguments=$5
here=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$module" .ko)
root=$(mktemp -d); trap 'rm -rf "$root" "$root.cpio"' EXIT
mkdir -p "$results" "$root"/{bin,dev,proc,sys}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$module" "$root/module.ko"; cp "$plan" "$root/plan"; cp "$here/measure.sh" "$root/measure.sh"
cat > "$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t debugfs debug /sys/kernel/debug
insmod /module.ko instructions=1 && sh /measure.sh /plan /results $name
cd /results && for file in *; do echo "=== \$file"; cat \$file; done > /dev/ttyS0
echo "=== end" > /dev/ttyS0
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet > "$root.cpio")
qemu-system-x86_64 -accel tcg,thread=single -icount shift=0,sleep=off -rtc clock=vm,base=2026-01-01T00:00:00 -seed 1 \
	-cpu max,-erms,-fsrm,-la57 -m "${MEM:-2048}" -smp 1 -nodefaults -no-user-config -display none -monitor none -no-reboot \
	-serial "file:$results/serial.txt" -kernel "$kernel" -initrd "$root.cpio" \
	-append "console=ttyS0 quiet loglevel=1 panic=-1 nokaslr tsc=reliable mitigations=off $arguments"
tr -d '\r' < "$results/serial.txt" | awk -v results="$results" '
	/^=== end$/ { done = 1; exit }
	/^=== / { file = results "/" $2; printf "" > file; next }
	file { print > file }
	END { exit !done }' || { echo "the guest did not finish: see $results/serial.txt" >&2; exit 1; }
