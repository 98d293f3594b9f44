// The way back through the change of one projection's weights.
#pragma once
#include "once.h"
#include "update.h"

namespace VARIANT {

constexpr i64 PAIRS = 3;  // of factors that a step adds to the gradient in a projection's weights, at most

// What is yet to be added to a gradient: the sum of left right^T.
template <class S> struct Pending {
  i64 count;
  S *left[PAIRS], *right[PAIRS];
};

// One projection's weights (I, ld) at a step and the gradients of the loss in them, before and after.
template <class S> struct Weights {
  i64 I;
  const S *weight, *velocity, *velocity_after;
  S *gradient, *velocity_gradient;
  Pending<S> *pending;
};

// Memory for the way back through one projection's update.
template <class S> struct Pulling {
  S *anchor, *met, *mixed, *back, *share, *induced, *turned;
  const S **pointers, **others, **in;
  S **out;
};

// One side of a group: its monomials, what is known there and where its gradients go. Coefficients of monomials that
// follow one another are `apart`.
template <class S> struct Side {
  i64 count, apart;
  const std::int8_t *powers, *is;
  const End<S> &end;
  S *const *to;
  i64 length(i64 B) const { return B * end.ld; }
};

inline bool pure_decay(const Group &group) {
  return group.power == 1 && group.rows == 1 && group.columns == 1 && empty(group.row) && empty(group.column);
}

// Whether the way back through a rule needs the gradient in the weights once, and the weights not at all.
inline bool passing(const Rule &rule) {
  return !rule.velocity && rule.decay == 0 && rule.groups == 1 && rule.group[0].power == 0;
}

// The weights before a step from those after it, and d = W x where x is asked for, of a single event. Only for rules
// whose change holds the weights no other way than in pure decay, and without a velocity.
template <class S>
void rebuilt(const Rule &rule, i64 run, i64 step, i64 B, S *W, i64 I, const End<S> &row, const End<S> &column,
             Scratch<S> &scratch, const S *x = nullptr, S *d = nullptr) {
  const S rate = static_cast<const S *>(rule.rate)[run] * S(rule.schedule[step]);
  S kept = 1 - rate * S(rule.decay), *free = scratch.sides;
  for (i64 g = 0; g < rule.groups; ++g)
    if (pure_decay(rule.group[g])) kept += rate * static_cast<const S *>(rule.group[g].coefficients)[run];
  i64 stacked = 0;
  for (i64 g = 0; g < rule.groups; ++g) {
    const Group &group = rule.group[g];
    const S *c = static_cast<const S *>(group.coefficients) + run * group.rows * group.columns;
    if (!pure_decay(group)) stacked = factored<S>(group, c, -rate / (kept * S(B)), row, column, B, free, scratch, stacked);
  }
  if (B == 1 && kept == 1)
    return at_once<S>(I, column.ld, W, column.ld, {stacked, scratch.a, scratch.b, x != nullptr, &x, &d, 0, nullptr, nullptr});
  for (i64 i = 0; i < I; ++i) scratch.keep[i] = 1 / kept;
  const Factors<S> f{stacked, B, scratch.a, row.ld, scratch.b, column.ld};
  product<S, true>(I, column.ld, f, W, column.ld, kept != 1 ? scratch.keep : nullptr, false);
}

// Adds to the gradients in the factors of a monomial what a gradient in the monomial (B, ld) gives them.
template <class S>
void pushed(const std::int8_t *powers, i64 is, const End<S> &end, S *const *to, i64 B, const S *gradient) {
  if (is >= 0) {
    for (i64 n = 0; to[is] && n < B * end.ld; n += lanes<S>) store(to[is] + n, load(to[is] + n) + load(gradient + n));
    return;
  }
  for (i64 f = 0; f < FACTORS; ++f) {
    if (!powers[f] || !to[f]) continue;
    for (i64 b = 0; b < B; ++b)
      for (i64 n = b * end.ld; n < b * end.ld + end.size; ++n) {
        S rest = S(powers[f]) * gradient[n];
        for (i64 k = 0; k < FACTORS; ++k)
          for (i64 power = k == f; power < powers[k]; ++power) rest *= end.value[k][of_event(k) ? b : n];
        to[f][of_event(f) ? b : n] += rest;
      }
  }
}

// Whether a gradient in a monomial is of use to anybody.
template <class S> bool wanted(const std::int8_t *powers, S *const *to) {
  for (i64 f = 0; f < FACTORS; ++f)
    if (powers[f] && to[f]) return true;
  return false;
}

template <class S> bool wanted(const Side<S> &side) {
  for (i64 k = 0; k < side.count; ++k)
    if (wanted(side.powers + k * FACTORS, side.to)) return true;
  return false;
}

// A single event's part of the below: both sides' products with H, which first gets what it is yet to get.
template <class S>
void met_once(i64 I, i64 ld, S *H, bool by_rows, i64 count, i64 here, i64 there, bool turning, Pending<S> *pending,
              Pulling<S> &own) {
  const i64 back = turning ? count : 0, dots = by_rows ? back : count, sums = by_rows ? count : back;
  for (i64 k = 0; k < count; ++k) {
    own.in[k] = own.anchor + k * here, own.out[k] = own.met + k * there;
    own.in[count + k] = own.mixed + k * there, own.out[count + k] = own.back + k * here;
  }
  const i64 to_dots = by_rows ? count : 0, to_sums = by_rows ? 0 : count;
  at_once<S>(I, ld, H, ld,
             {pending ? pending->count : 0, pending ? pending->left : nullptr, pending ? pending->right : nullptr, dots,
              own.in + to_dots, own.out + to_dots, sums, own.in + to_sums, own.out + to_sums});
  if (pending) pending->count = 0;
}

// One group's part: from H (I, ld), the gradient in the sum of its products. Returns <H, sum of products>.
// The monomials of one side, the anchor, meet H and so find the coefficients' gradients and those of the other side; the
// anchor's own take as many products again, by the other side's monomials summed in activation space.
template <class S>
double pulled_group(const Group &group, i64 run, S scale, i64 B, i64 I, S *H, const End<S> &row, S *const *to_row,
                    const End<S> &column, S *const *to_column, S *free, Pending<S> *pending, Pulling<S> &own) {
  const S *c = static_cast<const S *>(group.coefficients) + run * group.rows * group.columns;
  double *gradient = group.coefficient_gradient + run * group.rows * group.columns;
  const Side<S> rows{group.rows, group.columns, group.row, group.row_is, row, to_row};
  const Side<S> columns{group.columns, 1, group.column, group.column_is, column, to_column};
  const bool by_rows = rows.count * (1 + wanted(rows)) < columns.count * (1 + wanted(columns));
  const Side<S> &anchor = by_rows ? rows : columns, &other = by_rows ? columns : rows;
  const auto met = [&](bool from_rows, i64 count, const S *values, S *found) {
    if (from_rows) return multiplied<S>(B * count, column.ld, I, values, row.ld, H, column.ld, found, column.ld);
    driven<S>(B * count, I, column.ld, values, column.ld, H, column.ld, found, row.ld, own.turned);
  };
  const i64 here = anchor.length(B), there = other.length(B);
  for (i64 k = 0; k < anchor.count; ++k)
    __builtin_memcpy(own.anchor + k * here, monomial(anchor.powers + k * FACTORS, anchor.is[k], anchor.end, B, free),
                     here * sizeof(S));
  for (i64 m = 0; m < other.count; ++m) {
    own.others[m] = monomial(other.powers + m * FACTORS, other.is[m], other.end, B, free);
    if (own.others[m] == free) free += there;
  }
  const bool turning = wanted(anchor);
  for (i64 k = 0; turning && k < anchor.count; ++k)
    mixed<S>(other.count, own.others, c + k * anchor.apart, group.used + k * anchor.apart, other.apart, scale / S(B),
             there, own.mixed + k * there);
  if (B == 1) {
    met_once<S>(I, column.ld, H, by_rows, anchor.count, here, there, turning, pending, own);
  } else {
    met(by_rows, anchor.count, own.anchor, own.met);
    if (turning) met(!by_rows, anchor.count, own.mixed, own.back);
  }
  double induced = 0;
  for (i64 k = 0; k < anchor.count; ++k)
    for (i64 m = 0; m < other.count; ++m) {
      const i64 pair = k * anchor.apart + m * other.apart;
      if (!group.used[pair]) continue;
      double product = 0;
      for (i64 b = 0; b < B; ++b)
        product += dot(own.met + k * there + b * other.end.ld, own.others[m] + b * other.end.ld, padded<S>(other.end.size));
      product /= double(B);
      gradient[pair] += double(scale) * product;
      induced += double(c[pair]) * product;
    }
  for (i64 k = 0; k < anchor.count; ++k) own.pointers[k] = own.met + k * there;
  for (i64 m = 0; m < other.count; ++m) {
    if (!wanted(other.powers + m * FACTORS, other.to)) continue;
    mixed<S>(anchor.count, own.pointers, c + m * other.apart, group.used + m * other.apart, anchor.apart, scale / S(B),
             there, own.share);
    pushed(other.powers + m * FACTORS, other.is[m], other.end, other.to, B, own.share);
  }
  for (i64 k = 0; turning && k < anchor.count; ++k)
    pushed(anchor.powers + k * FACTORS, anchor.is[k], anchor.end, anchor.to, B, own.back + k * here);
  return induced;
}

// Back through `update`: `to_row` and `to_column` collect the gradients in the factors. Returns what the gradient in
// the weights is yet to be multiplied by.
template <class S>
S pulled(const Rule &rule, i64 run, i64 step, i64 B, const Weights<S> &w, const End<S> &row, S *const *to_row,
         const End<S> &column, S *const *to_column, Scratch<S> &scratch, Pulling<S> &own) {
  const double schedule = rule.schedule[step];
  const S rate = static_cast<const S *>(rule.rate)[run] * S(schedule), scale = w.velocity ? S(1) : rate;
  const i64 ld = column.ld, all = padded<S>(w.I) * ld;  // rows of zeros too: products read them
  S *K = w.gradient;        // of the loss in the change before it is scaled
  double moved = 0;         // <gradient, what the rate multiplies>
  if (w.velocity) {
    S *made = own.induced;
    const S ahead = rule.nesterov ? S(rule.momentum) : S(1);
    __builtin_memset(made + w.I * ld, 0, (all - w.I * ld) * sizeof(S));
    for (i64 n = 0; n < w.I * ld; n += lanes<S>) {  // of rows of zeros a rate that is no number would make none
      const Vec<S> after = load(w.velocity_after + n), gradient = load(w.gradient + n);
      const Vec<S> in_velocity = load(w.velocity_gradient + n) + gradient * (rate * ahead);
      const Vec<S> current = after - load(w.velocity + n) * S(rule.momentum);
      moved += sum_of<S>(gradient * (rule.nesterov ? current + after * S(rule.momentum) : after))[0];
      store(made + n, rule.nesterov ? in_velocity + gradient * rate : in_velocity);
      store(w.velocity_gradient + n, in_velocity * S(rule.momentum));
    }
    K = made;
  }
  S share = -S(rule.decay);  // of the weights themselves in the change
  double induced = 0;
  bool more = false;
  for (i64 g = 0; g < rule.groups; ++g) {
    const Group &group = rule.group[g];
    const S *c = static_cast<const S *>(group.coefficients) + run * group.rows * group.columns;
    if (pure_decay(group)) {
      const double product = dot(K, w.weight, all);
      group.coefficient_gradient[run] += double(scale) * product;
      induced += double(c[0]) * product, share += c[0];
      continue;
    }
    S *H = K;
    for (i64 power = 0; power < group.power; ++power, H = scratch.group)
      for (i64 n = 0; n < all; n += lanes<S>) store(scratch.group + n, load(H + n) * load(w.weight + n));
    induced += pulled_group<S>(group, run, scale, B, w.I, H, row, to_row, column, to_column, scratch.sides, w.pending,
                                own);
    if (!group.power) continue;
    S *free = scratch.sides;
    const i64 count = factored<S>(group, c, S(group.power) * scale / S(B), row, column, B, free, scratch, 0);
    product<S, true>(w.I, ld, Factors<S>{count, B, scratch.a, row.ld, scratch.b, ld}, scratch.group, ld, nullptr, true);
    for (i64 n = 0; n < w.I * ld; n += lanes<S>) {
      Vec<S> part = load(scratch.group + n) * load(K + n);
      for (i64 power = 1; power < group.power; ++power) part *= load(w.weight + n);
      store(scratch.extra + n, more ? load(scratch.extra + n) + part : part);
    }
    more = true;
  }
  if (!w.velocity) moved = induced - (rule.decay ? rule.decay * dot(K, w.weight, all) : 0.0);
  rule.rate_gradient[run] += schedule * moved;
  if (!more && !w.velocity) return 1 + scale * share;
  for (i64 n = 0; n < w.I * ld; n += lanes<S>) {
    const Vec<S> passed = load(w.gradient + n) + load(K + n) * (scale * share);
    store(w.gradient + n, more ? passed + load(scratch.extra + n) : passed);
  }
  return 1;
}

}  // namespace VARIANT
