// One event through a projection whose weights are far from the processor: they pass by once a step. While some rows are
// near they drive their units and reconstruct by these units' rates, and changes wait until many are made in one pass.
#pragma once
#include "functions.h"
#include "update.h"

namespace VARIANT {

constexpr i64 NEAR = 1 << 14;  // bytes that are in the nearest cache however often they pass by

// Weights (I, ld) and what is yet to become of them: keep W + sum over `count` pairs of rows columns^T.
template <class S> struct Waiting {
  static constexpr int MOST = 16;  // enough that making them is a small part of passing by
  static constexpr int ROWS = lanes<S> < 4 ? lanes<S> : 4;
  bool used;  // whether changes of this projection wait at all
  bool kept;  // whether `keep` is more than ones
  i64 I, ld, tall, count;
  S *W;              // with rows of zeros to a whole vector of I, as many as `tall`
  S *keep;           // the share of each row that stays
  S *rows, *columns;  // (MOST, tall) and (MOST, ld)
  S *ahead;           // memory for what pairs add to the drives; like `keep` it has a vector more than `tall`

  // Takes over what `scratch` holds of a change without powers of weights and of no more than MOST pairs.
  void hold(const Change &change, const Scratch<S> &scratch) {
    if (count + change.stacked > MOST) make();
    if (change.kept) {
      for (i64 i = 0; i < I; ++i) keep[i] = kept ? keep[i] * scratch.keep[i] : scratch.keep[i];
      for (i64 k = 0; k < count; ++k)
        for (i64 i = 0; i < I; ++i) rows[k * tall + i] *= scratch.keep[i];
      kept = true;
    }
    for (i64 k = 0; k < change.stacked; ++k, ++count) {
      __builtin_memcpy(rows + count * tall, scratch.a[k], I * sizeof(S));
      __builtin_memcpy(columns + count * ld, scratch.b[k], ld * sizeof(S));
    }
  }
  void make() {
    const S *a[MOST], *b[MOST];
    for (i64 k = 0; k < count; ++k) a[k] = rows + k * tall, b[k] = columns + k * ld;
    if (count || kept) product<S, true>(I, ld, Factors<S>{count, 1, a, tall, b, ld}, W, ld, kept ? keep : nullptr, false);
    count = 0, kept = false;
  }

  // drive (I) = W x, rate = its nonlinearity, reconstruction (ld), where there is one, = rate W.
  void through(const S *x, i64 activation, S beta, S *drive, S *rate, S *reconstruction) const {
    // as many rows at a time as a vector has lanes, if they are still near when the last of them is seen
    const i64 block = lanes<S> * ld * i64(sizeof(S)) <= NEAR ? lanes<S> : ROWS;
    Vec<S> sums[lanes<S>] = {};
    S seen[MOST];
    for (i64 k = 0; k < count; ++k) seen[k] = dot(columns + k * ld, x, ld);
    combination<S>(tall, count, seen, rows, tall, ahead, true);
    for (i64 j = 0; reconstruction && j < ld; j += lanes<S>) store(reconstruction + j, Vec<S>{});
    i64 i = 0;
    for (; i < I; i += block) {
      for (i64 m = 0; m < block; m += ROWS) driven_rows(i + m, x, sums + m);
      const Vec<S> driven = kept ? sums_of<S>(sums) * load_anywhere(keep + i) : sums_of<S>(sums);
      const Vec<S> drives = driven + load_anywhere(ahead + i), rates = rates_of<S>(activation, drives, beta);
      put(drives, block, drive + i), put(rates, block, rate + i);
      // one behind: these rates are still on their way
      if (i) reconstruct(i - block, block, rate, reconstruction);
    }
    reconstruct(i - block, block, rate, reconstruction);
    for (; i < tall; ++i) drive[i] = rate[i] = 0;  // products below are of whole vectors, and a tape begins with anything
    if (!reconstruction) return;
    for (i64 k = 0; k < count; ++k) seen[k] = dot(rows + k * tall, rate, tall);
    combination<S>(ld, count, seen, columns, ld, reconstruction, false);
  }
  INLINE void driven_rows(i64 i, const S *x, Vec<S> *sums) const {
    Vec<S> totals[ROWS] = {};
    const S *const w = W + i * ld;
    for (i64 j = 0; j < ld; j += lanes<S>) {
      const Vec<S> right = load(x + j);
#pragma GCC unroll 4
      for (int m = 0; m < ROWS; ++m) totals[m] += load(w + m * ld + j) * right;
    }
#pragma GCC unroll 4
    for (int m = 0; m < ROWS; ++m) sums[m] = totals[m];
  }
  static INLINE void put(const Vec<S> &values, i64 block, S *to) {
    block == ROWS ? __builtin_memcpy(to, &values, ROWS * sizeof(S)) : __builtin_memcpy(to, &values, sizeof values);
  }
  void reconstruct(i64 first, i64 count, const S *rate, S *to) const {
    for (i64 i = first; to && i < first + count; i += ROWS) {
      S shares[ROWS];
      for (int m = 0; m < ROWS; ++m) shares[m] = rate[i + m] * (kept ? keep[i + m] : S(1));
      rows_added<S, ROWS>(ld, shares, W + i * ld, ld, to);
    }
  }

  // to (ld) = error W
  void back(const S *error, S *to) const {
    S seen[MOST];
    for (i64 k = 0; k < count; ++k) seen[k] = dot(rows + k * tall, error, tall);
    combination<S>(ld, count, seen, columns, ld, to, true);
    reconstruct(0, (I + ROWS - 1) / ROWS * ROWS, error, to);
  }
};

}  // namespace VARIANT
