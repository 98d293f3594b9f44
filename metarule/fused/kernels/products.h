// Products of small matrices, blocked in registers. Rows lie WIDTH-aligned and are filled up with zeros.
#pragma once
#include "vectors.h"

namespace VARIANT {

constexpr int TILE_ROWS = REGISTERS >= 32 ? 6 : REGISTERS >= 16 ? 4 : 2;
constexpr int TILE_VECTORS = REGISTERS >= 32 ? 4 : 2;

// Factors of a sum of products: A (M K) and B (K N) of each of `groups`, K = events.
template <class S> struct Factors {
  i64 groups, events;
  const S *const *a;
  i64 lda;
  const S *const *b;
  i64 ldb;
};

// C (ROWS, VECTORS) = keep C + sum of A B. TURNED: A is stored (K M). keep: a number per row; null is 1.
template <class S, int ROWS, int VECTORS, bool TURNED>
inline void tile(const Factors<S> &f, i64 row, i64 column, S *c, i64 ldc, const S *keep, bool fresh) {
  Vec<S> sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 16
    for (int n = 0; n < VECTORS; ++n) {
      sums[m][n] = fresh ? Vec<S>{} : load(c + m * ldc + n * lanes<S>);
      if (keep) sums[m][n] *= keep[m];
    }
  for (i64 g = 0; g < f.groups; ++g) {
    const S *a = f.a[g] + (TURNED ? row : row * f.lda), *b = f.b[g] + column;
    for (i64 k = 0; k < f.events; ++k) {
      Vec<S> right[VECTORS];
#pragma GCC unroll 16
      for (int n = 0; n < VECTORS; ++n) right[n] = load(b + k * f.ldb + n * lanes<S>);
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; ++m) {
        const S left = TURNED ? a[k * f.lda + m] : a[m * f.lda + k];
#pragma GCC unroll 16
        for (int n = 0; n < VECTORS; ++n) sums[m][n] += right[n] * left;
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; ++m)
#pragma GCC unroll 16
    for (int n = 0; n < VECTORS; ++n) store(c + m * ldc + n * lanes<S>, sums[m][n]);
}

// The last rows, fewer than a tile has.
template <class S, int ROWS, int VECTORS, bool TURNED> struct Rest {
  static inline void of(i64 rows, const Factors<S> &f, i64 row, i64 column, S *c, i64 ldc, const S *keep, bool fresh) {
    if (rows == ROWS) return tile<S, ROWS, VECTORS, TURNED>(f, row, column, c, ldc, keep, fresh);
    Rest<S, ROWS - 1, VECTORS, TURNED>::of(rows, f, row, column, c, ldc, keep, fresh);
  }
};
template <class S, int VECTORS, bool TURNED> struct Rest<S, 0, VECTORS, TURNED> {
  static inline void of(i64, const Factors<S> &, i64, i64, S *, i64, const S *, bool) {}
};

template <class S, int VECTORS, bool TURNED>
inline void column_of_tiles(i64 M, const Factors<S> &f, i64 column, S *c, i64 ldc, const S *keep, bool fresh) {
  i64 row = 0;
  for (; row + TILE_ROWS <= M; row += TILE_ROWS)
    tile<S, TILE_ROWS, VECTORS, TURNED>(f, row, column, c + row * ldc, ldc, keep ? keep + row : keep, fresh);
  Rest<S, TILE_ROWS - 1, VECTORS, TURNED>::of(M - row, f, row, column, c + row * ldc, ldc, keep ? keep + row : keep,
                                              fresh);
}

template <class S, bool TURNED>
void product(i64 M, i64 N, const Factors<S> &f, S *c, i64 ldc, const S *keep, bool fresh) {
  i64 column = 0;
  for (; column + TILE_VECTORS * lanes<S> <= N; column += TILE_VECTORS * lanes<S>)
    column_of_tiles<S, TILE_VECTORS, TURNED>(M, f, column, c + column, ldc, keep, fresh);
  if (TILE_VECTORS > 2 && column + 2 * lanes<S> <= N) {
    column_of_tiles<S, 2, TURNED>(M, f, column, c + column, ldc, keep, fresh);
    column += 2 * lanes<S>;
  }
  if (column < N) column_of_tiles<S, 1, TURNED>(M, f, column, c + column, ldc, keep, fresh);
}

template <class S> inline S dot(const S *a, const S *b, i64 size) {
  Vec<S> total = {};
  for (i64 n = 0; n < size; n += lanes<S>) total += load(a + n) * load(b + n);
  return sum_of<S>(total)[0];
}

// c (VECTORS) = sum over K of a_k B_k, even and odd k apart: one sum would wait for itself. Unless `fresh`, added to c.
template <class S, int VECTORS> inline void narrow(i64 K, const S *a, const S *b, i64 ldb, S *c, bool fresh) {
  Vec<S> even[VECTORS] = {}, odd[VECTORS] = {};
  i64 k = 0;
  for (; k + 2 <= K; k += 2)
#pragma GCC unroll 8
    for (int n = 0; n < VECTORS; ++n) {
      even[n] += load(b + k * ldb + n * lanes<S>) * a[k];
      odd[n] += load(b + (k + 1) * ldb + n * lanes<S>) * a[k + 1];
    }
#pragma GCC unroll 8
  for (int n = 0; n < VECTORS; ++n) {
    if (k < K) even[n] += load(b + k * ldb + n * lanes<S>) * a[k];
    if (!fresh) even[n] += load(c + n * lanes<S>);
    store(c + n * lanes<S>, even[n] + odd[n]);
  }
}

// c (N) += sum over ROWS of a_k B_k
template <class S, int ROWS> inline void rows_added(i64 N, const S *a, const S *b, i64 ldb, S *c) {
  for (i64 n = 0; n < N; n += lanes<S>) {
    Vec<S> even = load(c + n), odd = {};
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; m += 2) {
      even += load(b + m * ldb + n) * a[m];
      if (m + 1 < ROWS) odd += load(b + (m + 1) * ldb + n) * a[m + 1];
    }
    store(c + n, even + odd);
  }
}

// c (N) = sum over K of a_k B_k: a single event. Where B is wide, whole rows in order, several at a time: what lies in a
// far cache arrives best so.
template <class S> void combination(i64 N, i64 K, const S *a, const S *b, i64 ldb, S *c, bool fresh) {
  constexpr int ROWS = 8;
  if (N <= 6 * lanes<S>) {
    i64 n = 0;
    for (; n + 4 * lanes<S> <= N; n += 4 * lanes<S>) narrow<S, 4>(K, a, b + n, ldb, c + n, fresh);
    for (; n + 2 * lanes<S> <= N; n += 2 * lanes<S>) narrow<S, 2>(K, a, b + n, ldb, c + n, fresh);
    for (; n < N; n += lanes<S>) narrow<S, 1>(K, a, b + n, ldb, c + n, fresh);
    return;
  }
  i64 k = 0;
  for (i64 n = 0; fresh && n < N; n += lanes<S>) store(c + n, Vec<S>{});
  for (; k + ROWS <= K; k += ROWS) rows_added<S, ROWS>(N, a + k, b + k * ldb, ldb, c);
  for (; k < K; ++k) rows_added<S, 1>(N, a + k, b + k * ldb, ldb, c);
}

// C (M N) = A (M K) B (K N), added to C unless `fresh`.
template <class S>
void multiplied(i64 M, i64 N, i64 K, const S *a, i64 lda, const S *b, i64 ldb, S *c, i64 ldc, bool fresh = true) {
  if (M == 1) return combination<S>(N, K, a, b, ldb, c, fresh);
  product<S, false>(M, N, Factors<S>{1, K, &a, lda, &b, ldb}, c, ldc, nullptr, fresh);
}

// EVENTS events against lanes / EVENTS rows of W: as many dot products as a vector has lanes.
template <class S, int EVENTS>
inline void dots(i64 I, i64 J, const S *x, i64 ldx, const S *w, i64 ldw, S *d, i64 ldd) {
  constexpr int ROWS = lanes<S> / EVENTS;
  for (i64 i = 0; i < I; i += ROWS) {
    Vec<S> sums[lanes<S>] = {};
    for (i64 j = 0; j < J; j += lanes<S>) {
      Vec<S> right[EVENTS];
#pragma GCC unroll 16
      for (int e = 0; e < EVENTS; ++e) right[e] = load(x + e * ldx + j);
#pragma GCC unroll 16
      for (int m = 0; m < ROWS; ++m) {
        Vec<S> left = load(w + (i + m) * ldw + j);
#pragma GCC unroll 16
        for (int e = 0; e < EVENTS; ++e) sums[e * ROWS + m] += left * right[e];
      }
    }
    Vec<S> found = sums_of<S>(sums);
    if (EVENTS == 1) {
      store(d + i, found);
      continue;
    }
    S kept[lanes<S>] __attribute__((aligned(WIDTH)));
    store(kept, found);
#pragma GCC unroll 16
    for (int e = 0; e < EVENTS; ++e) __builtin_memcpy(d + e * ldd + i, kept + e * ROWS, ROWS * sizeof(S));
  }
  // whoever sums over whole vectors of units reads zeros beyond the last one, not what lay there before
  for (i64 i = (I + ROWS - 1) / ROWS * ROWS; i < padded<S>(I); i += ROWS)
    for (int e = 0; e < EVENTS; ++e) __builtin_memset(d + e * ldd + i, 0, ROWS * sizeof(S));
}

// D (B I) = X (B J) W^T, W (I J) with rows of zeros to a whole vector of I. Many events are worth the turning of W into
// `turned`, which holds as many numbers; a sum over the lanes for each of theirs would take longer.
template <class S>
void driven(i64 B, i64 I, i64 J, const S *x, i64 ldx, const S *w, i64 ldw, S *d, i64 ldd, S *turned) {
  constexpr i64 WORTH = 11;  // weights of a unit that are turned in the time in which an event's lanes are summed
  if (WORTH * B > J) {
    const i64 ld = padded<S>(I);
    for (i64 i = 0; i < ld; i += lanes<S>)
      for (i64 j = 0; j < J; j += lanes<S>) turn_square(w + i * ldw + j, ldw, turned + j * ld + i, ld);
    return multiplied<S>(B, ld, J, x, ldx, turned, ld, d, ldd);
  }
  constexpr int MOST = lanes<S> >= 4 ? 4 : lanes<S>;
  i64 b = 0;
  for (; b + MOST <= B; b += MOST) dots<S, MOST>(I, J, x + b * ldx, ldx, w, ldw, d + b * ldd, ldd);
  for (; MOST > 2 && b + 2 <= B; b += 2) dots<S, 2>(I, J, x + b * ldx, ldx, w, ldw, d + b * ldd, ldd);
  for (; b < B; ++b) dots<S, 1>(I, J, x + b * ldx, ldx, w, ldw, d + b * ldd, ldd);
}

}  // namespace VARIANT
