/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What microbench.c and cryptbench.c share: time stamps, samples, the rows of the table, and the control file in debugfs.
 *
 * A line written to /sys/kernel/debug/NAME/run is run at once; its row is appended to /sys/kernel/debug/NAME/rows.
 * /sys/kernel/debug/NAME/samples has each sample of the last case: "alloc free daemons" a line (daemons: 1 kswapd sleeps, 2 kcompactd sleeps).
 * /sys/kernel/debug/NAME/states has a line for each row: what memory looked like before and after (STATE_COLUMNS).
 */
#ifndef BENCH_H
#define BENCH_H

#include <linux/debugfs.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#define SAMPLES_WANTED 400
#define WARMUP_ROUNDS 2
#define MAX_HELD 512
#define MAX_SAMPLES (SAMPLES_WANTED > MAX_HELD ? SAMPLES_WANTED : MAX_HELD)
#define MAX_PAGES 1024
#define ORDERS 11
#define ROWS_BYTES (4 << 20)

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
#define HAVE_BULK 1
#define bulk_pages(gfp, n, pages) alloc_pages_bulk(gfp, n, pages)
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#define HAVE_BULK 1
#define bulk_pages(gfp, n, pages) alloc_pages_bulk_array(gfp, n, pages)
#else
#define HAVE_BULK 0
#define bulk_pages(gfp, n, pages) 0
#endif

#if defined(CONFIG_X86)
#include <asm/msr.h>
#include <asm/tsc.h>
static noinline u64 stamp(void)
{
	return rdtsc_ordered();
}

static u32 stamp_khz(void)
{
	return tsc_khz;
}
#elif defined(CONFIG_ARM64)
static noinline u64 stamp(void)
{
	u64 value;

	asm volatile("isb; mrs %0, cntvct_el0; isb" : "=r"(value) : : "memory");
	return value;
}

static u32 stamp_khz(void)
{
	u64 hertz;

	asm volatile("mrs %0, cntfrq_el0" : "=r"(hertz));
	return div_u64(hertz, 1000);
}
#else
#error "no time stamp for this architecture yet"
#endif

struct bench {
	char *rows, *states;
	size_t rows_used, states_used;
	u8 *daemons;
	u32 *alloc, *free, *sorted;
	unsigned int samples, failed, row;
	size_t before;
	u64 orders[ORDERS];
	struct zone *zone; /* that the cases allocate from */
	unsigned long free_blocks[ORDERS];
};

static struct bench bench;

static __printf(1, 2) void row_text(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	bench.rows_used += vscnprintf(bench.rows + bench.rows_used, ROWS_BYTES - bench.rows_used, format, args);
	va_end(args);
}

static __printf(1, 2) void state_text(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	bench.states_used += vscnprintf(bench.states + bench.states_used, ROWS_BYTES - bench.states_used, format, args);
	va_end(args);
}

#define KSWAPD_SLEEPS 1
#define KCOMPACTD_SLEEPS 2

