// Rates of units and their slopes, a vector at a time.
#pragma once
#include "vectors.h"

namespace VARIANT {

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

constexpr double factorial(int k) { return k < 2 ? 1.0 : k * factorial(k - 1); }

// exp(x) - 1, exact to rounding near 0 too: x = n ln 2 + r, exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1).
template <class S> inline Vec<S> expm1(Vec<S> x) {
  typedef Precision<S> P;
  Vec<S> held = x < P::least ? splat<S>(P::least) : x;
  held = held > P::most ? splat<S>(P::most) : held;
  Vec<S> shifted = held * P::log2e + P::magic;  // its lowest bits are n
  Vec<S> n = shifted - P::magic;
  Vec<S> r = held - n * P::ln2 - n * P::ln2_rest;
  Vec<S> q = splat<S>(S(1 / factorial(P::taylor)));
#pragma GCC unroll 16
  for (int k = P::taylor - 1; k >= 1; --k) q = q * r + S(1 / factorial(k));
  q = q * r;
  Whole<S> bits = reinterpret_cast<Whole<S> &>(shifted);
  bits = (bits << P::mantissa) + (typename Lanes<S>::bits(P::bias) << P::mantissa);
  Vec<S> scale = reinterpret_cast<Vec<S> &>(bits);
  Vec<S> value = q * scale + (scale - S(1));
  value = x < P::least ? splat<S>(-1) : value;
  return x > P::most ? splat<S>(S(1) / S(0)) : value;
}

// log(1 + z) for 0 <= z <= 1, as 2 atanh(z / (2 + z)).
template <class S> inline Vec<S> log1p(Vec<S> z) {
  Vec<S> s = z / (z + S(2)), square = s * s, total = splat<S>(S(1) / S(2 * Precision<S>::atanh + 1));
#pragma GCC unroll 20
  for (int k = Precision<S>::atanh - 1; k >= 0; --k) total = total * square + S(1) / S(2 * k + 1);
  return (s + s) * total;
}

template <class S> inline Vec<S> size_of(Vec<S> x) { return x < S(0) ? -x : x; }

// 1 / x for x >= 1 that is no more than large. Dividing the widest vectors of floats takes four times as long.
inline Vec<double> inverse(Vec<double> x) { return 1.0 / x; }
inline Vec<float> inverse(Vec<float> x) {
  if (WIDTH < 64) return 1.0f / x;
  Whole<float> bits = 0x7EF311C7 - reinterpret_cast<Whole<float> &>(x);  // right to an eighth
  Vec<float> guess = reinterpret_cast<Vec<float> &>(bits);
#pragma GCC unroll 3
  for (int k = 0; k < 3; ++k) guess = guess * (2.0f - x * guess);  // squares the error
  return guess;
}

template <class S, i64 ACTIVATION> inline Vec<S> rate_of(Vec<S> drive, S beta) {
  if (ACTIVATION == TANH) {
    Vec<S> size = size_of<S>(drive);
    Vec<S> grown = expm1<S>(size > Precision<S>::saturated ? splat<S>(2 * Precision<S>::saturated) : size + size);
    Vec<S> rate = grown * inverse(grown + S(2));
    return drive < S(0) ? -rate : rate;
  }
  if (ACTIVATION == RELU) return drive < S(0) ? Vec<S>{} : drive;
  if (ACTIVATION == SIGMOID) return S(1) / (expm1<S>(drive * -beta) + S(2));
  if (ACTIVATION == SOFTPLUS) {
    Vec<S> scaled = drive * beta;
    Vec<S> above = scaled < S(0) ? Vec<S>{} : scaled;
    return (above + log1p<S>(expm1<S>(-size_of<S>(scaled)) + S(1))) * (S(1) / beta);
  }
  return drive;
}

// The slope as a function of the rate.
template <class S, i64 ACTIVATION> inline Vec<S> slope_of(Vec<S> rate, S beta) {
  if (ACTIVATION == TANH) return S(1) - rate * rate;
  if (ACTIVATION == RELU) return rate > S(0) ? splat<S>(1) : Vec<S>{};
  if (ACTIVATION == SIGMOID) return beta * rate * (S(1) - rate);
  if (ACTIVATION == SOFTPLUS) return -expm1<S>(-beta * rate);
  return splat<S>(1);
}

// Rates that nobody made are read as some of their nonlinearity's range.
template <class S, i64 ACTIVATION> inline Vec<S> within_range(Vec<S> rate) {
  if (ACTIVATION == LINEAR) return rate;
  const Vec<S> low = splat<S>(ACTIVATION == TANH ? -1 : 0);
  rate = rate < low ? low : rate;
  if (ACTIVATION == TANH || ACTIVATION == SIGMOID) rate = rate > S(1) ? splat<S>(1) : rate;
  return rate;
}

// The same for many units, whole vectors of them.
template <class S> struct Units {
  i64 count;
  S beta;
  bool given;  // rates that nobody made
  const S *drive, *feedback;
  S *rate, *error, *gain;

  template <i64 ACTIVATION> void rates() const {
    for (i64 n = 0; n < count; n += lanes<S>) store(rate + n, rate_of<S, ACTIVATION>(load(drive + n), beta));
  }
  // error = gain feedback
  template <i64 ACTIVATION> void errors() const {
    for (i64 n = 0; n < count; n += lanes<S>) {
      const Vec<S> seen = given ? within_range<S, ACTIVATION>(load(rate + n)) : load(rate + n);
      const Vec<S> slope = slope_of<S, ACTIVATION>(seen, beta);
      if (gain) store(gain + n, slope);
      if (error) store(error + n, load(feedback + n) * slope);
    }
  }
  void rates(i64 activation) const {
    if (activation == TANH) return rates<TANH>();
    if (activation == RELU) return rates<RELU>();
    if (activation == SIGMOID) return rates<SIGMOID>();
    if (activation == SOFTPLUS) return rates<SOFTPLUS>();
    return rates<LINEAR>();
  }
  void errors(i64 activation) const {
    if (activation == TANH) return errors<TANH>();
    if (activation == RELU) return errors<RELU>();
    if (activation == SIGMOID) return errors<SIGMOID>();
    if (activation == SOFTPLUS) return errors<SOFTPLUS>();
    return errors<LINEAR>();
  }
};

// What is no number anywhere is no number everywhere: the sum sees to it, the largest need not.
template <class S> inline void softmax(const S *drive, S *rate, i64 size) {
  const S least = -S(1) / S(0);
  Vec<S> most = splat<S>(least), total = {};
  for (i64 i = 0; i < size; i += lanes<S>) {
    const Vec<S> here = only<S>(load(drive + i), size - i, least);
    most = here > most ? here : most;
  }
  most = most_of<S>(most);
  for (i64 i = 0; i < size; i += lanes<S>) {
    const Vec<S> raised = only<S>(expm1<S>(load(drive + i) - most) + S(1), size - i, S(0));
    store(rate + i, raised);
    total += raised;
  }
  total = inverse(sum_of<S>(total));  // at least 1: the largest is e^0
  for (i64 i = 0; i < size; i += lanes<S>) store(rate + i, load(rate + i) * total);
}

}  // namespace VARIANT
