// The functions that Python calls: the fastest variant that this processor can run.
#include "plan.h"

#define DECLARED(variant)                                   \
  namespace variant {                                       \
  int train_float(const Plan *, i64 first, i64 last);       \
  int train_double(const Plan *, i64 first, i64 last);      \
  int back_float(const Plan *, i64 first, i64 last);        \
  int back_double(const Plan *, i64 first, i64 last);       \
  int round_trip_float(const Plan *, i64 first, i64 last);  \
  int round_trip_double(const Plan *, i64 first, i64 last); \
  i64 tape_float(const Plan *);                             \
  i64 tape_double(const Plan *);                            \
  }
DECLARED(portable)
#ifdef WITH_X86
DECLARED(avx2)
DECLARED(avx512)
#endif

namespace {

// 0 portable, 1 AVX2, 2 AVX-512
int fastest() {
#ifdef WITH_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

}  // namespace

#ifdef WITH_X86
#define CHOSEN(function, ...)                                                                           \
  if (variant == 2) return is_double ? avx512::function##_double(__VA_ARGS__) : avx512::function##_float(__VA_ARGS__); \
  if (variant == 1) return is_double ? avx2::function##_double(__VA_ARGS__) : avx2::function##_float(__VA_ARGS__);     \
  return is_double ? portable::function##_double(__VA_ARGS__) : portable::function##_float(__VA_ARGS__);
#else
#define CHOSEN(function, ...) \
  return is_double ? portable::function##_double(__VA_ARGS__) : portable::function##_float(__VA_ARGS__);
#endif
#define OFFERED extern "C" __attribute__((visibility("default"))) i64

// Variants from 0 on.
OFFERED metarule_fastest() { return fastest(); }

// Runs first to last - 1 through all steps. Returns 0, or 1 where memory ran out.
OFFERED metarule_train(const Plan *plan, i64 is_double, i64 variant, i64 first, i64 last) {
  CHOSEN(train, plan, first, last)
}

// The same back, along the tape. Returns 0, or 1 where memory ran out.
OFFERED metarule_back(const Plan *plan, i64 is_double, i64 variant, i64 first, i64 last) {
  CHOSEN(back, plan, first, last)
}

// There, scored, and back without a tape of the caller's. Returns 0, or 1 where memory ran out.
OFFERED metarule_round_trip(const Plan *plan, i64 is_double, i64 variant, i64 first, i64 last) {
  CHOSEN(round_trip, plan, first, last)
}

// Numbers that a step of one run leaves on the tape; -1 where memory ran out.
OFFERED metarule_tape(const Plan *plan, i64 is_double, i64 variant) { CHOSEN(tape, plan) }
