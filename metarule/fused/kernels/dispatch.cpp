// The functions that Python calls: the fastest variant that this processor can run.
#include "plan.h"

typedef int (*Train)(const Plan *);

#define DECLARED(variant) \
  namespace variant {     \
  int train_float(const Plan *);  \
  int train_double(const Plan *); \
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
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

}  // namespace

// Variants from 0 on; -1 asks for the fastest. Returns 0, or 1 where memory ran out.
extern "C" __attribute__((visibility("default"))) i64 metarule_fastest() { return fastest(); }

extern "C" __attribute__((visibility("default"))) i64 metarule_train(const Plan *plan, i64 is_double, i64 variant) {
#ifdef WITH_X86
  if (variant == 2) return is_double ? avx512::train_double(plan) : avx512::train_float(plan);
  if (variant == 1) return is_double ? avx2::train_double(plan) : avx2::train_float(plan);
#endif
  return is_double ? portable::train_double(plan) : portable::train_float(plan);
}
