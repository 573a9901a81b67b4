// SPDX-License-Identifier: GPL-2.0
/*
 * The same buffers as dm-crypt takes them, and the primitives that surround a page allocation, each timed alone.
 *
 * Lines for /sys/kernel/debug/cryptbench/run:
 *   crypt STRATEGY N_PAGES BUFFERS_HELD PATH    one row, GFP_NOWAIT | __GFP_HIGHMEM as dm-crypt's first try
 *       STRATEGY crypt-per-page (crypt_alloc_buffer until 6.4), crypt-compound (since 6.5), crypt-bulk (the patches of 2023)
 *       PATH     pages (pool, quota and pages), vectors (each block added to a bio that is there), bio (bio allocated and freed too)
 *   primitives                                  one line each in /sys/kernel/debug/cryptbench/primitives
 */
#include "bench.h"
#include <linux/bio.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/percpu_counter.h>
#include <linux/workqueue.h>

#define VECTORS 256
#define RESERVE VECTORS
#define TIMES 16 /* of a primitive between two time stamps */

struct crypt {
	mempool_t pool;
	struct percpu_counter allocated;
	unsigned long quota;
	struct mutex bio_alloc_lock;
	struct bio_set bios;
};

static struct crypt crypt;

struct buffer {
	struct bio *bio;
	struct page **pages;
	unsigned int blocks;
};

enum route { ROUTE_PAGES, ROUTE_VECTORS, ROUTE_BIO };

static struct buffer *buffers;
static struct page **page_slots;

static void *crypt_page_alloc(gfp_t gfp, void *data)
{
	struct crypt *c = data;
	struct page *page;

	if (unlikely(percpu_counter_read_positive(&c->allocated) >= c->quota) && likely(gfp & __GFP_NORETRY))
		return NULL;
	page = alloc_page(gfp);
	if (likely(page))
		percpu_counter_add(&c->allocated, 1);
	return page;
}

static void crypt_page_free(void *page, void *data)
{
	struct crypt *c = data;

	__free_page(page);
	percpu_counter_sub(&c->allocated, 1);
}

static struct bio *take_bio(struct crypt *c, unsigned int vectors)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	return bio_alloc_bioset(NULL, vectors, REQ_OP_WRITE, GFP_NOIO, &c->bios);
#else
	return bio_alloc_bioset(GFP_NOIO, vectors, &c->bios);
#endif
}

static __always_inline void add_block(struct buffer *buffer, struct page *page, unsigned int order, enum route path)
{
	buffer->pages[buffer->blocks++] = page;
	if (path != ROUTE_PAGES && bio_add_page(buffer->bio, page, PAGE_SIZE << order, 0) == 0)
		WARN_ON_ONCE(1);
}

static __always_inline bool take_per_page(struct crypt *c, unsigned int n, struct buffer *buffer, enum route path)
{
	gfp_t gfp = GFP_NOWAIT | __GFP_HIGHMEM;

	if (path == ROUTE_BIO)
		buffer->bio = take_bio(c, n);
	while (n--) {
		struct page *page = mempool_alloc(&c->pool, gfp);

		if (!page)
			return false;
		add_block(buffer, page, 0, path);
	}
	return true;
}

static __always_inline bool take_bulk(struct crypt *c, unsigned int n, struct buffer *buffer, enum route path)
{
	gfp_t gfp = GFP_NOWAIT | __GFP_HIGHMEM;
	unsigned int got = 0, i;

	if (path == ROUTE_BIO)
		buffer->bio = take_bio(c, n);
	if (percpu_counter_read_positive(&c->allocated) < c->quota) {
		got = bulk_pages(gfp | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN, n, buffer->pages);
		percpu_counter_add(&c->allocated, got);
	}
	for (i = 0; i < got; i++)
		add_block(buffer, buffer->pages[i], 0, path);
	for (; i < n; i++) {
		struct page *page = mempool_alloc(&c->pool, gfp);

		if (!page)
			return false;
		add_block(buffer, page, 0, path);
	}
	return true;
}

static __always_inline bool take_compound(struct crypt *c, unsigned int n, struct buffer *buffer, enum route path)
{
	gfp_t gfp = GFP_NOWAIT | __GFP_HIGHMEM;
	unsigned int order = ORDERS - 1;

	if (path == ROUTE_BIO)
		buffer->bio = take_bio(c, n);
	while (n) {
		struct page *page;

		order = min_t(unsigned int, order, ilog2(n));
		for (; order > 0; order--) {
			if (percpu_counter_read_positive(&c->allocated) + (1 << order) > c->quota)
				continue;
			page = alloc_pages(gfp | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN | __GFP_COMP, order);
			if (likely(page)) {
				percpu_counter_add(&c->allocated, 1 << order);
				goto have;
			}
		}
		page = mempool_alloc(&c->pool, gfp);
		if (!page)
			return false;
have:
		add_block(buffer, page, order, path);
		n -= 1u << order;
	}
	return true;
}

