/* Floating point, one number at a time and in vectors. Results are compared bit by bit, so no sum
   may be reordered and nothing may be contracted to fused operations (the compiler does neither). */
#include "bench.h"
#include <immintrin.h>
#include <string.h>

#define SCALAR __attribute__((noinline, noclone, optimize("no-tree-vectorize")))
#define VECTORIZED __attribute__((noinline, noclone, optimize("O3")))
#define AVX2 __attribute__((noinline, noclone, target("avx2")))

static uint64_t bits_of(double x)
{
	uint64_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

/* mandelbrot: the whole picture in scalar double precision. */
#define PICTURE 24
static SCALAR uint64_t mandelbrot_run(void)
{
	uint64_t sum = 0;
	for (int row = 0; row < PICTURE; row++)
		for (int column = 0; column < PICTURE; column++) {
			double cr = column * (3.0 / PICTURE) - 2.25, ci = row * (2.5 / PICTURE) - 1.25;
			double r = 0, i = 0;
			int n = 0;
			while (n < 64 && r * r + i * i < 4.0) {
				double t = r * r - i * i + cr;
				i = 2 * r * i + ci;
				r = t;
				n++;
			}
			sum = mix(sum, (uint64_t)n);
		}
	return sum;
}

/* matmul: scalar double precision. */
#define N 24
static double a[N][N], b[N][N], c[N][N];

static void matmul_prepare(void)
{
	uint64_t seed = 31;
	for (int i = 0; i < N * N; i++) {
		a[i / N][i % N] = (double)(next_random(&seed) >> 40) / 4096.0 - 2048.0;
		b[i / N][i % N] = (double)(next_random(&seed) >> 40) / 4096.0 - 2048.0;
	}
}

static SCALAR uint64_t matmul_run(void)
{
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			double sum = 0;
			for (int k = 0; k < N; k++)
				sum += a[i][k] * b[k][j];
			c[i][j] = sum;
		}
	uint64_t sum = 0;
	for (int i = 0; i < N; i++)
		sum = mix(sum, bits_of(c[i][i]));
	return sum;
}

/* bodies: gravity between five of them; divisions, square roots and conversions. */
struct body {
	double at[3], speed[3], mass;
};
#define BODIES 5
#define STEPS 64

static SCALAR void gravity(struct body *bodies, double dt)
{
	for (int i = 0; i < BODIES; i++)
		for (int j = i + 1; j < BODIES; j++) {
			double d[3], square = 0.01;
			for (int k = 0; k < 3; k++) {
				d[k] = bodies[i].at[k] - bodies[j].at[k];
				square += d[k] * d[k];
			}
			__m128d root = _mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(square));
			double force = dt / (square * _mm_cvtsd_f64(root));
			for (int k = 0; k < 3; k++) {
				bodies[i].speed[k] -= d[k] * bodies[j].mass * force;
				bodies[j].speed[k] += d[k] * bodies[i].mass * force;
			}
		}
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++)
			bodies[i].at[k] += dt * bodies[i].speed[k];
}

static uint64_t bodies_run(void)
{
	struct body bodies[BODIES];
	uint64_t sum = 0;
	for (int i = 0; i < BODIES; i++)
		bodies[i] = (struct body){{i * 1.5, i * i * 0.25, 3.0 - i}, {0.1 * i, 0, -0.05 * i}, 1.0 + i};
	for (int i = 0; i < STEPS; i++)
		gravity(bodies, 0.01);
	for (int i = 0; i < BODIES; i++)
		sum = mix(sum, bits_of(bodies[i].at[0]));
	return sum;
}

/* Arrays of the vector workloads. */
#define FLOATS 1024
#define BYTES 4096
static float x[FLOATS] __attribute__((aligned(64))), y[FLOATS] __attribute__((aligned(64)));
static uint8_t p[BYTES] __attribute__((aligned(64))), q[BYTES] __attribute__((aligned(64)));
static int16_t s[BYTES] __attribute__((aligned(64)));

static void arrays_prepare(void)
{
	uint64_t seed = 41;
	for (int i = 0; i < FLOATS; i++)
		x[i] = (float)(next_random(&seed) >> 44) / 1024.0f - 512.0f;
	for (int i = 0; i < BYTES; i++) {
		p[i] = (uint8_t)(next_random(&seed) >> 32);
		q[i] = (uint8_t)(next_random(&seed) >> 32);
	}
}

static uint64_t sum_of_y(void)
{
	uint64_t sum = 0;
	for (int i = 0; i < FLOATS; i += 32)
		sum = mix(sum, bits_of(y[i]));
	return sum;
}

/* sse-float: y = ax + y and a polynomial, by the compiler's vectorizer for SSE2. */
static VECTORIZED void saxpy(float factor)
{
	for (int i = 0; i < FLOATS; i++)
		y[i] = factor * x[i] + y[i];
}