static u8 daemons_now(void)
{
	pg_data_t *node = NODE_DATA(0);
	u8 daemons = waitqueue_active(&node->kswapd_wait) ? KSWAPD_SLEEPS : 0;

#ifdef CONFIG_COMPACTION
	daemons |= waitqueue_active(&node->kcompactd_wait) ? KCOMPACTD_SLEEPS : 0;
#endif
	return daemons;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
#define kswapd_gave_up(node) atomic_read(&(node)->kswapd_failures)
#else
#define kswapd_gave_up(node) READ_ONCE((node)->kswapd_failures)
#endif

#define STATE_COLUMNS "row,kswapd_slept,kcompactd_slept,kswapd_failures,free_before,free_after"

/* free blocks of node 0 by order, zones from the lowest: "2 0 0 1/5 4 ..." */
static void state_free_blocks(void)
{
	pg_data_t *node = NODE_DATA(0);
	int zone, order;

	for (zone = 0; zone < node->nr_zones; zone++) {
		if (!populated_zone(&node->node_zones[zone]))
			continue;
		for (order = 0; order < ORDERS; order++)
			state_text("%c%lu", order ? ' ' : zone ? '/' : ',', node->node_zones[zone].free_area[order].nr_free);
	}
}

static void state_before(void)
{
	int order;

	bench.before = bench.states_used;
	state_free_blocks();
	for (order = 0; order < ORDERS; order++)
		bench.free_blocks[order] = bench.zone->free_area[order].nr_free;
}

static void state_after(void)
{
	char before[512];
	unsigned int i, kswapd = 0, kcompactd = 0;

	strscpy(before, bench.states + bench.before, sizeof(before));
	bench.states_used = bench.before;
	for (i = 0; i < bench.samples; i++) {
		kswapd += !!(bench.daemons[i] & KSWAPD_SLEEPS);
		kcompactd += !!(bench.daemons[i] & KCOMPACTD_SLEEPS);
	}
	state_text("%u,%u,%u,%d%s", ++bench.row, kswapd, kcompactd, (int)kswapd_gave_up(NODE_DATA(0)), before);
	state_free_blocks();
	state_text("\n");
}

static int compare_u32(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

static bool instructions;
module_param(instructions, bool, 0444);
MODULE_PARM_DESC(instructions, "time stamps count instructions (QEMU -icount shift=0); otherwise rows are in nanoseconds");

/* a difference of time stamps, or the mean of several, as it is printed: whole instructions, or tenths of nanoseconds */
static void row_value(u64 ticks, unsigned int several)
{
	u64 tenths;

	if (instructions) {
		row_text(",%llu", div_u64(ticks, several));
		return;
	}
	tenths = div_u64(div_u64(ticks * 10000000, several), stamp_khz());
	row_text(",%llu.%llu", tenths / 10, tenths % 10);
}

/* ",min,median,mean,p99" of the samples so far */
static void row_statistics(const u32 *values)
{
	unsigned int n = bench.samples, i;
	u64 sum = 0;

	memcpy(bench.sorted, values, n * sizeof(u32));
	sort(bench.sorted, n, sizeof(u32), compare_u32, NULL);
	for (i = 0; i < n; i++)
		sum += values[i];
	row_value(bench.sorted[0], 1);
	row_value(bench.sorted[n / 2], 1);
	row_value(sum, n);
	row_value(bench.sorted[n * 99 / 100], 1);
}

static void samples_reset(void)
{
	bench.samples = bench.failed = 0;
	memset(bench.orders, 0, sizeof(bench.orders));
}

static void row_start(const char *gfp, const char *strategy, unsigned int pages, unsigned int held, unsigned int fragmentation)
{
	unsigned int major = 0, minor = 0;

	if (sscanf(init_utsname()->release, "%u.%u", &major, &minor) != 2)
		major = minor = 0;
	row_text("%u.%u,%d,%s,%s,%u,%u,%u,%u,%u", major, minor, want_init_on_alloc(0) ? 1 : 0, gfp, strategy, pages, held,
		 fragmentation, bench.samples, bench.failed);
	row_statistics(bench.alloc);
	row_statistics(bench.free);
	row_text(",");
}

/* the columns after the statistics */
static void row_end(void)
{
	const char *separator = "";
	int order;

	for (order = 0; order < ORDERS; order++)
		if (bench.orders[order]) {
			row_text("%s%d:%llu", separator, order, bench.orders[order]);
			separator = " ";
		}
	row_text(",%s", instructions ? "instructions" : "ns");
	for (order = 0; order < ORDERS; order++)
		row_text("%c%lu", order ? ' ' : ',', bench.free_blocks[order]);
}

#define COLUMNS "kernel,init_on_alloc,gfp,strategy,n_pages,buffers_held,fragmentation,samples,failed," \
		"alloc_min,alloc_median,alloc_mean,alloc_p99,free_min,free_median,free_mean,free_p99,orders," \
		"unit,free_blocks"

static int run_line(char *line); /* each module has its own */

static ssize_t run_write(struct file *file, const char __user *from, size_t bytes, loff_t *position)
{
	char *text, *rest, *line;
	int error = 0;

	if (bytes > 65536)
		return -EINVAL;
	text = memdup_user_nul(from, bytes);
	if (IS_ERR(text))
		return PTR_ERR(text);
	rest = text;
	while (!error && (line = strsep(&rest, "\n"))) {
		line = strim(line);
		if (*line && *line != '#')
			error = run_line(line);
	}
	kfree(text);
	return error ? error : bytes;
}

static const struct file_operations run_file = { .owner = THIS_MODULE, .write = run_write };

static int rows_show(struct seq_file *out, void *unused)
{
	seq_write(out, bench.rows, bench.rows_used);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rows);

static int states_show(struct seq_file *out, void *unused)
{
	seq_write(out, bench.states, bench.states_used);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(states);

static int samples_show(struct seq_file *out, void *unused)
{
	unsigned int i;

	for (i = 0; i < bench.samples; i++)
		seq_printf(out, "%u %u %u\n", bench.alloc[i], bench.free[i], bench.daemons[i]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(samples);

static struct dentry *bench_directory;

static int bench_start(const char *name, const char *columns)
{
	struct page *page = alloc_page(GFP_NOIO);

	if (!page)
		return -ENOMEM;
	bench.zone = page_zone(page);
	__free_page(page);
	bench.rows = vzalloc(ROWS_BYTES);
	bench.states = vzalloc(ROWS_BYTES);
	bench.daemons = vzalloc(MAX_SAMPLES);
	bench.alloc = vzalloc(MAX_SAMPLES * sizeof(u32));
	bench.free = vzalloc(MAX_SAMPLES * sizeof(u32));
	bench.sorted = vzalloc(MAX_SAMPLES * sizeof(u32));
	if (!bench.rows || !bench.states || !bench.daemons || !bench.alloc || !bench.free || !bench.sorted)
		return -ENOMEM;
	row_text("%s\n", columns);
	state_text("%s\n", STATE_COLUMNS);
	bench_directory = debugfs_create_dir(name, NULL);
	debugfs_create_file("run", 0200, bench_directory, NULL, &run_file);
	debugfs_create_file("rows", 0400, bench_directory, NULL, &rows_fops);
	debugfs_create_file("states", 0400, bench_directory, NULL, &states_fops);
	debugfs_create_file("samples", 0400, bench_directory, NULL, &samples_fops);
	return 0;
}

static void bench_stop(void)
{
	debugfs_remove_recursive(bench_directory);
	vfree(bench.rows);
	vfree(bench.states);
	vfree(bench.daemons);
	vfree(bench.alloc);
	vfree(bench.free);
	vfree(bench.sorted);
}

#endif