static __always_inline void give_page(struct crypt *c, struct page *page)
{
	if (PageCompound(page)) {
		percpu_counter_sub(&c->allocated, 1 << compound_order(page));
		put_page(page);
	} else {
		mempool_free(page, &c->pool);
	}
}

static __always_inline void give_all(struct crypt *c, struct buffer *buffer, enum route path, bool compound)
{
	unsigned int i;

	if (path == ROUTE_PAGES || compound) {
		for (i = 0; i < buffer->blocks; i++)
			if (compound)
				give_page(c, buffer->pages[i]);
			else
				mempool_free(buffer->pages[i], &c->pool);
	} else {
		struct bvec_iter_all iterator;
		struct bio_vec *vector;

		bio_for_each_segment_all(vector, buffer->bio, iterator)
			mempool_free(vector->bv_page, &c->pool);
	}
	if (path == ROUTE_BIO)
		bio_put(buffer->bio);
}

#define VARIANT(name, path, compound)                                                                                        \
	static noinline bool take_##name##_##path(struct crypt *c, unsigned int n, struct buffer *b)                         \
	{                                                                                                                    \
		return take_##name(c, n, b, path);                                                                           \
	}                                                                                                                    \
	static noinline void give_##name##_##path(struct crypt *c, struct buffer *b)                                         \
	{                                                                                                                    \
		give_all(c, b, path, compound);                                                                              \
	}
#define VARIANTS(name, compound) \
	VARIANT(name, ROUTE_PAGES, compound) VARIANT(name, ROUTE_VECTORS, compound) VARIANT(name, ROUTE_BIO, compound)
VARIANTS(per_page, false)
VARIANTS(bulk, false)
VARIANTS(compound, true)

