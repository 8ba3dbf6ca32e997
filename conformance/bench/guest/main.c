/* The measurement, the output protocol, and the life of an init (see README.md). */
#define _GNU_SOURCE
#include "bench.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

const char *own_path;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One line, then wait until a serial port has sent it: its interrupts are not part of the measurement. */
static void say(const char *format, ...)
{
	char line[256];
	va_list list;
	va_start(list, format);
	int len = vsnprintf(line, sizeof line - 32, format, list);
	va_end(list);
	len += snprintf(line + len, 32, " t=%llu\n", (unsigned long long)now_ns());
	for (int done = 0; done < len;) {
		ssize_t n = write(1, line + done, (size_t)(len - done));
		if (n <= 0)
			_exit(3);
		done += (int)n;
	}
	if (isatty(1))
		tcdrain(1);
}

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void leave(int status)
{
	if (getpid() == 1)
		power_off();
	exit(status);
}

void must(int ok, const char *what)
{
	if (ok)
		return;
	say("@bench failed %s", what);
	leave(2);
}

void *pages(size_t bytes)
{
	void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(start != MAP_FAILED, "mmap");
	/* Fails where the kernel has no large pages, which is as good. */
	(void)madvise(start, bytes, MADV_NOHUGEPAGE);
	return start;
}

void free_pages(void *start, size_t bytes)
{
	must(munmap(start, bytes) == 0, "munmap");
}

/* Whether `name` stands in the list of BENCH_ONLY; everything does in an empty one. */
static int wanted(const char *name)
{
	const char *list = getenv("BENCH_ONLY");
	size_t len = strlen(name);
	if (!list || !*list)
		return 1;
	for (; *list; list += strcspn(list, ","), list += *list == ',')
		if (strcspn(list, ",") == len && strncmp(list, name, len) == 0)
			return 1;
	return 0;
}

static void measure(const struct workload *w, uint64_t min_ns)
{
	if (!wanted(w->name))
		return;
	if (w->possible && !w->possible()) {
		say("@bench skip %s", w->name);
		return;
	}
	if (w->prepare)
		w->prepare();
	/* A translator gets a quarter of the time to find what is hot. */
	uint64_t begun = now_ns(), sum = w->run(), took, runs = 0;
	int same = 1;
	while (now_ns() - begun < min_ns / 4)
		same &= w->run() == sum;
	say("@bench start %s", w->name);
	begun = now_ns();
	do {
		same &= w->run() == sum;
		runs++;
		took = now_ns() - begun;
	} while (took < min_ns);
	if (w->finish)
		w->finish();
	if (!same)
		say("@bench wrong %s", w->name);
	else
		say("@bench result %s class=%s unit=%s units=%llu ns=%llu sum=%016llx", w->name, w->class,
		    w->unit, (unsigned long long)(runs * w->units), (unsigned long long)took,
		    (unsigned long long)sum);
}

static void measure_all(const struct workload *list, uint64_t min_ns)
{
	for (; list->name; list++)
		measure(list, min_ns);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--child") == 0)
		return 7;
	own_path = argv[0];
	const char *ms = getenv("BENCH_MS"), *set = getenv("BENCH_SET");
	uint64_t min_ns = (ms ? strtoull(ms, NULL, 10) : 100) * 1000000u;
	say("@bench begin");
	if (set && strcmp(set, "parallel") == 0) {
		measure_all(parallel_workloads, min_ns);
	} else {
		measure_all(integer_workloads, min_ns);
		measure_all(memory_workloads, min_ns);
		measure_all(packing_workloads, min_ns);
		measure_all(vector_workloads, min_ns);
		measure_all(event_workloads, min_ns);
	}
	say("@bench end");
	leave(0);
	return 0;
}
