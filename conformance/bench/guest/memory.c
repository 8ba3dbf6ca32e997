/* Work that is bound by loads and stores. */
#define _GNU_SOURCE
#include "bench.h"
#include <string.h>
#include <sys/mman.h>

/* sort: quicksort, insertion sort below 12. */
#define SORTED 4096
static uint32_t unsorted[SORTED], sorted[SORTED];

static void sort_prepare(void)
{
	uint64_t seed = 3;
	for (int i = 0; i < SORTED; i++)
		unsorted[i] = (uint32_t)(next_random(&seed) >> 32);
}

static NOINLINE void quicksort(uint32_t *a, long n)
{
	while (n > 12) {
		uint32_t x = a[0], y = a[n / 2], z = a[n - 1];
		uint32_t pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
		long i = 0, j = n - 1;
		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				uint32_t t = a[i];
				a[i++] = a[j];
				a[j--] = t;
			}
		}
		quicksort(a, j + 1);
		a += i;
		n -= i;
	}
	for (long i = 1; i < n; i++) {
		uint32_t x = a[i];
		long j = i;
		for (; j > 0 && a[j - 1] > x; j--)
			a[j] = a[j - 1];
		a[j] = x;
	}
}

static uint64_t sort_run(void)
{
	memcpy(sorted, unsorted, sizeof sorted);
	quicksort(sorted, SORTED);
	uint64_t sum = 0;
	for (int i = 0; i < SORTED; i += 64)
		sum = mix(sum, sorted[i]);
	return sum;
}

/* hash-table: open addressing; insert, find and forget. */
#define SLOTS 8192
#define KEYS 4096
static struct {
	uint64_t key, value;
} table[SLOTS];

static NOINLINE uint64_t *slot_of(uint64_t key)
{
	uint64_t at = (key * 0x9E3779B97F4A7C15ULL) >> 51;
	while (table[at].key != 0 && table[at].key != key)
		at = (at + 1) % SLOTS;
	table[at].key = key;
	return &table[at].value;
}

static uint64_t hash_run(void)
{
	uint64_t seed = 9, sum = 0;
	memset(table, 0, sizeof table);
	for (uint64_t i = 0; i < KEYS; i++)
		*slot_of(next_random(&seed) | 1) += i;
	seed = 9;
	for (uint64_t i = 0; i < KEYS; i++)
		sum += *slot_of(next_random(&seed) | 1) ^ i << 3;
	return sum;
}

/* chase: each load gives the address of the next; one link in each cache line, in random order. */
#define LINE 64
#define SMALL (32u << 10)
#define LARGE (16u << 20)
#define LARGE_PAGE (2u << 20)
static char *chain, *chain_memory;

static void link_chain(size_t bytes)
{
	size_t n = bytes / LINE;
	uint64_t seed = 21;
	/* In large pages where the kernel has them: the caches' latency, not that of page tables. */
	chain_memory = pages(bytes + LARGE_PAGE);
	chain = (char *)(((uintptr_t)chain_memory + LARGE_PAGE - 1) & ~(uintptr_t)(LARGE_PAGE - 1));
	(void)madvise(chain, bytes, MADV_HUGEPAGE);
	uint32_t *order = pages(n * sizeof *order);
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (size_t i = n - 1; i > 0; i--) {
		size_t j = (size_t)(((next_random(&seed) >> 32) * i) >> 32);
		uint32_t t = order[i];
		order[i] = order[j];
		order[j] = t;
	}
	for (size_t i = 0; i < n; i++)
		*(char **)(chain + (size_t)order[i] * LINE) = chain + (size_t)order[(i + 1) % n] * LINE;
	free_pages(order, n * sizeof *order);
}

static NOINLINE uint64_t follow(size_t steps)
{
	char *at = chain;
	for (size_t i = 0; i < steps; i += 8) {
		at = *(char **)at; at = *(char **)at; at = *(char **)at; at = *(char **)at;
		at = *(char **)at; at = *(char **)at; at = *(char **)at; at = *(char **)at;
	}
	return (uint64_t)(at - chain);
}

