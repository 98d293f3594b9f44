// A single event's products with a matrix, all in one pass over it: what lies in a far cache is read there once.
#pragma once
#include "vectors.h"

namespace VARIANT {

// What is done to the rows C_i (N) of a matrix, in this order. Each list is of as many as its count says.
template <class S> struct Once {
  i64 rank;
  const S *const *a, *const *b;  // C_i += a_i b
  i64 dots;
  const S *const *x;  // d_i = C_i . x, filled up with zeros
  S *const *d;
  i64 sums;
  const S *const *y;  // s = sum over i of y_i C_i
  S *const *s;
};

// Some rows; of the dots DOTS from `first` on.
template <class S, int ROWS, int DOTS>
inline void rows_once(i64 row, i64 N, S *c, i64 ldc, const Once<S> &once, i64 first) {
  const bool begins = first == 0;
  const i64 rank = begins ? once.rank : 0, sums = begins ? once.sums : 0;
  Vec<S> total[DOTS + 1][ROWS] = {};
  for (i64 n = 0; n < N; n += lanes<S>) {
    Vec<S> here[ROWS];
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; ++m) here[m] = load(c + m * ldc + n);
    for (i64 k = 0; k < rank; ++k) {
      const Vec<S> right = load(once.b[k] + n);
      const S *left = once.a[k] + row;
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; ++m) here[m] += right * left[m];
    }
#pragma GCC unroll 8
    for (int m = 0; rank && m < ROWS; ++m) store(c + m * ldc + n, here[m]);
#pragma GCC unroll 2
    for (int k = 0; k < DOTS; ++k) {
      const Vec<S> right = load(once.x[first + k] + n);
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; ++m) total[k][m] += here[m] * right;
    }
    for (i64 k = 0; k < sums; ++k) {
      const S *left = once.y[k] + row;
      Vec<S> sum = load(once.s[k] + n), odd = {};
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; ++m) (m % 2 ? odd : sum) += here[m] * left[m];
      store(once.s[k] + n, sum + odd);
    }
  }
#pragma GCC unroll 2
  for (int k = 0; k < DOTS; ++k)
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; ++m) once.d[first + k][row + m] = sum_of<S>(total[k][m])[0];
}

template <class S, int DOTS> void all_once(i64 I, i64 N, S *c, i64 ldc, const Once<S> &once, i64 first) {
  constexpr int ROWS = REGISTERS >= 32 ? 8 : 4;
  i64 row = 0;
  for (; row + ROWS <= I; row += ROWS) rows_once<S, ROWS, DOTS>(row, N, c + row * ldc, ldc, once, first);
  for (; row < I; ++row) rows_once<S, 1, DOTS>(row, N, c + row * ldc, ldc, once, first);
}

template <class S> void at_once(i64 I, i64 N, S *c, i64 ldc, const Once<S> &once) {
  for (i64 k = 0; k < once.sums; ++k) __builtin_memset(once.s[k], 0, N * sizeof(S));
  for (i64 k = 0; k < once.dots; ++k)
    for (i64 i = I; i < padded<S>(I); ++i) once.d[k][i] = 0;
  i64 first = 0;
  do {  // two dots at a time: more would not stay in registers
    const i64 left = once.dots - first;
    if (left >= 2) all_once<S, 2>(I, N, c, ldc, once, first);
    else if (left == 1) all_once<S, 1>(I, N, c, ldc, once, first);
    else all_once<S, 0>(I, N, c, ldc, once, first);
    first += 2;
  } while (first < once.dots);
}

}  // namespace VARIANT
