// SPDX-License-Identifier: GPL-2.0
/*
 * What the page allocator costs: buffers of n pages, taken and given back, each allocation and each free timed.
 *
 * Lines for /sys/kernel/debug/microbench/run:
 *   case GFP STRATEGY N_PAGES BUFFERS_HELD    one row; GFP noio|nowait, STRATEGY below
 *   fragment F                                hold every page whose pfn is a multiple of 2^F, everything else stays free
 *   release                                   give those back
 * The columns are those that `tracereplay profiles fit` reads (docs/measure-a-kernel.md).
 */
#include "bench.h"

struct buffer {
	struct page **pages;
	u8 *orders;
	unsigned int blocks;
};

static struct buffer *buffers;
static struct page **page_slots;
static u8 *order_slots;
static unsigned int fragmentation;
static struct page *fragments; /* chained through page_private */

#define COMPOUND_FLAGS (__GFP_COMP | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN)

static noinline bool take_none(gfp_t gfp, unsigned int n, struct buffer *buffer)
{
	return true;
}

static noinline bool take_per_page(gfp_t gfp, unsigned int n, struct buffer *buffer)
{
	while (buffer->blocks < n) {
		struct page *page = alloc_page(gfp);

		if (!page)
			return false;
		buffer->pages[buffer->blocks++] = page;
	}
	return true;
}

#if HAVE_BULK
static noinline bool take_bulk(gfp_t gfp, unsigned int n, struct buffer *buffer)
{
	while (buffer->blocks < n) {
		unsigned int got = bulk_pages(gfp, n, buffer->pages);

		if (got == buffer->blocks) {
			struct page *page = alloc_page(gfp);

			if (!page)
				return false;
			buffer->pages[got++] = page;
		}
		buffer->blocks = got;
	}
	return true;
}
#endif

static noinline bool take_compound_single(gfp_t gfp, unsigned int n, struct buffer *buffer)
{
	unsigned int order = ilog2(n);
	struct page *page = alloc_pages(order ? gfp | COMPOUND_FLAGS : gfp, order);

	if (!page)
		return false;
	buffer->pages[0] = page;
	buffer->orders[0] = order;
	buffer->blocks = 1;
	return true;
}

/* crypt_alloc_buffer since 6.5: the order never rises again within a buffer */
static noinline bool take_compound(gfp_t gfp, unsigned int n, struct buffer *buffer)
{
	unsigned int order = ORDERS - 1;

	while (n) {
		struct page *page = NULL;

		order = min_t(unsigned int, order, ilog2(n));
		while (order > 0) {
			page = alloc_pages(gfp | COMPOUND_FLAGS, order);
			if (page)
				break;
			order--;
		}
		if (!page)
			page = alloc_page(gfp);
		if (!page)
			return false;
		buffer->pages[buffer->blocks] = page;
		buffer->orders[buffer->blocks++] = order;
		n -= 1u << order;
	}
	return true;
}

static noinline void give_pages(struct buffer *buffer)
{
	unsigned int i;

	for (i = 0; i < buffer->blocks; i++) {
		__free_page(buffer->pages[i]);
		buffer->pages[i] = NULL;
	}
}

static noinline void give_blocks(struct buffer *buffer)
{
	unsigned int i;

	for (i = 0; i < buffer->blocks; i++) {
		__free_pages(buffer->pages[i], buffer->orders[i]);
		buffer->pages[i] = NULL;
	}
}

static const struct strategy {
	const char *name;
	bool (*take)(gfp_t gfp, unsigned int n, struct buffer *buffer);
	void (*give)(struct buffer *buffer);
} strategies[] = {
	{ "none", take_none, give_pages }, /* the time stamps alone */
	{ "per-page", take_per_page, give_pages },
#if HAVE_BULK
	{ "bulk", take_bulk, give_pages },
#endif
	{ "compound-single", take_compound_single, give_blocks },
	{ "compound", take_compound, give_blocks },
};

static void run_round(const struct strategy *strategy, gfp_t gfp, unsigned int n, unsigned int held, bool counted)
{
	u32 *alloc = bench.alloc + bench.samples, *free = bench.free + bench.samples;
	bool (*take)(gfp_t, unsigned int, struct buffer *) = strategy->take;
	void (*give)(struct buffer *) = strategy->give;
	unsigned int i, block;
	u64 start;

	for (i = 0; i < held; i++) {
		struct buffer *buffer = &buffers[i];
		bool got;

		bench.daemons[bench.samples + i] = daemons_now();
		start = stamp();
		got = take(gfp, n, buffer);
		alloc[i] = stamp() - start;
		if (!counted)
			continue;
		bench.failed += !got;
		if (give == give_blocks)
			for (block = 0; block < buffer->blocks; block++)
				bench.orders[buffer->orders[block]]++;
	}
	for (i = 0; i < held; i++) {
		struct buffer *buffer = &buffers[i];

		start = stamp();
		give(buffer);
		free[i] = stamp() - start;
		buffer->blocks = 0;
	}
	if (counted)
		bench.samples += held;
	cond_resched();
}

