/* deflate and inflate: LZ77 over a 4 KiB window with chained hashes, and a Huffman code made for
   the data. Not the format of RFC 1951, but the same kinds of work. */
#include "bench.h"
#include <string.h>

#define INPUT 8192
#define WINDOW 4096
#define SHORTEST 3
#define LONGEST 34
#define SYMBOLS (256 + LONGEST - SHORTEST + 1)
#define CODE_BITS 28
#define DISTANCE_BITS 12

static uint8_t input[INPUT], output[INPUT], packed[2 * INPUT];
static size_t packed_bits;

/* One step of the text: a byte, or a match (symbol from 256 up) and its distance. */
struct token {
	uint16_t symbol, distance;
};
static struct token tokens[INPUT];
static uint8_t lengths[SYMBOLS];
static uint32_t codes[SYMBOLS];

static void input_prepare(void)
{
	static const char *const words[] = {"the ", "machine ", "page ", "of ", "memory ", "is ", "a ",
		"register ", "and ", "guest", "host ", "translated ", "block", ".\n", "to ", "code "};
	uint64_t seed = 17;
	for (size_t at = 0; at < INPUT;) {
		uint64_t r = next_random(&seed) >> 40;
		const char *word = words[r % 16];
		if (r % 11 == 0)
			input[at++] = (uint8_t)('0' + (r >> 8) % 10);
		else
			while (*word && at < INPUT)
				input[at++] = (uint8_t)*word++;
	}
}

static NOINLINE size_t tokenize(void)
{
	static int16_t head[1024], previous[INPUT];
	size_t n = 0;
	memset(head, 0xFF, sizeof head);
	for (size_t at = 0; at < INPUT;) {
		size_t best = 0, where = 0, covered = 1;
		if (at + SHORTEST <= INPUT) {
			uint32_t three = input[at] | (uint32_t)input[at + 1] << 8 | (uint32_t)input[at + 2] << 16;
			int tries = 16;
			for (int16_t p = head[(three * 0x9E3779B1u) >> 22];
			     p >= 0 && at - (size_t)p < WINDOW && tries--; p = previous[p]) {
				size_t len = 0;
				while (len < LONGEST && at + len < INPUT && input[(size_t)p + len] == input[at + len])
					len++;
				if (len > best) {
					best = len;
					where = (size_t)p;
				}
			}
		}
		if (best >= SHORTEST) {
			tokens[n++] = (struct token){(uint16_t)(256 + best - SHORTEST), (uint16_t)(at - where)};
			covered = best;
		} else {
			tokens[n++] = (struct token){input[at], 0};
		}
		for (; covered; covered--, at++)
			if (at + SHORTEST <= INPUT) {
				uint32_t three = input[at] | (uint32_t)input[at + 1] << 8 | (uint32_t)input[at + 2] << 16;
				uint32_t h = (three * 0x9E3779B1u) >> 22;
				previous[at] = head[h];
				head[h] = (int16_t)at;
			}
	}
	return n;
}

/* Code lengths by joining the two rarest trees, found in a heap. */
static NOINLINE void make_lengths(size_t n)
{
	uint32_t weight[2 * SYMBOLS] = {0};
	uint16_t parent[2 * SYMBOLS] = {0}, heap[SYMBOLS];
	size_t in_heap = 0, next = SYMBOLS;
	for (size_t i = 0; i < n; i++)
		weight[tokens[i].symbol]++;
#define LIGHTER(a, b) (weight[a] < weight[b] || (weight[a] == weight[b] && (a) < (b)))
#define PUSH(value) do { \
		size_t at_ = in_heap++; \
		uint16_t v_ = (uint16_t)(value); \
		while (at_ && LIGHTER(v_, heap[(at_ - 1) / 2])) { \
			heap[at_] = heap[(at_ - 1) / 2]; \
			at_ = (at_ - 1) / 2; \
		} \
		heap[at_] = v_; \
	} while (0)
#define POP(into) do { \
		(into) = heap[0]; \
		uint16_t v_ = heap[--in_heap]; \
		size_t at_ = 0, child_; \
		while ((child_ = 2 * at_ + 1) < in_heap) { \
			if (child_ + 1 < in_heap && LIGHTER(heap[child_ + 1], heap[child_])) \
				child_++; \
			if (!LIGHTER(heap[child_], v_)) \
				break; \
			heap[at_] = heap[child_]; \
			at_ = child_; \
		} \
		heap[at_] = v_; \
	} while (0)
	for (size_t s = 0; s < SYMBOLS; s++)
		if (weight[s])
			PUSH(s);
	while (in_heap > 1) {
		uint16_t a, b;
		POP(a);
		POP(b);
		weight[next] = weight[a] + weight[b];
		parent[a] = parent[b] = (uint16_t)next;
		PUSH(next);
		next++;
	}
	for (size_t s = 0; s < SYMBOLS; s++) {
		lengths[s] = 0;
		if (weight[s])
			for (size_t at = s; parent[at]; at = parent[at])
				lengths[s]++;
	}
}

