/* Work for the integer unit that stays in the first-level cache. */
#include "bench.h"
#include <string.h>

/* core-mix: what embedded programs do, in equal parts: a list that is searched and reversed, a
   matrix, a state machine over text, and a checksum over all of it. */
struct item {
	struct item *next;
	int32_t key, value;
};
#define ITEMS 128
#define SIDE 16
static struct item items[ITEMS];
static int16_t left[SIDE][SIDE], right[SIDE][SIDE];
static const char numbers[] = "12,-7,3.25,+0x,9e4,abc,55,-1.5e-3,..,0,77e,+8,-.5,1e9,zz,42,";

static void core_prepare(void)
{
	uint64_t seed = 11;
	for (int i = 0; i < ITEMS; i++) {
		items[i].next = i + 1 < ITEMS ? &items[i + 1] : NULL;
		items[i].key = (int32_t)(next_random(&seed) >> 40);
		items[i].value = i;
	}
	for (int i = 0; i < SIDE * SIDE; i++) {
		left[i / SIDE][i % SIDE] = (int16_t)(next_random(&seed) & 0xFF);
		right[i / SIDE][i % SIDE] = (int16_t)(next_random(&seed) & 0xFF);
	}
}

static NOINLINE uint32_t crc16(uint32_t crc, uint32_t value)
{
	for (int bit = 0; bit < 16; bit++, value >>= 1)
		crc = (crc ^ value) & 1 ? (crc >> 1) ^ 0xA001 : crc >> 1;
	return crc;
}

static NOINLINE uint32_t list_work(uint32_t crc)
{
	struct item *head = &items[0], *done = NULL;
	for (int wanted = 0; wanted < ITEMS; wanted += 9) {
		struct item *at = head;
		while (at && at->value != wanted)
			at = at->next;
		crc = crc16(crc, at ? (uint32_t)at->key : 0);
	}
	/* Reversed twice: a piece leaves the list as it was. */
	for (int turn = 0; turn < 2; turn++, head = done, done = NULL)
		while (head) {
			struct item *rest = head->next;
			head->next = done;
			done = head;
			head = rest;
		}
	return crc;
}

static NOINLINE uint32_t matrix_work(uint32_t crc)
{
	for (int row = 0; row < SIDE; row++)
		for (int column = 0; column < SIDE; column++) {
			int32_t sum = 0;
			for (int i = 0; i < SIDE; i++)
				sum += left[row][i] * right[i][column];
			crc = (uint32_t)((sum >> 3) & 0xFFFF) + (crc << 1 | crc >> 31);
		}
	return crc16(crc, crc >> 16);
}

enum state { START, SIGN, DIGITS, POINT, FRACTION, EXPONENT, POWER, BAD };

static NOINLINE uint32_t state_work(uint32_t crc)
{
	uint32_t seen[BAD + 1] = {0};
	enum state state = START;
	for (const char *p = numbers; *p; p++) {
		char c = *p;
		int digit = c >= '0' && c <= '9';
		if (c == ',') {
			seen[state]++;
			state = START;
			continue;
		}
		switch (state) {
		case START: state = digit ? DIGITS : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : BAD; break;
		case SIGN: state = digit ? DIGITS : c == '.' ? POINT : BAD; break;
		case DIGITS: state = digit ? DIGITS : c == '.' ? FRACTION : c == 'e' ? EXPONENT : BAD; break;
		case POINT: state = digit ? FRACTION : BAD; break;
		case FRACTION: state = digit ? FRACTION : c == 'e' ? EXPONENT : BAD; break;
		case EXPONENT: state = digit || c == '-' || c == '+' ? POWER : BAD; break;
		case POWER: state = digit ? POWER : BAD; break;
		case BAD: break;
		}
	}
	for (int i = 0; i <= BAD; i++)
		crc = crc16(crc, seen[i]);
	return crc;
}

static uint64_t core_run(void)
{
	uint32_t crc = 0xFFFF;
	for (int i = 0; i < 16; i++)
		crc = state_work(matrix_work(list_work(crc)));
	return crc;
}