static VECTORIZED void polynomial(void)
{
	for (int i = 0; i < FLOATS; i++)
		y[i] = ((y[i] * 0.001f + 0.5f) * x[i] - 1.25f) / (1.0f + x[i] * x[i]);
}

static uint64_t sse_float_run(void)
{
	memset(y, 0, sizeof y);
	for (int i = 0; i < 4; i++)
		saxpy(0.75f + (float)i);
	polynomial();
	return sum_of_y();
}

/* sse-integer: blending of bytes and sums of 16-bit numbers, by the vectorizer for SSE2. */
static VECTORIZED void blend(int weight)
{
	for (int i = 0; i < BYTES; i++)
		s[i] = (int16_t)((p[i] * weight + q[i] * (256 - weight)) >> 8);
}

static VECTORIZED int32_t total(void)
{
	int32_t sum = 0;
	for (int i = 0; i < BYTES; i++)
		sum += s[i] > 128 ? s[i] * 3 : -s[i];
	return sum;
}

static uint64_t sse_integer_run(void)
{
	uint64_t sum = 0;
	for (int weight = 32; weight < 256; weight += 64) {
		blend(weight);
		sum = mix(sum, (uint64_t)total());
	}
	return sum;
}

static int has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}

/* avx-float: the same and more with 256 bits. */
static AVX2 void avx_round(__m256 factor)
{
	const __m256 one = _mm256_set1_ps(1.0f), half = _mm256_set1_ps(0.5f);
	for (int i = 0; i < FLOATS; i += 8) {
		__m256 v = _mm256_load_ps(x + i), w = _mm256_load_ps(y + i);
		w = _mm256_add_ps(_mm256_mul_ps(factor, v), w);
		__m256 root = _mm256_sqrt_ps(_mm256_add_ps(_mm256_mul_ps(w, w), one));
		__m256 big = _mm256_cmp_ps(w, half, _CMP_GT_OQ);
		w = _mm256_blendv_ps(_mm256_sub_ps(root, half), _mm256_div_ps(w, root), big);
		_mm256_store_ps(y + i, _mm256_permute2f128_ps(w, w, 1));
	}
}

static AVX2 uint64_t avx_float_run(void)
{
	memset(y, 0, sizeof y);
	for (int i = 0; i < 4; i++)
		avx_round(_mm256_set1_ps(0.75f + (float)i));
	return sum_of_y();
}

/* avx-integer: bytes are looked up, compared, counted and summed with 256 bits. */
static AVX2 uint64_t avx_integer_run(void)
{
	const __m256i digits = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
	const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
	__m256i population = zero, products = zero;
	uint64_t mask_sum = 0;
	for (int i = 0; i < BYTES; i += 32) {
		__m256i v = _mm256_loadu_si256((const __m256i *)(p + i));
		__m256i w = _mm256_loadu_si256((const __m256i *)(q + (i ^ 32)));
		__m256i ones = _mm256_add_epi8(_mm256_shuffle_epi8(digits, _mm256_and_si256(v, low)),
			_mm256_shuffle_epi8(digits, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
		population = _mm256_add_epi64(population, _mm256_sad_epu8(ones, zero));
		__m256i left = _mm256_unpacklo_epi8(v, zero), right = _mm256_unpackhi_epi8(w, zero);
		products = _mm256_add_epi32(products, _mm256_madd_epi16(left, right));
		mask_sum += (uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(v, w));
	}
	uint64_t out[8];
	_mm256_storeu_si256((__m256i *)out, population);
	_mm256_storeu_si256((__m256i *)(out + 4), _mm256_permute4x64_epi64(products, 0x1B));
	for (int i = 0; i < 8; i++)
		mask_sum = mix(mask_sum, out[i]);
	return mask_sum;
}

const struct workload vector_workloads[] = {
	{"mandelbrot", "vector", "pixel", PICTURE * PICTURE, mandelbrot_run, 0, 0, 0},
	{"matmul", "vector", "multiply-add", N * N * N, matmul_run, matmul_prepare, 0, 0},
	{"bodies", "vector", "step", STEPS, bodies_run, 0, 0, 0},
	{"sse-float", "vector", "element", 5 * FLOATS, sse_float_run, arrays_prepare, 0, 0},
	{"sse-integer", "vector", "element", 4 * BYTES, sse_integer_run, arrays_prepare, 0, 0},
	{"avx-float", "vector", "element", 4 * FLOATS, avx_float_run, arrays_prepare, 0, has_avx2},
	{"avx-integer", "vector", "byte", BYTES, avx_integer_run, arrays_prepare, 0, has_avx2},
	{0},
};
