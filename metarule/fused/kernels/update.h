// How a rule that is a list of terms changes the weights of one projection.
#pragma once
#include "products.h"

namespace VARIANT {

// What is known at one end of a projection's synapses: (B, ld) per factor; factors of an event are (B).
template <class S> struct End {
  i64 size, ld;
  const S *value[FACTORS];
};

inline bool of_event(i64 factor) { return factor == TOTAL_POST || factor == AGREEMENT || factor == MATCH; }

// Memory for one projection's update, as large as the largest needs.
template <class S> struct Scratch {
  S *sides, *group, *extra, *keep;
  const S **a, **b, **rows, **columns;
};

// A product of factors; one factor alone is read where it lies.
template <class S> const S *monomial(const std::int8_t *powers, i64 is, const End<S> &end, i64 B, S *free) {
  if (is >= 0) return end.value[is];
  for (i64 b = 0; b < B; ++b) {
    S *out = free + b * end.ld;
    for (i64 n = 0; n < end.ld; ++n) out[n] = n < end.size ? S(1) : S(0);
    for (i64 f = 0; f < FACTORS; ++f)
      for (i64 power = 0; power < powers[f]; ++power)
        for (i64 n = 0; n < end.size; ++n) out[n] *= of_event(f) ? end.value[f][b] : end.value[f][b * end.ld + n];
  }
  return free;
}

inline bool empty(const std::int8_t *powers) {
  for (i64 f = 0; f < FACTORS; ++f)
    if (powers[f]) return false;
  return true;
}

// out = sum over k of c_k values_k
template <class S, int COUNT> inline void summed(const S *const *values, const S *c, i64 size, S *out) {
  for (i64 n = 0; n < size; n += lanes<S>) {
    Vec<S> total = load(values[0] + n) * c[0];
#pragma GCC unroll 4
    for (int k = 1; k < COUNT; ++k) total += load(values[k] + n) * c[k];
    store(out + n, total);
  }
}

// The same of those values that are used; c and used are `stride` apart.
template <class S>
void mixed(i64 count, const S *const *all, const S *coefficients, const std::int8_t *used, i64 stride, S scale,
           i64 size, S *out) {
  const S *values[4];
  S c[4];
  int held = 0;
  for (i64 k = 0; k < count; ++k) {
    if (used[k * stride]) values[held] = all[k], c[held++] = coefficients[k * stride] * scale;
    if (!held || (held < 4 && k + 1 < count)) continue;
    if (held == 1) summed<S, 1>(values, c, size, out);
    if (held == 2) summed<S, 2>(values, c, size, out);
    if (held == 3) summed<S, 3>(values, c, size, out);
    if (held == 4) summed<S, 4>(values, c, size, out);
    values[0] = out, c[0] = 1, held = 1;  // the sum so far is one of the next
  }
}

// The factors of a group's product: the side with fewer monomials stays, the other is summed in activation space.
template <class S>
i64 factored(const Group &group, const S *c, S scale, const End<S> &row, const End<S> &column, i64 B, S *&free,
             Scratch<S> &scratch, i64 at) {
  for (i64 k = 0; k < group.rows; ++k) {
    scratch.rows[k] = monomial(group.row + k * FACTORS, group.row_is[k], row, B, free);
    if (scratch.rows[k] == free) free += B * row.ld;
  }
  for (i64 k = 0; k < group.columns; ++k) {
    scratch.columns[k] = monomial(group.column + k * FACTORS, group.column_is[k], column, B, free);
    if (scratch.columns[k] == free) free += B * column.ld;
  }
  if (group.rows <= group.columns) {
    for (i64 k = 0; k < group.rows; ++k, free += B * column.ld) {
      mixed<S>(group.columns, scratch.columns, c + k * group.columns, group.used + k * group.columns, 1, scale,
               B * column.ld, free);
      scratch.a[at + k] = scratch.rows[k], scratch.b[at + k] = free;
    }
    return at + group.rows;
  }
  for (i64 k = 0; k < group.columns; ++k, free += B * row.ld) {
    mixed<S>(group.rows, scratch.rows, c + k, group.used + k, group.columns, scale, B * row.ld, free);
    scratch.a[at + k] = free, scratch.b[at + k] = scratch.columns[k];
  }
  return at + group.columns;
}

// What a step does to the weights W (I, ld) of a run: `scratch` holds `stacked` pairs of factors of what is added, and
// `kept`: the share of each row that stays, `more`: what is added that holds powers of W.
struct Change {
  i64 stacked;
  bool kept, more;
};

// A number per row of the weights: decay, Oja's forgetting.
inline bool of_rows(const Group &group) { return group.power == 1 && group.columns == 1 && empty(group.column); }

template <class S>
Change changed(const Rule &rule, i64 run, i64 step, i64 B, const S *W, i64 I, const End<S> &row, const End<S> &column,
               Scratch<S> &scratch) {
  const S scale = rule.velocity ? S(1) : static_cast<const S *>(rule.rate)[run] * S(rule.schedule[step]);
  const i64 ld = column.ld, all = I * ld;
  S *free = scratch.sides;
  Change change = {0, rule.decay != 0 || rule.velocity, false};
  for (i64 i = 0; i < I; ++i) scratch.keep[i] = 1 - scale * S(rule.decay);
  for (i64 g = 0; g < rule.groups; ++g) {
    const Group &group = rule.group[g];
    const S *c = static_cast<const S *>(group.coefficients) + run * group.rows * group.columns;
    if (group.power == 0) {
      change.stacked = factored<S>(group, c, scale / S(B), row, column, B, free, scratch, change.stacked);
    } else if (of_rows(group)) {
      change.kept = true;
      for (i64 k = 0; k < group.rows; ++k) {
        const S *values = monomial(group.row + k * FACTORS, group.row_is[k], row, B, free);
        for (i64 b = 0; b < B; ++b)
          for (i64 i = 0; i < I; ++i) scratch.keep[i] += c[k] * scale / S(B) * values[b * row.ld + i];
      }
    } else {
      const i64 at = change.stacked, count = factored<S>(group, c, scale / S(B), row, column, B, free, scratch, at) - at;
      const Factors<S> f{count, B, scratch.a + at, row.ld, scratch.b + at, ld};
      product<S, true>(I, ld, f, scratch.group, ld, nullptr, true);
      for (i64 n = 0; n < all; n += lanes<S>) {
        Vec<S> powers = load(scratch.group + n);
        for (i64 power = 0; power < group.power; ++power) powers *= load(W + n);
        store(scratch.extra + n, change.more ? load(scratch.extra + n) + powers : powers);
      }
      change.more = true;
    }
  }
  return change;
}

// Makes a change that `changed` found, with the velocity where there is one.
template <class S>
void change_weights(const Rule &rule, i64 run, i64 step, i64 B, const Change &change, S *W, S *velocity, i64 I,
                    i64 ld_row, i64 ld, Scratch<S> &scratch) {
  const i64 all = I * ld;
  S *target = W;
  if (velocity) {
    target = scratch.group;
    for (i64 i = 0; i < I; ++i)
      for (i64 n = 0; n < ld; n += lanes<S>)
        store(target + i * ld + n, load(W + i * ld + n) * (scratch.keep[i] - S(1)));
  }
  const Factors<S> f{change.stacked, B, scratch.a, ld_row, scratch.b, ld};
  product<S, true>(I, ld, f, target, ld, change.kept && !velocity ? scratch.keep : nullptr, false);
  if (change.more)
    for (i64 n = 0; n < all; n += lanes<S>) store(target + n, load(target + n) + load(scratch.extra + n));
  if (!velocity) return;
  const S rate = static_cast<const S *>(rule.rate)[run] * S(rule.schedule[step]);
  for (i64 n = 0; n < all; n += lanes<S>) {
    const Vec<S> current = load(target + n);
    const Vec<S> speed = load(velocity + n) * S(rule.momentum) + current;
    store(velocity + n, speed);
    store(W + n, load(W + n) + (rule.nesterov ? current + speed * S(rule.momentum) : speed) * rate);
  }
}

}  // namespace VARIANT
