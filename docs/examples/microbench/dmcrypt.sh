#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# dmcrypt.sh: what crypt_alloc_buffer and crypt_free_buffer_pages of the real dm-crypt take, by size of the write; root, a machine with nothing on it.
# function_graph times these two functions only; its own part is that of a function that does nothing (cryptbench.ko loaded) and is taken off.
# Needs null_blk and dm-crypt; the cipher is none. Prints CSV: times as the tracer's clock has them, in ns (instructions in qemu.sh's kind of guest).
set -e
tracing=/sys/kernel/tracing
modprobe null_blk nr_devices=1 gb=1; modprobe dm-crypt
if [ -e /sys/module/dm_crypt/parameters/max_write_size ]; then echo 1048576 > /sys/module/dm_crypt/parameters/max_write_size; fi
dmsetup create microbench --table "0 $(blockdev --getsz /dev/nullb0) crypt cipher_null-ecb - 0 /dev/nullb0 0"
device=/dev/$(dmsetup info -c --noheadings -o blkdevname microbench)
trap 'echo nop > $tracing/current_tracer; echo > $tracing/set_ftrace_filter; dmsetup remove microbench; rmmod null_blk' EXIT
echo crypt_alloc_buffer crypt_free_buffer_pages do_nothing > $tracing/set_ftrace_filter
echo 0 > $tracing/options/funcgraph-irqs
echo function_graph > $tracing/current_tracer

times() { # of FUNCTION in the trace, sorted, in ns
	awk -v name="$1" '$0 ~ name { for (i = 2; i <= NF; i++) if ($i == "us") print $(i - 1) * 1000 }' $tracing/trace | sort -n
}
median() { awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

echo > $tracing/trace; echo primitives > /sys/kernel/debug/cryptbench/run
own=$(times do_nothing | median)
echo kernel,n_pages,samples,alloc_median,free_median,tracer
for kib in 4 8 16 32 64 128 256 512 1024; do
	dd if=/dev/zero of=$device bs=${kib}k count=20 oflag=direct status=none
	echo > $tracing/trace
	dd if=/dev/zero of=$device bs=${kib}k count=200 oflag=direct status=none
	samples=$(times crypt_alloc_buffer | wc -l)
	[ "$samples" -le 200 ] || break # the write was cut into several buffers
	echo "$(uname -r),$((kib / 4)),$samples,$(($(times crypt_alloc_buffer | median) - own)),$(($(times crypt_free_buffer_pages | median) - own)),$own"
done