/* Canonical codes: by length, then by symbol. `first[n]` is the first code of n bits. */
static NOINLINE void make_codes(uint32_t first[CODE_BITS + 1], uint16_t count[CODE_BITS + 1])
{
	uint32_t code = 0, next[CODE_BITS + 1];
	memset(count, 0, (CODE_BITS + 1) * sizeof count[0]);
	for (size_t s = 0; s < SYMBOLS; s++)
		count[lengths[s]]++;
	count[0] = 0;
	for (int bits = 1; bits <= CODE_BITS; bits++) {
		code = (code + count[bits - 1]) << 1;
		first[bits] = next[bits] = code;
	}
	for (size_t s = 0; s < SYMBOLS; s++)
		if (lengths[s])
			codes[s] = next[lengths[s]]++;
}

static NOINLINE size_t put_bits(size_t n)
{
	uint64_t held = 0;
	int bits = 0;
	uint8_t *to = packed;
	for (size_t i = 0; i < n; i++) {
		uint16_t symbol = tokens[i].symbol;
		held = held << lengths[symbol] | codes[symbol];
		bits += lengths[symbol];
		if (symbol >= 256) {
			held = held << DISTANCE_BITS | (tokens[i].distance & (WINDOW - 1));
			bits += DISTANCE_BITS;
		}
		for (; bits >= 8; bits -= 8)
			*to++ = (uint8_t)(held >> (bits - 8));
	}
	size_t total = (size_t)(to - packed) * 8 + (size_t)bits;
	*to = (uint8_t)(held << (8 - bits));
	return total;
}

static uint32_t first_code[CODE_BITS + 1];
static uint16_t code_count[CODE_BITS + 1];

static uint64_t deflate_run(void)
{
	size_t n = tokenize();
	make_lengths(n);
	make_codes(first_code, code_count);
	packed_bits = put_bits(n);
	uint64_t sum = packed_bits;
	for (size_t i = 0; i < packed_bits / 8; i += 16)
		sum = mix(sum, packed[i]);
	return sum;
}

static NOINLINE size_t unpack(const uint16_t *by_code)
{
	size_t bit = 0, made = 0;
	while (bit < packed_bits && made < INPUT) {
		uint32_t code = 0, base = 0;
		int len = 0;
		do {
			code = code << 1 | (packed[bit / 8] >> (7 - bit % 8) & 1);
			bit++;
			base += len ? code_count[len] : 0;
			len++;
		} while (len < CODE_BITS && code - first_code[len] >= code_count[len]);
		uint16_t symbol = by_code[(base + code - first_code[len]) % SYMBOLS];
		if (symbol < 256) {
			output[made++] = (uint8_t)symbol;
			continue;
		}
		size_t distance = 0;
		for (int i = 0; i < DISTANCE_BITS; i++, bit++)
			distance = distance << 1 | (packed[bit / 8] >> (7 - bit % 8) & 1);
		for (size_t i = 0; i < (size_t)symbol - 256 + SHORTEST && made < INPUT; i++, made++)
			output[made] = output[made - distance];
	}
	return made;
}

static void inflate_prepare(void)
{
	input_prepare();
	deflate_run();
}

static uint64_t inflate_run(void)
{
	uint16_t by_code[SYMBOLS];
	size_t n = 0;
	for (int bits = 1; bits <= CODE_BITS; bits++)
		for (size_t s = 0; code_count[bits] && s < SYMBOLS; s++)
			if (lengths[s] == bits)
				by_code[n++] = (uint16_t)s;
	size_t made = unpack(by_code);
	/* What comes out is what went in, or the sum is another one. */
	return mix(made, memcmp(input, output, INPUT) == 0);
}

const struct workload packing_workloads[] = {
	{"deflate", "integer", "byte", INPUT, deflate_run, input_prepare, 0, 0},
	{"inflate", "integer", "byte", INPUT, inflate_run, inflate_prepare, 0, 0},
	{0},
};