static const char *const paths[] = { "pages", "vectors", "bio" };
static const struct strategy {
	const char *name;
	bool (*take[3])(struct crypt *c, unsigned int n, struct buffer *buffer);
	void (*give[3])(struct crypt *c, struct buffer *buffer);
} strategies[] = {
#define STRATEGY(text, name)                                                                                                 \
	{                                                                                                                    \
		text, { take_##name##_ROUTE_PAGES, take_##name##_ROUTE_VECTORS, take_##name##_ROUTE_BIO },                      \
			{ give_##name##_ROUTE_PAGES, give_##name##_ROUTE_VECTORS, give_##name##_ROUTE_BIO }                     \
	}
	STRATEGY("crypt-per-page", per_page),
	STRATEGY("crypt-bulk", bulk),
	STRATEGY("crypt-compound", compound),
};

static void run_round(const struct strategy *strategy, enum route path, unsigned int n, unsigned int held, bool counted)
{
	u32 *alloc = bench.alloc + bench.samples, *free = bench.free + bench.samples;
	bool (*take)(struct crypt *, unsigned int, struct buffer *) = strategy->take[path];
	void (*give)(struct crypt *, struct buffer *) = strategy->give[path];
	unsigned int i, block;
	u64 start;

	for (i = 0; i < held; i++) {
		struct buffer *buffer = &buffers[i];
		bool got;

		if (path == ROUTE_VECTORS)
			buffer->bio = take_bio(&crypt, n);
		bench.daemons[bench.samples + i] = daemons_now();
		start = stamp();
		got = take(&crypt, n, buffer);
		alloc[i] = stamp() - start;
		if (!counted)
			continue;
		bench.failed += !got;
		if (!strcmp(strategy->name, "crypt-compound"))
			for (block = 0; block < buffer->blocks; block++)
				bench.orders[compound_order(buffer->pages[block])]++;
	}
	for (i = 0; i < held; i++) {
		struct buffer *buffer = &buffers[i];

		start = stamp();
		give(&crypt, buffer);
		free[i] = stamp() - start;
		if (path == ROUTE_VECTORS)
			bio_put(buffer->bio);
		memset(buffer->pages, 0, n * sizeof(struct page *));
		buffer->blocks = 0;
		buffer->bio = NULL;
	}
	if (counted)
		bench.samples += held;
	cond_resched();
}

static int run_case(const char *name, unsigned int n, unsigned int held, const char *path_name)
{
	const struct strategy *strategy = NULL;
	int path = match_string(paths, ARRAY_SIZE(paths), path_name);
	unsigned int i, rounds;

	if (!HAVE_BULK && !strcmp(name, "crypt-bulk"))
		return 0;
	for (i = 0; i < ARRAY_SIZE(strategies); i++)
		if (!strcmp(name, strategies[i].name))
			strategy = &strategies[i];
	if (!strategy || path < 0 || !n || n > VECTORS || !held || held > MAX_HELD)
		return -EINVAL;
	samples_reset();
	state_before();
	rounds = max(SAMPLES_WANTED / held, 1u);
	for (i = 0; i < WARMUP_ROUNDS; i++)
		run_round(strategy, path, n, held, false);
	for (i = 0; i < rounds; i++)
		run_round(strategy, path, n, held, true);
	row_start("nowait", name, n, held, 0);
	row_end();
	row_text(",%s\n", path_name);
	state_after();
	return 0;
}

/* Primitives */

static char *primitive_rows;
static size_t primitive_used;
static u64 nothing_once, nothing_times; /* the stamps and the loop: taken off each sample */

static void primitive_row(const char *name, unsigned int times)
{
	unsigned int n = bench.samples;
	u64 sum = 0, empty = times == 1 ? nothing_once : nothing_times;
	unsigned int i;

	memcpy(bench.sorted, bench.alloc, n * sizeof(u32));
	sort(bench.sorted, n, sizeof(u32), compare_u32, NULL);
	for (i = 0; i < n; i++)
		sum += bench.alloc[i];
#define TENTHS(value) (u64)(max_t(s64, (s64)(value) - (s64)empty, 0) * 10 / times)
#define PRINTED(value) TENTHS(value) / 10, TENTHS(value) % 10
	primitive_used += scnprintf(primitive_rows + primitive_used, PAGE_SIZE * 4 - primitive_used,
				    "%s,%u,%u,%llu.%llu,%llu.%llu,%llu.%llu,%llu.%llu\n", name, times, n, PRINTED(bench.sorted[0]),
				    PRINTED(bench.sorted[n / 2]), PRINTED(div_u64(sum, n)), PRINTED(bench.sorted[n * 99 / 100]));
}

#define PRIMITIVE(name, times, before, action, after)                                                                        \
	do {                                                                                                                 \
		samples_reset();                                                                                             \
		for (bench.samples = 0; bench.samples < 200; bench.samples++) {                                              \
			u64 start;                                                                                           \
			unsigned int turn;                                                                                   \
			before;                                                                                              \
			start = stamp();                                                                                     \
			for (turn = 0; turn < (times); turn++) {                                                             \
				action;                                                                                      \
				barrier();                                                                                   \
			}                                                                                                    \
			bench.alloc[bench.samples] = stamp() - start;                                                        \
			after;                                                                                               \
			cond_resched();                                                                                      \
		}                                                                                                            \
		primitive_row(name, times);                                                                            \
	} while (0)

static noinline void do_nothing(void)
{
	barrier();
}
static void (*volatile indirect)(void) = do_nothing;

static void *element;
static bool element_given;
static void *element_alloc(gfp_t gfp, void *data)
{
	return element_given ? element : NULL;
}
static void element_free(void *which, void *data)
{
}

static void queued(struct work_struct *work)
{
}
static DECLARE_WORK(work, queued);

static int sleeper(void *unused)
{
	while (!kthread_should_stop()) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (!kthread_should_stop())
			schedule();
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

/* the address of a function that modules may not link to */
static void *address_of(const char *symbol)
{
	struct kprobe probe = { .symbol_name = symbol };
	void *address;

	if (register_kprobe(&probe))
		return NULL;
	address = probe.addr;
	unregister_kprobe(&probe);
	return address;
}

#define MAP_BLOCKS 32
/* take 4 KiB pages out of the direct map: the first of each 2 MiB block splits its mapping */
static void direct_map_primitives(void)
{
	int (*invalid)(struct page *) = address_of("set_direct_map_invalid_noflush");
	int (*valid)(struct page *) = address_of("set_direct_map_default_noflush");
	void (*flush)(unsigned long, unsigned long) = address_of("flush_tlb_kernel_range");
	struct page *blocks[MAP_BLOCKS];
	unsigned long address;
	unsigned int i, turn, which;
	u64 start;
	static const char *const names[] = { "direct-map-remove-first-of-2MiB", "direct-map-remove-next", "flush-tlb-one-page",
					     "flush-tlb-2MiB", "direct-map-restore", "direct-map-restore-512-pages" };

	if (!invalid || !valid || !flush)
		return;
	for (i = 0; i < MAP_BLOCKS; i++)
		blocks[i] = alloc_pages(GFP_KERNEL | __GFP_NOWARN, 9);
	for (which = 0; which < ARRAY_SIZE(names); which++) {
		samples_reset();
		for (i = 0; i < MAP_BLOCKS; i++) {
			if (!blocks[i])
				continue;
			address = (unsigned long)page_address(blocks[i]);
			if (which == 5)
				for (turn = 2; turn < 512; turn++)
					invalid(blocks[i] + turn);
			start = stamp();
			switch (which) {
			case 0: invalid(blocks[i]); break;
			case 1: invalid(blocks[i] + 1); break;
			case 2: flush(address, address + PAGE_SIZE); break;
			case 3: flush(address, address + (PAGE_SIZE << 9)); break;
			case 4: valid(blocks[i]); break;
			default:
				for (turn = 1; turn < 512; turn++)
					valid(blocks[i] + turn);
			}
			bench.alloc[bench.samples++] = stamp() - start;
			cond_resched();
		}
		if (bench.samples)
			primitive_row(names[which], 1);
	}
	for (i = 0; i < MAP_BLOCKS; i++)
		if (blocks[i]) {
			flush((unsigned long)page_address(blocks[i]), (unsigned long)page_address(blocks[i]) + (PAGE_SIZE << 9));
			__free_pages(blocks[i], 9);
		}
}

static int primitives(void)
{
	struct task_struct *thread;
	struct page *page = alloc_page(GFP_KERNEL), *pages[TIMES];
	void *elements[TIMES];
	static DEFINE_SPINLOCK(lock);
	unsigned long flags;
	mempool_t pool = {};
	struct bio *bio = NULL;
	atomic_t counter = ATOMIC_INIT(0);
	s64 volatile sink;
	int error = -ENOMEM;

	if (!page)
		return error;
	element = page;
	element_given = true;
	if (mempool_init(&pool, TIMES, element_alloc, element_free, NULL))
		goto out_page;
	primitive_used = scnprintf(primitive_rows, PAGE_SIZE, "primitive,times,samples,min,median,mean,p99\n");
	nothing_once = nothing_times = 0;
	PRIMITIVE("nothing", 1, , , );
	nothing_once = bench.sorted[0];
	PRIMITIVE("nothing", TIMES, , , );
	nothing_times = bench.sorted[0];
	PRIMITIVE("direct-call", TIMES, , do_nothing(), );
	PRIMITIVE("indirect-call", TIMES, , indirect(), );
	PRIMITIVE("atomic-inc", TIMES, , atomic_inc(&counter), );
	PRIMITIVE("local-irq-save-restore", TIMES, , local_irq_save(flags); local_irq_restore(flags), );
	PRIMITIVE("preempt-disable-enable", TIMES, , preempt_disable(); preempt_enable(), );
	PRIMITIVE("spin-lock-unlock", TIMES, , spin_lock(&lock); spin_unlock(&lock), );
	PRIMITIVE("spin-lock-irqsave-restore", TIMES, , spin_lock_irqsave(&lock, flags); spin_unlock_irqrestore(&lock, flags), );
	PRIMITIVE("mutex-lock-unlock", TIMES, , mutex_lock(&crypt.bio_alloc_lock); mutex_unlock(&crypt.bio_alloc_lock), );
	PRIMITIVE("percpu-counter-read", TIMES, , sink = percpu_counter_read_positive(&crypt.allocated), );
	PRIMITIVE("percpu-counter-add", TIMES, , percpu_counter_add(&crypt.allocated, 1),
		  percpu_counter_add(&crypt.allocated, -TIMES));
	PRIMITIVE("percpu-counter-add-folding", TIMES, , percpu_counter_add(&crypt.allocated, 4096),
		  percpu_counter_add(&crypt.allocated, -4096 * TIMES));
	element_given = true;
	PRIMITIVE("mempool-alloc-around-callback", TIMES, , elements[turn] = mempool_alloc(&pool, GFP_NOWAIT), );
	PRIMITIVE("mempool-free-around-callback", TIMES, , mempool_free(elements[turn], &pool), );
	element_given = false;
	PRIMITIVE("mempool-alloc-from-reserve", TIMES, , elements[turn] = mempool_alloc(&pool, GFP_NOWAIT),
		  for (turn = 0; turn < TIMES; turn++) mempool_free(elements[turn], &pool));
	PRIMITIVE("mempool-free-to-reserve", TIMES,
		  for (turn = 0; turn < TIMES; turn++) elements[turn] = mempool_alloc(&pool, GFP_NOWAIT),
		  mempool_free(elements[turn], &pool), );
	element_given = true;
	PRIMITIVE("alloc-page", TIMES, , pages[turn] = alloc_page(GFP_NOWAIT),
		  for (turn = 0; turn < TIMES; turn++) __free_page(pages[turn]));
	PRIMITIVE("free-page", TIMES, for (turn = 0; turn < TIMES; turn++) pages[turn] = alloc_page(GFP_NOWAIT),
		  __free_page(pages[turn]), );
	PRIMITIVE("crypt-page-alloc-callback", TIMES, , pages[turn] = crypt_page_alloc(GFP_NOWAIT | __GFP_NORETRY, &crypt),
		  for (turn = 0; turn < TIMES; turn++) crypt_page_free(pages[turn], &crypt));
	PRIMITIVE("clear-page", TIMES, , clear_highpage(page), );
	PRIMITIVE("bio-alloc-1", 1, , bio = take_bio(&crypt, 1), bio_put(bio));
	PRIMITIVE("bio-alloc-32", 1, , bio = take_bio(&crypt, 32), bio_put(bio));
	PRIMITIVE("bio-alloc-256", 1, , bio = take_bio(&crypt, 256), bio_put(bio));
	PRIMITIVE("bio-put-1", 1, bio = take_bio(&crypt, 1), bio_put(bio), );
	PRIMITIVE("bio-put-256", 1, bio = take_bio(&crypt, 256), bio_put(bio), );
	PRIMITIVE("bio-add-page", TIMES, bio = take_bio(&crypt, TIMES), sink = bio_add_page(bio, page, PAGE_SIZE, 0), bio_put(bio));
	thread = kthread_run(sleeper, NULL, "microbench");
	if (!IS_ERR(thread)) {
		msleep(20);
		PRIMITIVE("wake-up-sleeping", 1, msleep(1), wake_up_process(thread), );
		PRIMITIVE("wake-up-awake", 1, msleep(1); wake_up_process(thread), wake_up_process(thread), );
		kthread_stop(thread);
	}
	PRIMITIVE("queue-work-idle", 1, flush_work(&work), queue_work(system_wq, &work), );
	PRIMITIVE("queue-work-pending", 1, flush_work(&work); queue_work(system_wq, &work), queue_work(system_wq, &work), );
	flush_work(&work);
	direct_map_primitives();
	error = 0;
	mempool_exit(&pool);
out_page:
	__free_page(page);
	return error;
}

static int primitives_show(struct seq_file *out, void *unused)
{
	seq_write(out, primitive_rows, primitive_used);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(primitives);

static int run_line(char *line)
{
	char strategy[32], path[16];
	unsigned int n, held;

	if (sscanf(line, "crypt %31s %u %u %15s", strategy, &n, &held, path) == 4)
		return run_case(strategy, n, held, path);
	if (!strcmp(line, "primitives"))
		return primitives();
	return -EINVAL;
}

static void cryptbench_free(void)
{
	bench_stop();
	vfree(primitive_rows);
	vfree(buffers);
	vfree(page_slots);
	mempool_exit(&crypt.pool);
	percpu_counter_destroy(&crypt.allocated);
	bioset_exit(&crypt.bios);
}

static int __init cryptbench_init(void)
{
	unsigned int i;
	int error = bench_start("cryptbench", COLUMNS ",path");

	buffers = vzalloc(MAX_HELD * sizeof(*buffers));
	page_slots = vzalloc(array3_size(MAX_HELD, VECTORS, sizeof(*page_slots)));
	primitive_rows = vzalloc(PAGE_SIZE * 4);
	mutex_init(&crypt.bio_alloc_lock);
	crypt.quota = totalram_pages() / 50;
	if (crypt.quota < VECTORS * 16)
		crypt.quota = VECTORS * 16;
	crypt.quota = max(crypt.quota, (unsigned long)MAX_HELD * VECTORS); /* no case is to meet it */
	error = error ?: percpu_counter_init(&crypt.allocated, 0, GFP_KERNEL);
	error = error ?: mempool_init(&crypt.pool, RESERVE, crypt_page_alloc, crypt_page_free, &crypt);
	error = error ?: bioset_init(&crypt.bios, 64, 0, BIOSET_NEED_BVECS);
	if (error || !buffers || !page_slots || !primitive_rows) {
		cryptbench_free();
		return error ? error : -ENOMEM;
	}
	for (i = 0; i < MAX_HELD; i++)
		buffers[i].pages = page_slots + i * VECTORS;
	debugfs_create_file("primitives", 0400, bench_directory, NULL, &primitives_fops);
	return 0;
}

static void __exit cryptbench_exit(void)
{
	cryptbench_free();
}

module_init(cryptbench_init);
module_exit(cryptbench_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("cost of dm-crypt's buffers and of the primitives around a page allocation");
