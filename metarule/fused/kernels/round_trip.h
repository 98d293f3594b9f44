// There and back without a stop: a run's steps, its questions, and the gradient of their loss back to its first weights.
#pragma once
#include "adjoint.h"

namespace VARIANT {

// Weights are loaded once and given back to nobody. For rules whose weights can be rebuilt.
template <class S> struct RoundTrip : Adjoint<S> {
  using Trainer<S>::plan, Trainer<S>::L, Trainer<S>::memory, Trainer<S>::at, Trainer<S>::between, Trainer<S>::asked;
  using Adjoint<S>::around;
  S *kept;  // of one run, every run's again

  explicit RoundTrip(const Plan &given) : Adjoint<S>(given) {
    if (!memory.full) kept = memory.take(plan.steps * this->length);
  }

  void round(i64 r) {
    this->load_run(r);
    this->tape = kept;
    this->steps(r);
    for (i64 l = 0; l < L; ++l) {
      Gradients<S> &g = around[l];
      if (g.feedback) std::memset(g.feedback, 0, padded<S>(this->feedback_rows(l)) * at[l].ld * sizeof(S));
    }
    this->answer(r, [&](i64 first, i64 count) { through_answers(r, first, count); });
    this->steps_back(r);
    this->carry_gradients(r, false);
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      miss(p.rule, between[l].weight, p.weight, r, p.outputs, p.inputs + p.bias, at[l].ld, false);
      miss(p.feedback_rule, between[l].feedback, p.feedback, r, this->feedback_rows(l), p.inputs, at[l].ld, true);
    }
  }

  // Some answers' part in the gradients of the weights that they were given by.
  void through_answers(i64 r, i64 first, i64 count) {
    const Population<S> &output = asked[L];
    const S share = S(plan.share / double(plan.asked));
    for (i64 b = 0; b < count; ++b) {
      S *drive = output.drive + b * output.ld;
      const S *likely = output.rate + b * output.ld;
      if (plan.output != SOFTMAX_OUTPUT) softmax<S, 1>(drive, drive, output.size, output.ld), likely = drive;
      const i64 right = plan.answers[r * plan.asked + first + b];
      for (i64 i = 0; i < output.size; ++i) drive[i] = (likely[i] - S(i == right)) * share;
    }
    for (i64 l = L - 1; l >= 0; --l) {
      const Population<S> &source = asked[l], &target = asked[l + 1];
      if (around[l].weight) {
        const S *left = target.drive, *right = source.rate;
        product<S, true>(target.size, source.ld, Factors<S>{1, count, &left, target.ld, &right, source.ld},
                         around[l].weight, source.ld, nullptr, first == 0);
      }
      if (!l) return;
      multiplied<S>(count, source.ld, target.size, target.drive, target.ld, between[l].weight, source.ld, source.drive,
                    source.ld);
      Units<S>{count * source.ld, S(plan.beta), false, nullptr, source.drive, source.rate, source.drive, nullptr}.errors(
          source.activation);
    }
  }

  void miss(const Rule &rule, const S *rebuilt, const void *begun, i64 r, i64 rows, i64 columns, i64 ld, bool turned) {
    if (!rule.missed) return;
    const S *values = static_cast<const S *>(begun) + r * rows * columns;
    double missed = 0, norm = 0;
    for (i64 i = 0; i < rows; ++i) {
      i64 j = 0;
      Vec<S> apart = {}, size = {};
      for (; !turned && j + lanes<S> <= columns; j += lanes<S>) {
        const Vec<S> first = load_anywhere(values + i * columns + j), away = load(rebuilt + i * ld + j) - first;
        apart += away * away, size += first * first;
      }
      S rest = sum_of<S>(apart)[0], rest_size = sum_of<S>(size)[0];
      for (; j < columns; ++j) {
        const S first = values[turned ? j * rows + i : i * columns + j], away = rebuilt[i * ld + j] - first;
        rest += away * away, rest_size += first * first;
      }
      missed += double(rest), norm += double(rest_size);
    }
    rule.missed[2 * r] = missed, rule.missed[2 * r + 1] = norm;
  }
};

}  // namespace VARIANT
