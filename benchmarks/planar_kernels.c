/* CARN-PCSR's layers with AVX-512, a vector being 16 pixels of one channel; planar_kernels.py
 * compiles and measures them. Every sum is made in the order of oneDNN and MKL.
 *
 * An image is (row, channel, S): S floats for a row of one channel, a multiple of 16, of which
 * pixels begin at a multiple of 16 and have 16 zeros on either side.
 */
#include <immintrin.h>
#include <stddef.h>

#define OUTPUTS 13 /* of a group; two vectors of pixels for each fill 26 of 32 registers */
#define WIDTH 52

/* in: first of 3 rows of a group; weight: (ky, kx, input, output). */
#define CONV3(NAME, VECTORS)                                                                       \
  static inline __attribute__((always_inline)) void NAME(                                          \
      const float *in, size_t row, size_t S, const float *weight, const float *bias, float *out) { \
    __m512 acc[OUTPUTS][VECTORS];                                                                  \
    for (int o = 0; o < OUTPUTS; o++)                                                              \
      for (int v = 0; v < VECTORS; v++) acc[o][v] = _mm512_setzero_ps();                           \
    for (int ky = 0; ky < 3; ky++)                                                                 \
      _Pragma("GCC unroll 3") for (int kx = 0; kx < 3; kx++)                                       \
        for (int c = 0; c < OUTPUTS; c++, weight += OUTPUTS) {                                     \
          const float *p = in + ky * row + c * S;                                                  \
          __m512 x[VECTORS];                                                                       \
          for (int v = 0; v < VECTORS; v++) { /* shifted in registers: no split cache lines */     \
            __m512i m = _mm512_load_si512(p + 16 * v);                                             \
            if (kx == 0) m = _mm512_alignr_epi32(m, _mm512_load_si512(p + 16 * v - 16), 15);       \
            if (kx == 2) m = _mm512_alignr_epi32(_mm512_load_si512(p + 16 * v + 16), m, 1);        \
            x[v] = _mm512_castsi512_ps(m);                                                         \
          }                                                                                        \
          _Pragma("GCC unroll 13") for (int o = 0; o < OUTPUTS; o++) {                             \
            __m512 w = _mm512_set1_ps(weight[o]);                                                  \
            for (int v = 0; v < VECTORS; v++) acc[o][v] = _mm512_fmadd_ps(w, x[v], acc[o][v]);     \
          }                                                                                        \
        }                                                                                          \
    for (int o = 0; o < OUTPUTS; o++)                                                              \
      for (int v = 0; v < VECTORS; v++)                                                            \
        _mm512_store_ps(out + o * S + 16 * v,                                                      \
                        _mm512_max_ps(_mm512_add_ps(acc[o][v], _mm512_set1_ps(bias[o])),           \
                                      _mm512_setzero_ps()));                                       \
  }
CONV3(conv3_pair, 2)
CONV3(conv3_single, 1)

static void clear_right(float *out, int channels, int w, size_t S) {
  for (int x = w; x % 16; x++)
    for (int c = 0; c < channels; c++) out[c * S + x] = 0;
}

/* A 3x3 convolution in groups of 13, and its ReLU; `in` has a row above and one below. */
void conv3(const float *in, float *out, int rows, int groups, int w, size_t S, const float *weight,
           const float *bias) {
  const size_t row = (size_t)groups * OUTPUTS * S;
  for (int y = 0; y < rows; y++)
    for (int g = 0; g < groups; g++) {
      const float *i = in + y * row + g * OUTPUTS * S, *b = bias + g * OUTPUTS;
      const float *k = weight + g * 9 * OUTPUTS * OUTPUTS;
      float *o = out + y * row + g * OUTPUTS * S;
      int x = 0;
      for (; x + 32 <= w; x += 32) conv3_pair(i + x, row, S, k, b, o + x);
      for (; x < w; x += 16) conv3_single(i + x, row, S, k, b, o + x);
      clear_right(o, OUTPUTS, w, S);
    }
}

