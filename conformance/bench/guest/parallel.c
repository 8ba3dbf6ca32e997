/* One job on one thread and on two: chunks of work that the threads take from a shared counter. */
#include "bench.h"
#include <pthread.h>
#include <stdatomic.h>

#define CHUNKS 64
#define CHUNK_STEPS 32768
static _Atomic uint32_t next_chunk;
static _Atomic uint64_t together;

static NOINLINE uint64_t chunk(uint32_t number)
{
	static uint64_t const table[16] = {3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59};
	uint64_t x = number + 1, sum = 0;
	for (int i = 0; i < CHUNK_STEPS; i++)
		sum += next_random(&x) ^ table[x & 15];
	return sum;
}

static void *worker(void *unused)
{
	uint32_t mine;
	while ((mine = atomic_fetch_add(&next_chunk, 1)) < CHUNKS)
		atomic_fetch_add(&together, chunk(mine));
	return unused;
}

static uint64_t one_run(void)
{
	atomic_store(&next_chunk, 0);
	atomic_store(&together, 0);
	worker(NULL);
	return atomic_load(&together);
}

static uint64_t two_run(void)
{
	pthread_t thread;
	atomic_store(&next_chunk, 0);
	atomic_store(&together, 0);
	must(pthread_create(&thread, NULL, worker, NULL) == 0, "pthread_create");
	worker(NULL);
	must(pthread_join(thread, NULL) == 0, "pthread_join");
	return atomic_load(&together);
}

const struct workload parallel_workloads[] = {
	{"parallel-1", "parallel", "chunk", CHUNKS, one_run, 0, 0, 0},
	{"parallel-2", "parallel", "chunk", CHUNKS, two_run, 0, 0, 0},
	{0},
};