#define SMALL_STEPS 4104u
#define LARGE_STEPS (LARGE / LINE - 8)
static void small_prepare(void) { link_chain(SMALL); }
static void large_prepare(void) { link_chain(LARGE); }
static void small_finish(void) { free_pages(chain_memory, SMALL + LARGE_PAGE); }
static void large_finish(void) { free_pages(chain_memory, LARGE + LARGE_PAGE); }
static uint64_t small_run(void) { return follow(SMALL_STEPS); }
static uint64_t large_run(void) { return follow(LARGE_STEPS); }

/* tree: an unbalanced binary tree, built, walked in order and searched. */
#define NODES 2048
struct node {
	struct node *less, *more;
	uint64_t key;
};
static struct node nodes[NODES];

static NOINLINE uint64_t walk(const struct node *n, uint64_t sum)
{
	if (!n)
		return sum;
	sum = walk(n->less, sum);
	sum = sum * 31 + n->key;
	return walk(n->more, sum);
}

static uint64_t tree_run(void)
{
	uint64_t seed = 13;
	struct node *root = NULL;
	for (int i = 0; i < NODES; i++) {
		struct node **at = &root;
		nodes[i] = (struct node){0, 0, next_random(&seed)};
		while (*at)
			at = nodes[i].key < (*at)->key ? &(*at)->less : &(*at)->more;
		*at = &nodes[i];
	}
	return walk(root, 0) ^ walk(root, 1);
}

/* memcpy: the C library's, which picks its way by the CPU's features. */
#define COPIED (1u << 20)
static unsigned char *from, *to;
/* The function itself, not what a compiler makes of calls with known lengths. */
static void *(*const volatile copy)(void *, const void *, size_t) = memcpy;

static void copy_prepare(void)
{
	from = pages(COPIED + 4096);
	to = pages(COPIED + 4096);
	for (size_t i = 0; i < COPIED + 4096; i++)
		from[i] = (unsigned char)(i * 13 + (i >> 9));
}

static void copy_finish(void)
{
	free_pages(from, COPIED + 4096);
	free_pages(to, COPIED + 4096);
}

static uint64_t sampled(size_t bytes)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < bytes; i += bytes / 32)
		sum = mix(sum, to[i]);
	return sum;
}

#define SHORT_COPIES 2048
static uint64_t copy_short_run(void)
{
	size_t at = 0;
	for (int i = 0; i < SHORT_COPIES; i++) {
		size_t len = 16 + (size_t)(i * 29 % 65);
		copy(to + at, from + at + 3, len);
		at = (at + len) & 0x3FFF;
	}
	return sampled(0x4000);
}

#define PAGE_COPIES 64
static uint64_t copy_page_run(void)
{
	for (size_t i = 0; i < PAGE_COPIES; i++)
		copy(to + (i % 8) * 4096, from + ((i * 3) % 8) * 4096, 4096);
	return sampled(8 * 4096);
}

static uint64_t copy_large_run(void)
{
	copy(to, from, COPIED);
	return sampled(COPIED);
}

const struct workload memory_workloads[] = {
	{"sort", "integer", "element", SORTED, sort_run, sort_prepare, 0, 0},
	{"hash-table", "integer", "operation", 2 * KEYS, hash_run, 0, 0, 0},
	{"chase-32k", "integer", "load", SMALL_STEPS, small_run, small_prepare, small_finish, 0},
	{"chase-16m", "integer", "load", LARGE_STEPS, large_run, large_prepare, large_finish, 0},
	{"binary-tree", "integer", "node", NODES, tree_run, 0, 0, 0},
	{"memcpy-16-80", "integer", "copy", SHORT_COPIES, copy_short_run, copy_prepare, copy_finish, 0},
	{"memcpy-4k", "integer", "copy", PAGE_COPIES, copy_page_run, copy_prepare, copy_finish, 0},
	{"memcpy-1m", "integer", "copy", 1, copy_large_run, copy_prepare, copy_finish, 0},
	{0},
};
