/* What the files of the measured program share. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

#define NOINLINE __attribute__((noinline, noclone, noipa))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct workload {
	const char *name;
	const char *class;   /* integer, vector, os or parallel */
	const char *unit;    /* what a piece consists of */
	uint64_t units;      /* how many of them in a piece */
	uint64_t (*run)(void); /* does one piece, gives its checksum */
	void (*prepare)(void); /* may be null */
	void (*finish)(void);  /* may be null */
	int (*possible)(void); /* may be null: always */
};

extern const struct workload integer_workloads[], memory_workloads[], packing_workloads[],
	vector_workloads[], event_workloads[], parallel_workloads[];

/* Path of this program, for exec. */
extern const char *own_path;

/* Memory in pages of 4 KiB, whatever the kernel prefers; ends the program when there is none. */
void *pages(size_t bytes);
void free_pages(void *start, size_t bytes);

/* Ends the program with a message when something that can't fail has failed. */
void must(int ok, const char *what);

/* A generator whose sequence is the same everywhere (xorshift64*). */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545F4914F6CDD1DULL;
}

static inline uint64_t mix(uint64_t sum, uint64_t value)
{
	sum = (sum ^ value) * 0x9E3779B97F4A7C15ULL;
	return sum ^ (sum >> 29);
}

#endif