static int run_case(const char *gfp_name, const char *name, unsigned int n, unsigned int held)
{
	gfp_t gfp = !strcmp(gfp_name, "noio") ? GFP_NOIO : GFP_NOWAIT | __GFP_NOWARN;
	const struct strategy *strategy = NULL;
	unsigned int i, rounds;

	for (i = 0; i < ARRAY_SIZE(strategies); i++)
		if (!strcmp(name, strategies[i].name))
			strategy = &strategies[i];
	if (!HAVE_BULK && !strcmp(name, "bulk"))
		return 0; /* this kernel has no bulk allocator: no row */
	if (!strategy || !n || n > MAX_PAGES || !held || held > MAX_HELD)
		return -EINVAL;
	samples_reset();
	state_before();
	rounds = max(SAMPLES_WANTED / held, 1u);
	for (i = 0; i < WARMUP_ROUNDS; i++)
		run_round(strategy, gfp, n, held, false);
	for (i = 0; i < rounds; i++)
		run_round(strategy, gfp, n, held, true);
	row_start(gfp_name, name, n, held, fragmentation);
	row_end();
	row_text("\n");
	state_after();
	return 0;
}

static void release(void)
{
	struct page *page, *next;

	for (page = fragments; page; page = next) {
		next = (struct page *)page_private(page);
		set_page_private(page, 0);
		__free_page(page);
		cond_resched();
	}
	fragments = NULL;
	fragmentation = 0;
}

static void fragment(unsigned int f)
{
	struct page *taken = NULL, *page, *next;
	unsigned long given = 0;

	release();
	while ((page = alloc_page(GFP_NOWAIT | __GFP_NOWARN))) {
		set_page_private(page, (unsigned long)taken);
		taken = page;
		cond_resched();
	}
	/* what is left below the watermarks too, and nobody else runs until enough is given back */
	while ((page = alloc_page(GFP_ATOMIC | __GFP_MEMALLOC | __GFP_NOWARN))) {
		set_page_private(page, (unsigned long)taken);
		taken = page;
	}
	for (page = taken; page; page = next) {
		next = (struct page *)page_private(page);
		if (page_to_pfn(page) & ((1ul << f) - 1)) {
			set_page_private(page, 0);
			__free_page(page);
		} else {
			set_page_private(page, (unsigned long)fragments);
			fragments = page;
		}
		if (++given > 65536)
			cond_resched();
	}
	fragmentation = f;
}

static int run_line(char *line)
{
	char gfp[16], strategy[32];
	unsigned int n, held, f;

	if (sscanf(line, "case %15s %31s %u %u", gfp, strategy, &n, &held) == 4)
		return run_case(gfp, strategy, n, held);
	if (sscanf(line, "fragment %u", &f) == 1 && f > 0 && f < ORDERS) {
		fragment(f);
		return 0;
	}
	if (!strcmp(line, "release")) {
		release();
		return 0;
	}
	return -EINVAL;
}

static int __init microbench_init(void)
{
	unsigned int i;
	int error = bench_start("microbench", COLUMNS);

	buffers = vzalloc(MAX_HELD * sizeof(*buffers));
	page_slots = vzalloc(array3_size(MAX_HELD, MAX_PAGES, sizeof(*page_slots)));
	order_slots = vzalloc(array_size(MAX_HELD, MAX_PAGES));
	if (error || !buffers || !page_slots || !order_slots) {
		bench_stop();
		return -ENOMEM;
	}
	for (i = 0; i < MAX_HELD; i++) {
		buffers[i].pages = page_slots + i * MAX_PAGES;
		buffers[i].orders = order_slots + i * MAX_PAGES;
	}
	return 0;
}

static void __exit microbench_exit(void)
{
	release();
	bench_stop();
	vfree(buffers);
	vfree(page_slots);
	vfree(order_slots);
}

module_init(microbench_init);
module_exit(microbench_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("cost of page allocations, as rows for tracereplay profiles fit");
