// Rates of units and their slopes.
#pragma once
#include "vectors.h"

namespace VARIANT {

#define INLINE inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 4")

// Coefficients of the polynomials below: as many as the type resolves.
template <class S> struct Precision;
template <> struct Precision<float> {
  static constexpr int taylor = 7, atanh = 8, mantissa = 23, bias = 127;
  static constexpr float log2e = 1.44269504f, ln2 = 0.693359375f, ln2_rest = -2.12194440e-4f;
  static constexpr float magic = 12582912.0f, least = -87.0f, most = 88.0f, saturated = 10.0f;
};
template <> struct Precision<double> {
  static constexpr int taylor = 14, atanh = 18, mantissa = 52, bias = 1023;
  static constexpr double log2e = 1.4426950408889634, ln2 = 0.693145751953125, ln2_rest = 1.42860682030941723212e-6;
  static constexpr double magic = 6755399441055744.0, least = -708.0, most = 709.0, saturated = 20.0;
};

// Some vectors side by side. A chain of operations on one vector waits for each result; on four it has work meanwhile.
template <class S, int N> struct Pack {
  Vec<S> v[N];
  INLINE Pack() {}
  INLINE Pack(S value) {
    UNROLLED for (int k = 0; k < N; ++k) v[k] = splat<S>(value);
  }
  static INLINE Pack from(const S *values, i64 apart = lanes<S>) {
    Pack out;
    UNROLLED for (int k = 0; k < N; ++k) out.v[k] = load(values + k * apart);
    return out;
  }
  INLINE void to(S *values, i64 apart = lanes<S>) const {
    UNROLLED for (int k = 0; k < N; ++k) store(values + k * apart, v[k]);
  }
#define OPERATOR(op)                                          \
  friend INLINE Pack operator op(Pack a, const Pack &b) {     \
    UNROLLED for (int k = 0; k < N; ++k) a.v[k] = a.v[k] op b.v[k];    \
    return a;                                                 \
  }
  OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(/)
#undef OPERATOR
  friend INLINE Pack operator-(Pack a) {
    UNROLLED for (int k = 0; k < N; ++k) a.v[k] = -a.v[k];
    return a;
  }
};

// a < b ? yes : no; where either is no number, `no`.
template <class S, int N>
INLINE Pack<S, N> less(const Pack<S, N> &a, Pack<S, N> b, Pack<S, N> yes, const Pack<S, N> &no) {
  UNROLLED for (int k = 0; k < N; ++k) yes.v[k] = a.v[k] < b.v[k] ? yes.v[k] : no.v[k];
  return yes;
}

constexpr double factorial(int k) { return k < 2 ? 1.0 : k * factorial(k - 1); }

// exp(x) - 1 where neither overflows, exact to rounding near 0 too: x = n ln 2 + r, and it is
// 2^n (exp(r) - 1) + (2^n - 1).
template <class S, int N> INLINE Pack<S, N> expm1_within(const Pack<S, N> &x) {
  typedef Precision<S> P;
  typedef Pack<S, N> Values;
  const Values shifted = x * P::log2e + P::magic;  // its lowest bits are n
  const Values n = shifted - P::magic;
  const Values r = x - n * P::ln2 - n * P::ln2_rest;
  Values q = S(1 / factorial(P::taylor));
#pragma GCC unroll 16
  for (int k = P::taylor - 1; k >= 1; --k) q = q * r + S(1 / factorial(k));
  Values scale;
  UNROLLED for (int k = 0; k < N; ++k) {
    const Whole<S> bits = reinterpret_cast<const Whole<S> &>(shifted.v[k]) + typename Lanes<S>::bits(P::bias);
    scale.v[k] = reinterpret_cast<Vec<S>>(bits << P::mantissa);
  }
  return q * r * scale + (scale - S(1));
}
template <class S, int N> INLINE Pack<S, N> expm1(const Pack<S, N> &x) {
  typedef Precision<S> P;
  Pack<S, N> held = less<S, N>(x, P::least, P::least, x);
  held = less<S, N>(P::most, held, P::most, held);
  return less<S, N>(P::most, x, S(1) / S(0), less<S, N>(x, P::least, S(-1), expm1_within<S, N>(held)));
}

// log(1 + z) for 0 <= z <= 1, as 2 atanh(z / (2 + z)).
template <class S, int N> INLINE Pack<S, N> log1p(Pack<S, N> z) {
  const Pack<S, N> s = z / (z + S(2)), square = s * s;
  Pack<S, N> total = S(1) / S(2 * Precision<S>::atanh + 1);
#pragma GCC unroll 20
  for (int k = Precision<S>::atanh - 1; k >= 0; --k) total = total * square + S(1) / S(2 * k + 1);
  return (s + s) * total;
}

template <class S, int N> INLINE Pack<S, N> size_of(Pack<S, N> x) { return less<S, N>(x, S(0), -x, x); }

// 1 / x for x >= 1 that is no more than large. Dividing the widest vectors of floats takes four times as long.
template <int N> INLINE Pack<double, N> inverse(Pack<double, N> x) { return 1.0 / x; }
template <int N> INLINE Pack<float, N> inverse(Pack<float, N> x) {
  if (WIDTH < 64) return 1.0f / x;
  Pack<float, N> guess;
  UNROLLED for (int k = 0; k < N; ++k)  // right to an eighth
    guess.v[k] = reinterpret_cast<Vec<float>>(0x7EF311C7 - reinterpret_cast<Whole<float> &>(x.v[k]));
#pragma GCC unroll 3
  for (int k = 0; k < 3; ++k) guess = guess * (2.0f - x * guess);  // squares the error
  return guess;
}

// The sign bits of x, or all others.
template <class S, int N> INLINE Pack<S, N> bits_of(Pack<S, N> x, bool sign) {
  const typename Lanes<S>::bits first = typename Lanes<S>::bits(1) << (8 * sizeof(S) - 1);
  UNROLLED for (int k = 0; k < N; ++k)
    x.v[k] = reinterpret_cast<Vec<S>>(reinterpret_cast<Whole<S> &>(x.v[k]) & (sign ? first : ~first));
  return x;
}

template <class S, int N, i64 ACTIVATION> INLINE Pack<S, N> rate_of(Pack<S, N> drive, S beta) {
  typedef Pack<S, N> Values;
  if (ACTIVATION == TANH) {
    const Values size = bits_of<S, N>(drive, false);
    const Values grown = expm1_within<S, N>(less<S, N>(Precision<S>::saturated, size, 2 * Precision<S>::saturated, size + size));
    Values rate = grown * inverse<N>(grown + S(2));
    const Values sign = bits_of<S, N>(drive, true);
    UNROLLED for (int k = 0; k < N; ++k)
      rate.v[k] = reinterpret_cast<Vec<S>>(reinterpret_cast<Whole<S> &>(rate.v[k]) | reinterpret_cast<const Whole<S> &>(sign.v[k]));
    return rate;
  }
  if (ACTIVATION == RELU) return less<S, N>(drive, S(0), S(0), drive);
  if (ACTIVATION == SIGMOID) return S(1) / (expm1<S, N>(drive * -beta) + S(2));
  if (ACTIVATION == SOFTPLUS) {
    const Values scaled = drive * beta;
    const Values above = less<S, N>(scaled, S(0), S(0), scaled);
    return (above + log1p<S, N>(expm1<S, N>(-size_of<S, N>(scaled)) + S(1))) * (S(1) / beta);
  }
  return drive;
}

template <class S> INLINE Vec<S> rates_of(i64 activation, Vec<S> drive, S beta) {
  Pack<S, 1> x;
  x.v[0] = drive;
  if (activation == TANH) return rate_of<S, 1, TANH>(x, beta).v[0];
  if (activation == RELU) return rate_of<S, 1, RELU>(x, beta).v[0];
  if (activation == SIGMOID) return rate_of<S, 1, SIGMOID>(x, beta).v[0];
  if (activation == SOFTPLUS) return rate_of<S, 1, SOFTPLUS>(x, beta).v[0];
  return drive;
}

// The slope as a function of the rate.
template <class S, int N, i64 ACTIVATION> INLINE Pack<S, N> slope_of(Pack<S, N> rate, S beta) {
  if (ACTIVATION == TANH) return S(1) - rate * rate;
  if (ACTIVATION == RELU) return less<S, N>(S(0), rate, S(1), S(0));
  if (ACTIVATION == SIGMOID) return beta * rate * (S(1) - rate);
  if (ACTIVATION == SOFTPLUS) return -expm1<S, N>(-beta * rate);
  return S(1);
}

// Rates that nobody made are read as some of their nonlinearity's range.
template <class S, int N, i64 ACTIVATION> INLINE Pack<S, N> within_range(Pack<S, N> rate) {
  if (ACTIVATION == LINEAR) return rate;
  const S low = ACTIVATION == TANH ? -1 : 0;
  rate = less<S, N>(rate, low, low, rate);
  if (ACTIVATION == TANH || ACTIVATION == SIGMOID) rate = less<S, N>(S(1), rate, S(1), rate);
  return rate;
}

// The same for many units, whole vectors of them.
template <class S> struct Units {
  i64 count;
  S beta;
  bool given;  // rates that nobody made
  const S *drive, *feedback;
  S *rate, *error, *gain;

  template <i64 ACTIVATION, int N> INLINE void rates(i64 n) const {
    rate_of<S, N, ACTIVATION>(Pack<S, N>::from(drive + n), beta).to(rate + n);
  }
  // error = gain feedback
  template <i64 ACTIVATION, int N> INLINE void errors(i64 n) const {
    Pack<S, N> seen = Pack<S, N>::from(rate + n);
    if (given) seen = within_range<S, N, ACTIVATION>(seen);
    const Pack<S, N> slope = slope_of<S, N, ACTIVATION>(seen, beta);
    if (gain) slope.to(gain + n);
    if (error) (Pack<S, N>::from(feedback + n) * slope).to(error + n);
  }
  template <i64 ACTIVATION> void all(bool forward) const {
    constexpr int MANY = 4;
    i64 n = 0;
    for (; n + MANY * lanes<S> <= count; n += MANY * lanes<S>)
      forward ? rates<ACTIVATION, MANY>(n) : errors<ACTIVATION, MANY>(n);
    for (; n + 2 * lanes<S> <= count; n += 2 * lanes<S>) forward ? rates<ACTIVATION, 2>(n) : errors<ACTIVATION, 2>(n);
    for (; n < count; n += lanes<S>) forward ? rates<ACTIVATION, 1>(n) : errors<ACTIVATION, 1>(n);
  }
  void all(i64 activation, bool forward) const {
    if (activation == TANH) return all<TANH>(forward);
    if (activation == RELU) return all<RELU>(forward);
    if (activation == SIGMOID) return all<SIGMOID>(forward);
    if (activation == SOFTPLUS) return all<SOFTPLUS>(forward);
    return all<LINEAR>(forward);
  }
  void rates(i64 activation) const { all(activation, true); }
  void errors(i64 activation) const { all(activation, false); }
};

// to += by with d slope / d rate, slopes given; `with` may be absent.
template <class S>
void bent(i64 activation, S beta, i64 count, const S *rate, const S *slope, const S *by, const S *with, S *to) {
  if (activation == LINEAR || activation == RELU) return;
  for (i64 n = 0; n < count; n += lanes<S>) {
    const Vec<S> bend = activation == TANH      ? S(-2) * load(rate + n)
                        : activation == SIGMOID ? beta - S(2) * beta * load(rate + n)
                                                : beta - beta * load(slope + n);
    store(to + n, load(to + n) + load(by + n) * (with ? load(with + n) * bend : bend));
  }
}

// Of N events. What is no number anywhere is no number everywhere: the sum sees to it, the largest need not.
template <class S, int N> inline void softmax(const S *drive, S *rate, i64 size, i64 ld) {
  typedef Pack<S, N> Values;
  const S least = -S(1) / S(0);
  Values most = least, total = S(0);
  for (i64 i = 0; i < size; i += lanes<S>) {
    Values here = Values::from(drive + i, ld);
    UNROLLED for (int k = 0; k < N; ++k) here.v[k] = only<S>(here.v[k], size - i, least);
    most = less<S, N>(most, here, here, most);
  }
  UNROLLED for (int k = 0; k < N; ++k) most.v[k] = most_of<S>(most.v[k]);
  for (i64 i = 0; i < size; i += lanes<S>) {
    const Values below = Values::from(drive + i, ld) - most;
    Values raised = expm1_within<S, N>(less<S, N>(below, Precision<S>::least, Precision<S>::least, below)) + S(1);
    UNROLLED for (int k = 0; k < N; ++k) raised.v[k] = only<S>(raised.v[k], size - i, S(0));
    raised.to(rate + i, ld);
    total = total + raised;
  }
  UNROLLED for (int k = 0; k < N; ++k) total.v[k] = sum_of<S>(total.v[k]);
  total = inverse<N>(total);  // at least 1: the largest is e^0
  for (i64 i = 0; i < size; i += lanes<S>) (Values::from(rate + i, ld) * total).to(rate + i, ld);
}

}  // namespace VARIANT