/* weight: (part, input, output). */
#define CONV1(NAME, VECTORS)                                                                       \
  static inline __attribute__((always_inline)) void NAME(                                          \
      const float *const *in, int parts, size_t S, const float *weight, const float *bias,         \
      const float *added, float *out) {                                                            \
    for (int g = 0; g < WIDTH; g += OUTPUTS) {                                                     \
      __m512 total[OUTPUTS][VECTORS];                                                              \
      const float *w = weight + g;                                                                 \
      for (int p = 0; p < parts; p++) {                                                            \
        __m512 acc[OUTPUTS][VECTORS];                                                              \
        for (int o = 0; o < OUTPUTS; o++)                                                          \
          for (int v = 0; v < VECTORS; v++) acc[o][v] = _mm512_setzero_ps();                       \
        for (int c = 0; c < WIDTH; c++, w += WIDTH) {                                              \
          __m512 x[VECTORS];                                                                       \
          for (int v = 0; v < VECTORS; v++) x[v] = _mm512_load_ps(in[p] + c * S + 16 * v);         \
          _Pragma("GCC unroll 13") for (int o = 0; o < OUTPUTS; o++) {                             \
            __m512 one = _mm512_set1_ps(w[o]);                                                     \
            for (int v = 0; v < VECTORS; v++) acc[o][v] = _mm512_fmadd_ps(one, x[v], acc[o][v]);   \
          }                                                                                        \
        }                                                                                          \
        for (int o = 0; o < OUTPUTS; o++)                                                          \
          for (int v = 0; v < VECTORS; v++)                                                        \
            total[o][v] =                                                                          \
                _mm512_add_ps(acc[o][v], p ? total[o][v] : _mm512_set1_ps(bias[g + o]));           \
      }                                                                                            \
      for (int o = 0; o < OUTPUTS; o++)                                                            \
        for (int v = 0; v < VECTORS; v++) {                                                        \
          const size_t at = (g + o) * S + 16 * v;                                                  \
          __m512 t = total[o][v];                                                                  \
          if (added) t = _mm512_add_ps(t, _mm512_load_ps(added + at));                             \
          _mm512_store_ps(out + at, _mm512_max_ps(t, _mm512_setzero_ps()));                        \
        }                                                                                          \
    }                                                                                              \
  }
CONV1(conv1_pair, 2)
CONV1(conv1_single, 1)

/* The sum of 1x1 convolutions of at most 4 images (and of `added`), and its ReLU. */
void conv1(const float *const *in, int parts, float *out, const float *added, int rows, int w,
           size_t S, const float *weight, const float *bias) {
  for (int y = 0; y < rows; y++) {
    for (int x = 0; x < w; x += x + 32 <= w ? 32 : 16) {
      const size_t at = y * WIDTH * S + x;
      const float *first[4];
      for (int p = 0; p < parts; p++) first[p] = in[p] + at;
      (x + 32 <= w ? conv1_pair : conv1_single)(first, parts, S, weight, bias,
                                                added ? added + at : NULL, out + at);
    }
    clear_right(out + y * WIDTH * S, WIDTH, w, S);
  }
}

/* 48 * n fused multiply-adds of 16 numbers and nothing else: what the processor can do. */
float peak(long n) {
  __m512 acc[24], sum = _mm512_setzero_ps();
  for (int i = 0; i < 24; i++) acc[i] = _mm512_set1_ps((float)i);
  for (long k = 0; k < 2 * n; k++)
    _Pragma("GCC unroll 24") for (int i = 0; i < 24; i++)
      acc[i] = _mm512_fmadd_ps(acc[i], _mm512_set1_ps(0.999f), _mm512_set1_ps(0.001f));
  for (int i = 0; i < 24; i++) sum = _mm512_add_ps(sum, acc[i]);
  return _mm512_reduce_add_ps(sum);
}