/* calls: a recursion that the compiler may not flatten. */
__attribute__((noinline, noclone, noipa, optimize("no-optimize-sibling-calls")))
static uint64_t fibonacci(uint64_t n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t calls_run(void)
{
	return fibonacci(18);
}

/* indirect-calls: targets that a predictor has to learn. */
static NOINLINE uint64_t op_add(uint64_t a) { return a + 0x9E37; }
static NOINLINE uint64_t op_xor(uint64_t a) { return a ^ 0x5A5A5A; }
static NOINLINE uint64_t op_mul(uint64_t a) { return a * 0x10001; }
static NOINLINE uint64_t op_rot(uint64_t a) { return a << 7 | a >> 57; }
static NOINLINE uint64_t op_not(uint64_t a) { return ~a; }
static NOINLINE uint64_t op_sub(uint64_t a) { return a - (a >> 5); }
static NOINLINE uint64_t op_swap(uint64_t a) { return __builtin_bswap64(a); }
static NOINLINE uint64_t op_neg(uint64_t a) { return 0 - a; }
static uint64_t (*const volatile operations[8])(uint64_t) = {
	op_add, op_xor, op_mul, op_rot, op_not, op_sub, op_swap, op_neg,
};
#define INDIRECT 4096

static uint64_t indirect_run(void)
{
	uint64_t value = 1, which = 77;
	for (int i = 0; i < INDIRECT; i++) {
		which = which * 5 + 1;
		value = operations[which >> 4 & 7](value);
	}
	return value;
}

/* interpreter: bytecode in a loop with a switch, here the Collatz sequences of 1 to 60. */
enum code { PUSH, LOAD, STORE, ADD, MUL, HALF, ODD, LESS, JUMP, JUMP_IF, INC, STOP };
static const int32_t program[] = {
	PUSH, 1, STORE, 0,                                /*  0: n = 1 */
	LOAD, 0, STORE, 1,                                /*  4: x = n */
	LOAD, 1, PUSH, 2, LESS, JUMP_IF, 37,              /*  8: while x >= 2 */
	INC, 2,                                           /* 15: steps++ */
	LOAD, 1, ODD, JUMP_IF, 29,                        /* 17: if x is even */
	LOAD, 1, HALF, STORE, 1, JUMP, 8,                 /* 22: x /= 2 */
	LOAD, 1, PUSH, 3, MUL, JUMP, 48,                  /* 29: else x = 3x + 1 */
	STOP,                                             /* 36 */
	INC, 0, LOAD, 0, PUSH, 60, LESS, JUMP_IF, 4,      /* 37: next n below 60 */
	JUMP, 36,                                         /* 46 */
	PUSH, 1, ADD, STORE, 1, JUMP, 8,                  /* 48 */
};

static uint64_t interpreter_run(void)
{
	int64_t stack[8], variables[4] = {0}, *top = stack;
	uint64_t executed = 0;
	for (const int32_t *at = program;;) {
		executed++;
		switch ((enum code)*at++) {
		case PUSH: *top++ = *at++; break;
		case LOAD: *top++ = variables[*at++]; break;
		case STORE: variables[*at++] = *--top; break;
		case ADD: top--; top[-1] += top[0]; break;
		case MUL: top--; top[-1] *= top[0]; break;
		case HALF: top[-1] /= 2; break;
		case ODD: top[-1] &= 1; break;
		case LESS: top--; top[-1] = top[-1] < top[0]; break;
		case JUMP: at = program + *at; break;
		case JUMP_IF: at = *--top ? program + *at : at + 1; break;
		case INC: variables[*at++]++; break;
		case STOP: return mix(executed, (uint64_t)variables[2]);
		}
	}
}

/* sha256: FIPS 180-4, of 4 KiB. The constants are the fractions of the roots of the first primes;
   they are computed here in integers instead of being listed. */
static uint32_t round_constants[64], first_state[8];
static uint8_t message[4096];

/* The first 32 bits behind the point of the root of `n` (of degree 2 or 3), by bisection. */
static uint32_t root_fraction(uint32_t n, int degree)
{
	unsigned __int128 low = 0, high = (unsigned __int128)1 << 37;
	while (high - low > 1) {
		unsigned __int128 half = (low + high) / 2, power = half * half;
		int over;
		if (degree == 2) {
			over = power > (unsigned __int128)n << 64;
		} else {
			/* half³ < 2^111 fits. */
			over = power * half > (unsigned __int128)n << 96;
		}
		if (over)
			high = half;
		else
			low = half;
	}
	return (uint32_t)low;
}

static void sha_prepare(void)
{
	int found = 0;
	for (uint32_t n = 2; found < 64; n++) {
		int prime = 1;
		for (uint32_t d = 2; d * d <= n; d++)
			prime &= n % d != 0;
		if (!prime)
			continue;
		if (found < 8)
			first_state[found] = root_fraction(n, 2);
		round_constants[found++] = root_fraction(n, 3);
	}
	for (size_t i = 0; i < sizeof message; i++)
		message[i] = (uint8_t)(i * 7 + (i >> 8));
}

static inline uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static NOINLINE void sha_block(uint32_t state[8], const uint8_t block[64])
{
	uint32_t w[64], s[8];
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)block[i * 4] << 24 | (uint32_t)block[i * 4 + 1] << 16
			| (uint32_t)block[i * 4 + 2] << 8 | block[i * 4 + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + w[i - 7]
			+ (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
	}
	memcpy(s, state, sizeof s);
	for (int i = 0; i < 64; i++) {
		uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
		uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
		uint32_t one = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) + choice
			+ round_constants[i] + w[i];
		uint32_t two = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) + majority;
		memmove(s + 1, s, 7 * sizeof s[0]);
		s[4] += one;
		s[0] = one + two;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

static uint64_t sha_run(void)
{
	uint32_t state[8];
	memcpy(state, first_state, sizeof state);
	for (size_t i = 0; i < sizeof message; i += 64)
		sha_block(state, message + i);
	uint8_t end[64] = {0x80};
	end[62] = (uint8_t)(sizeof message * 8 >> 8);
	end[63] = (uint8_t)(sizeof message * 8);
	sha_block(state, end);
	return (uint64_t)state[0] << 32 | state[7];
}

/* byte-scan: lines, words and the longest line of a text. */
static char text[8192];

static void scan_prepare(void)
{
	uint64_t seed = 5;
	for (size_t i = 0; i < sizeof text; i++) {
		uint64_t r = next_random(&seed) >> 32;
		text[i] = r % 61 == 0 ? '\n' : r % 6 == 0 ? ' ' : (char)('a' + r % 26);
	}
}

static uint64_t scan_run(void)
{
	uint64_t lines = 0, words = 0, longest = 0, len = 0;
	int inside = 0;
	for (size_t i = 0; i < sizeof text; i++) {
		char c = text[i];
		if (c == '\n') {
			lines++;
			longest = len > longest ? len : longest;
			len = 0;
			inside = 0;
		} else {
			len++;
			if (c == ' ') {
				inside = 0;
			} else if (!inside) {
				inside = 1;
				words++;
			}
		}
	}
	return lines << 40 | words << 16 | longest;
}

const struct workload integer_workloads[] = {
	{"core-mix", "integer", "round", 16, core_run, core_prepare, 0, 0},
	{"calls", "integer", "call", 8361, calls_run, 0, 0, 0},
	{"indirect-calls", "integer", "call", INDIRECT, indirect_run, 0, 0, 0},
	{"interpreter", "integer", "program", 1, interpreter_run, 0, 0, 0},
	{"sha256", "integer", "byte", sizeof message, sha_run, sha_prepare, 0, 0},
	{"byte-scan", "integer", "byte", sizeof text, scan_run, scan_prepare, 0, 0},
	{0},
};
