/* What an operating system does for a program. On the host this measures the host's kernel. */
#define _GNU_SOURCE
#include "bench.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS 256
static uint64_t getppid_run(void)
{
	uint64_t answered = 0;
	for (int i = 0; i < CALLS; i++)
		answered += syscall(SYS_getppid) >= 0;
	return answered;
}

#define STATS 64
static uint64_t stat_run(void)
{
	uint64_t found = 0;
	struct stat status;
	for (int i = 0; i < STATS; i++)
		found += stat("/dev/null", &status) == 0 && S_ISCHR(status.st_mode);
	return found;
}

#define SIGNALS 32
static volatile sig_atomic_t handled;

static void on_signal(int number)
{
	handled += number == SIGUSR1;
}

static void signal_prepare(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	must(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
}

static uint64_t signal_run(void)
{
	pid_t self = getpid();
	handled = 0;
	for (int i = 0; i < SIGNALS; i++)
		syscall(SYS_tgkill, self, self, SIGUSR1);
	return (uint64_t)handled;
}

#define FAULTS 128
static uint64_t fault_run(void)
{
	volatile unsigned char *memory = pages(FAULTS * 4096);
	uint64_t sum = 0;
	for (size_t i = 0; i < FAULTS; i++) {
		memory[i * 4096] = 1;
		sum += memory[i * 4096 + 8] + 1u;
	}
	free_pages((void *)memory, FAULTS * 4096);
	return sum;
}

/* Both ends on one processor, as in a guest with a single one. */
static cpu_set_t processors;

static void stay_on_one_processor(void)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	must(sched_getaffinity(0, sizeof processors, &processors) == 0, "sched_getaffinity");
	must(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

static void use_all_processors(void)
{
	must(sched_setaffinity(0, sizeof processors, &processors) == 0, "sched_setaffinity");
}

#define TRIPS 16
static int ask[2], answer[2];
static pid_t other;

static void pipe_prepare(void)
{
	stay_on_one_processor();
	must(pipe(ask) == 0 && pipe(answer) == 0, "pipe");
	other = fork();
	must(other >= 0, "fork");
	if (other > 0)
		return;
	char byte;
	close(ask[1]);
	while (read(ask[0], &byte, 1) == 1) {
		byte++;
		if (write(answer[1], &byte, 1) != 1)
			break;
	}
	_exit(0);
}

static void pipe_finish(void)
{
	int status;
	close(ask[1]);
	must(waitpid(other, &status, 0) == other, "waitpid");
	close(ask[0]);
	close(answer[0]);
	close(answer[1]);
	use_all_processors();
}

static uint64_t pipe_run(void)
{
	uint64_t sum = 0;
	for (int i = 0; i < TRIPS; i++) {
		char byte = (char)i;
		must(write(ask[1], &byte, 1) == 1 && read(answer[0], &byte, 1) == 1, "round trip");
		sum += (uint64_t)byte;
	}
	return sum;
}

static uint64_t status_of(pid_t child)
{
	int status = -1;
	must(child > 0 && waitpid(child, &status, 0) == child, "child");
	return (uint64_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 255);
}

static uint64_t fork_run(void)
{
	pid_t child = fork();
	if (child == 0)
		_exit(5);
	return status_of(child);
}

static uint64_t exec_run(void)
{
	pid_t child = fork();
	if (child == 0) {
		char *const arguments[] = {(char *)own_path, "--child", NULL};
		char *const environment[] = {NULL};
		execve(own_path, arguments, environment);
		_exit(255);
	}
	return status_of(child);
}

/* thread-switch: two threads hand a turn to each other by futex. */
#define SWITCHES 32
static _Atomic uint32_t turn;
static _Atomic int over;
static pthread_t partner;

static void sleep_while(uint32_t value)
{
	while (atomic_load(&turn) == value && !atomic_load(&over))
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void hand_over(uint32_t to)
{
	atomic_store(&turn, to);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *partner_main(void *unused)
{
	for (;;) {
		sleep_while(0);
		if (atomic_load(&over))
			return unused;
		hand_over(0);
	}
}

static void switch_prepare(void)
{
	stay_on_one_processor();
	atomic_store(&turn, 0);
	atomic_store(&over, 0);
	must(pthread_create(&partner, NULL, partner_main, NULL) == 0, "pthread_create");
}

static void switch_finish(void)
{
	atomic_store(&over, 1);
	hand_over(2);
	must(pthread_join(partner, NULL) == 0, "pthread_join");
	use_all_processors();
}

static uint64_t switch_run(void)
{
	for (int i = 0; i < SWITCHES / 2; i++) {
		hand_over(1);
		sleep_while(1);
	}
	return atomic_load(&turn);
}

const struct workload event_workloads[] = {
	{"getppid", "os", "call", CALLS, getppid_run, 0, 0, 0},
	{"stat", "os", "call", STATS, stat_run, 0, 0, 0},
	{"signal", "os", "signal", SIGNALS, signal_run, signal_prepare, 0, 0},
	{"page-fault", "os", "fault", FAULTS, fault_run, 0, 0, 0},
	{"pipe", "os", "round-trip", TRIPS, pipe_run, pipe_prepare, pipe_finish, 0},
	{"fork-wait", "os", "process", 1, fork_run, 0, 0, 0},
	{"fork-exec", "os", "process", 1, exec_run, 0, 0, 0},
	{"thread-switch", "os", "switch", SWITCHES, switch_run, switch_prepare, switch_finish, 0},
	{0},
};
