// What each instruction set offers, compiled once for every one of them, as VARIANT.
#include "round_trip.h"

namespace VARIANT {

template <class S> int train(const Plan *plan, i64 first, i64 last) {
  Trainer<S> trainer(*plan);
  if (trainer.memory.full) return 1;
  for (i64 r = first; r < last; ++r) trainer.run(r);
  return 0;
}

template <class S> int back(const Plan *plan, i64 first, i64 last) {
  Adjoint<S> adjoint(*plan);
  if (adjoint.memory.full) return 1;
  for (i64 r = first; r < last; ++r) adjoint.back(r);
  return 0;
}

template <class S> int round_trip(const Plan *plan, i64 first, i64 last) {
  RoundTrip<S> trip(*plan);
  if (trip.memory.full) return 1;
  for (i64 r = first; r < last; ++r) trip.round(r);
  return 0;
}

template <class S> i64 tape(const Plan *plan) {
  Trainer<S> trainer(*plan);
  return trainer.memory.full ? -1 : trainer.length;
}

int train_float(const Plan *plan, i64 first, i64 last) { return train<float>(plan, first, last); }
int train_double(const Plan *plan, i64 first, i64 last) { return train<double>(plan, first, last); }
int back_float(const Plan *plan, i64 first, i64 last) { return back<float>(plan, first, last); }
int back_double(const Plan *plan, i64 first, i64 last) { return back<double>(plan, first, last); }
int round_trip_float(const Plan *plan, i64 first, i64 last) { return round_trip<float>(plan, first, last); }
int round_trip_double(const Plan *plan, i64 first, i64 last) { return round_trip<double>(plan, first, last); }
i64 tape_float(const Plan *plan) { return tape<float>(plan); }
i64 tape_double(const Plan *plan) { return tape<double>(plan); }

}  // namespace VARIANT
