// Vectors of WIDTH bytes that the compiler turns into whatever instructions it may use.
#pragma once
#include "plan.h"

namespace VARIANT {

template <class S> struct Lanes;
template <> struct Lanes<float> {
  typedef float real __attribute__((vector_size(WIDTH), may_alias));
  typedef std::int32_t whole __attribute__((vector_size(WIDTH), may_alias));
  typedef std::int32_t bits;
};
template <> struct Lanes<double> {
  typedef double real __attribute__((vector_size(WIDTH), may_alias));
  typedef std::int64_t whole __attribute__((vector_size(WIDTH), may_alias));
  typedef std::int64_t bits;
};
template <class S> using Vec = typename Lanes<S>::real;
template <class S> using Whole = typename Lanes<S>::whole;
template <class S> constexpr int lanes = WIDTH / sizeof(S);

template <class S> inline Vec<S> load(const S *from) { return *reinterpret_cast<const Vec<S> *>(from); }
template <class S> inline Vec<S> load_anywhere(const S *from) {
  Vec<S> value;
  __builtin_memcpy(&value, from, WIDTH);
  return value;
}
template <class S> inline void store(S *to, Vec<S> value) { *reinterpret_cast<Vec<S> *>(to) = value; }
template <class S> inline Vec<S> splat(S value) { return value - Vec<S>{}; }
template <class S> inline i64 padded(i64 size) { return (size + lanes<S> - 1) / lanes<S> * lanes<S>; }

template <int... I> struct Indices {};
template <int N, int... I> struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <int... I> struct UpTo<0, I...> { typedef Indices<I...> type; };

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLED(S, first, second, index) __builtin_shufflevector(first, second, (index)...)
#endif
#endif
#ifndef SHUFFLED
#define SHUFFLED(S, first, second, index) __builtin_shuffle(first, second, Whole<S>{(index)...})
#endif

// Segments of 2 HALF lanes: the first (AT = 0) or second (AT = HALF) half of each, those of `second` after `first`'s.
template <class S, int HALF, int AT, int... I> inline Vec<S> halves(Vec<S> first, Vec<S> second, Indices<I...>) {
  return SHUFFLED(S, first, second, I / HALF * 2 * HALF + I % HALF + AT);
}

template <class S, int COUNT> struct Folded {
  static inline Vec<S> of(const Vec<S> *sums) {
    constexpr int half = COUNT / 2;
    typedef typename UpTo<lanes<S>>::type All;
    Vec<S> folded[half];
#pragma GCC unroll 16
    for (int k = 0; k < half; ++k)
      folded[k] = halves<S, half, 0>(sums[2 * k], sums[2 * k + 1], All{}) +
                  halves<S, half, half>(sums[2 * k], sums[2 * k + 1], All{});
    return Folded<S, half>::of(folded);
  }
};
template <class S> struct Folded<S, 1> {
  static inline Vec<S> of(const Vec<S> *sums) { return sums[0]; }
};

// As many vectors as they have lanes -> the vector of their sums.
template <class S> inline Vec<S> sums_of(const Vec<S> *vectors) { return Folded<S, lanes<S>>::of(vectors); }

// Lanes of both in turn, from the first (AT = 0) or second (AT = half) half of each.
template <class S, int AT, int... I> inline Vec<S> zipped(Vec<S> first, Vec<S> second, Indices<I...>) {
  return SHUFFLED(S, first, second, I / 2 + I % 2 * lanes<S> + AT);
}

// A square of as many vectors as they have lanes, turned: zipping halves as often as there are bits in a place does it.
template <class S> inline void turn(Vec<S> *square) {
  typedef typename UpTo<lanes<S>>::type All;
  constexpr int half = lanes<S> / 2;
#pragma GCC unroll 4
  for (int bit = 1; bit < lanes<S>; bit *= 2) {
    Vec<S> next[lanes<S>];
#pragma GCC unroll 8
    for (int k = 0; k < half; ++k) {
      next[2 * k] = zipped<S, 0>(square[k], square[k + half], All{});
      next[2 * k + 1] = zipped<S, half>(square[k], square[k + half], All{});
    }
#pragma GCC unroll 16
    for (int k = 0; k < lanes<S>; ++k) square[k] = next[k];
  }
}

// The same from one matrix to another, whose rows lie on whole vectors.
template <class S> inline void turn_square(const S *from, i64 ld_from, S *to, i64 ld_to) {
  Vec<S> square[lanes<S>];
#pragma GCC unroll 16
  for (int k = 0; k < lanes<S>; ++k) square[k] = load_anywhere(from + k * ld_from);
  turn<S>(square);
#pragma GCC unroll 16
  for (int k = 0; k < lanes<S>; ++k) store(to + k * ld_to, square[k]);
}

// Lane k is that of k with one bit turned: folding by every bit in turn leaves all lanes with all of them.
template <class S, int BIT, int... I> inline Vec<S> swapped(Vec<S> vector, Indices<I...>) {
  return SHUFFLED(S, vector, vector, I ^ BIT);
}
template <class S, int BIT> struct Spread {
  typedef typename UpTo<lanes<S>>::type All;
  static inline Vec<S> sum(Vec<S> v) { return Spread<S, BIT / 2>::sum(v + swapped<S, BIT>(v, All{})); }
  static inline Vec<S> most(Vec<S> v) {
    const Vec<S> other = swapped<S, BIT>(v, All{});
    return Spread<S, BIT / 2>::most(v > other ? v : other);
  }
};
template <class S> struct Spread<S, 0> {
  static inline Vec<S> sum(Vec<S> v) { return v; }
  static inline Vec<S> most(Vec<S> v) { return v; }
};

// In every lane the sum, or the largest, of all.
template <class S> inline Vec<S> sum_of(Vec<S> vector) { return Spread<S, lanes<S> / 2>::sum(vector); }
template <class S> inline Vec<S> most_of(Vec<S> vector) { return Spread<S, lanes<S> / 2>::most(vector); }

template <class S, int... I> inline Whole<S> counted(Indices<I...>) { return Whole<S>{I...}; }

// The first `size` lanes of a vector, `other` in the rest.
template <class S> inline Vec<S> only(Vec<S> vector, i64 size, S other) {
  const Whole<S> place = counted<S>(typename UpTo<lanes<S>>::type{});
  return place < typename Lanes<S>::bits(size) ? vector : splat<S>(other);
}

}  // namespace VARIANT
