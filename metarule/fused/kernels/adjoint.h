// The way back: from the gradient of a loss in the weights after some steps to that before them, and in every number of
// the rules on the way. The tape holds what each step computed; its weights are rebuilt, or kept there too.
#pragma once
#include "pulled.h"
#include "trainer.h"

namespace VARIANT {

template <class S> struct Gradients {
  S *weight, *velocity, *feedback, *feedback_velocity, *reconstruction;
  const S *velocity_after, *feedback_velocity_after;  // as they were after the step
  S kept, feedback_kept;                              // how much of itself a step leaves of a weight
  Pending<S> pending;
};

template <class S> struct Adjoint : Trainer<S> {
  using Trainer<S>::plan, Trainer<S>::B, Trainer<S>::L, Trainer<S>::memory, Trainer<S>::at, Trainer<S>::between;
  using Trainer<S>::scratch, Trainer<S>::events;
  Population<S> *to;     // gradients of what each population does
  Gradients<S> *around;  // and of each projection's
  Synapses<S> *mine;     // memory of a run's own, where weights on the tape are looked at instead
  Pulling<S> pulling;
  S *zeroed;  // one stretch of memory with all that a step starts from 0
  i64 stretch = 0;
  bool first_asked = false;  // whether anybody asks for gradients in what a run begins with
  S *event_gradients, *teaching;

  explicit Adjoint(const Plan &given) : Trainer<S>(given) {
    to = memory.template many<Population<S>>(L + 1);
    around = memory.template many<Gradients<S>>(L);
    mine = memory.template many<Synapses<S>>(L);
    if (memory.full) return;
    for (i64 l = 0; l < L; ++l) mine[l] = between[l];
    i64 widest = 0, weights = 0, monomials = 1;
    for (i64 l = 0; l <= L; ++l) stretch += 6 * B * at[l].ld, widest = at[l].ld > widest ? at[l].ld : widest;
    S *free = zeroed = memory.take(stretch);
    if (memory.full) return;
    for (i64 l = 0; l <= L; ++l) {
      Population<S> &p = to[l];
      p = at[l];
      S **const buffers[] = {&p.rate, &p.drive, &p.feedback, &p.error, &p.gain};
      for (S **buffer : buffers) *buffer = free, free += B * p.ld;
      if (l < L) around[l].reconstruction = free, free += B * p.ld;
    }
    event_gradients = memory.take(3 * B);
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      const i64 size = padded<S>(p.outputs) * at[l].ld, back = padded<S>(this->feedback_rows(l)) * at[l].ld;
      Gradients<S> &g = around[l];
      g.weight = p.rule.plastic ? memory.take(size) : nullptr;
      g.velocity = p.rule.velocity ? memory.take(size) : nullptr;
      g.feedback = p.feedback_rule.plastic ? memory.take(back) : nullptr;
      g.feedback_velocity = p.feedback_rule.velocity ? memory.take(back) : nullptr;
      first_asked = first_asked || p.weight_gradient || p.feedback_gradient;
      g.pending.count = 0;
      for (i64 k = 0; B == 1 && k < PAIRS; ++k)
        g.pending.left[k] = memory.take(at[l + 1].ld), g.pending.right[k] = memory.take(at[l].ld);
      weights = size > weights ? size : weights, weights = back > weights ? back : weights;
      const Rule *const rules[] = {&p.rule, &p.feedback_rule};
      for (const Rule *rule : rules)
        for (i64 k = 0; k < rule->groups; ++k) {
          const Group &group = rule->group[k];
          monomials = group.rows > monomials ? group.rows : monomials;
          monomials = group.columns > monomials ? group.columns : monomials;
        }
    }
    teaching = memory.take(B * widest);
    S **const sides[] = {&pulling.anchor, &pulling.met, &pulling.mixed, &pulling.back};
    for (S **side : sides) *side = memory.take(monomials * B * widest);
    pulling.share = memory.take(B * widest), pulling.induced = memory.take(weights);
    pulling.turned = memory.take(weights);
    pulling.pointers = memory.template many<const S *>(monomials + 1);
    pulling.others = memory.template many<const S *>(monomials + 1);
    pulling.in = memory.template many<const S *>(2 * monomials);
    pulling.out = memory.template many<S *>(2 * monomials);
  }

  void back(i64 r) {
    for (i64 l = 0; l < L; ++l) between[l] = mine[l];
    this->load_run(r);
    this->tape = this->taped(r);
    carry_gradients(r, true);
    steps_back(r);
    carry_gradients(r, false);
    this->store_run(r);
  }

  void steps_back(i64 r) {
    for (i64 t = plan.steps - 1; t >= 0; --t) {
      recall(r, t);
      std::memset(zeroed, 0, stretch * sizeof(S));
      for (i64 l = 0; l < L; ++l) through_rules(l, r, t);
      if (!t && !first_asked) return;  // the rest of it is those of the first weights
      for (i64 l = 0; l < L; ++l)
        if (plan.projection[l].error_below) through_errors(l);
      through_activity(t);
    }
  }

  void carry_gradients(i64 r, bool loading) {
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      const i64 J = p.inputs + p.bias, ld = at[l].ld, above = this->feedback_rows(l);
      Gradients<S> &g = around[l];
      const auto moved = [&](S *buffer, void *given, i64 rows, i64 columns, bool turned) {
        if (buffer && loading) this->in(buffer, given, r, rows, columns, ld, turned);
        if (buffer && !loading) this->out(buffer, given, r, rows, columns, ld, turned);
      };
      moved(g.weight, p.weight_gradient, p.outputs, J, false);
      moved(g.velocity, p.rule.velocity_gradient, p.outputs, J, false);
      moved(g.feedback, p.feedback_gradient, above, p.inputs, true);
      moved(g.feedback_velocity, p.feedback_rule.velocity_gradient, above, p.inputs, true);
    }
  }

  // Everything as it was when step t had been computed and nothing was changed yet.
  void recall(i64 r, i64 t) {
    S *slot = this->tape + t * this->length;
    for (i64 l = 0; l < L; ++l)
      around[l].velocity_after = between[l].velocity, around[l].feedback_velocity_after = between[l].feedback_velocity;
    this->shown([&](S *&buffer, i64 size) { buffer = slot, slot += size; });
    if (plan.keeps_weights) this->moving([&](S *&buffer, i64 size) { buffer = slot, slot += size; });
    this->show(r, t);
    if (plan.y) this->judge(r, t);
    for (i64 l = 0; l < L; ++l) {
      const Population<S> &p = at[l];
      const bool reached = plan.projection[l].error_below;
      if (!l && !reached) continue;
      Units<S>{B * p.ld, S(plan.beta), l == 0, nullptr, p.feedback, p.rate, reached ? p.error : nullptr, p.gain}.errors(
          p.activation);
      if (reached) this->fill(p, p.error, 0);
    }
  }

  void through_rules(i64 l, i64 r, i64 t) {
    const Projection &p = plan.projection[l];
    Synapses<S> &s = between[l];
    Gradients<S> &g = around[l];
    const Population<S> &source = at[l], &target = at[l + 1];
    S *total = event_gradients, *agreement = event_gradients + B, *match = event_gradients + 2 * B;
    g.kept = g.feedback_kept = 1;
    if (p.rule.plastic && p.rule.schedule[t] != 0) {
      this->sum_events(l);
      // of a single event the weights are passed over once, after the rule: see below
      const bool late = !plan.keeps_weights && B == 1 && passing(p.rule), reads_back = reconstructs(p.rule);
      if (!plan.keeps_weights && !late)
        rebuilt<S>(p.rule, r, t, B, s.weight, target.size, this->post_end(l), this->pre_end(l), scratch);
      std::memset(event_gradients, 0, 3 * B * sizeof(S));
      S *const post[FACTORS] = {to[l + 1].rate, to[l + 1].error, to[l + 1].feedback, to[l + 1].gain, total, agreement,
                                match, nullptr, nullptr, nullptr};
      S *const pre[FACTORS] = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, l ? to[l].rate : nullptr,
                               to[l].error, g.reconstruction};
      g.kept = pulled<S>(
          p.rule, r, t, B, {target.size, s.weight, s.velocity, g.velocity_after, g.weight, g.velocity, &g.pending},
          this->post_end(l), post, this->pre_end(l), pre, scratch, pulling);
      for (i64 b = 0; b < B; ++b) {
        const i64 i = b * target.ld, j = b * source.ld;
        if (p.rule.reads[TOTAL_POST])
          for (i64 n = 0; n < target.size; ++n) to[l + 1].rate[i + n] += total[b];
        if (p.rule.reads[MATCH])
          for (i64 n = 0; n < target.size; ++n) {
            to[l + 1].error[i + n] += match[b] * target.drive[i + n];
            to[l + 1].drive[i + n] += match[b] * target.error[i + n];
          }
        if (p.rule.reads[AGREEMENT])
          for (i64 n = 0; n < source.size; ++n) {
            to[l].error[j + n] += agreement[b] * s.reconstruction[j + n];
            g.reconstruction[j + n] += agreement[b] * source.error[j + n];
          }
      }
      if (p.rule.reads[GAIN] && l + 1 < L)
        bent<S>(target.activation, S(plan.beta), B * target.ld, target.rate, target.gain, to[l + 1].gain, nullptr,
                to[l + 1].rate);
      if (late)
        rebuilt<S>(p.rule, r, t, B, s.weight, target.size, this->post_end(l), this->pre_end(l), scratch,
                   reads_back ? g.reconstruction : nullptr, teaching);
      else if (reads_back)
        driven<S>(B, target.size, source.ld, g.reconstruction, source.ld, s.weight, source.ld, teaching, target.ld,
                  pulling.turned);
      if (reads_back) add(target, teaching, to[l + 1].rate);
    }
    if (p.feedback_rule.plastic && p.feedback_rule.schedule[t] != 0) {
      this->sum_feedback_events(l);
      if (!plan.keeps_weights)
        rebuilt<S>(p.feedback_rule, r, t, B, s.feedback, target.size, this->feedback_pre_end(l),
                   this->feedback_post_end(l), scratch);
      std::memset(event_gradients, 0, 3 * B * sizeof(S));
      S *const pre[FACTORS] = {nullptr, nullptr, nullptr, nullptr, total, nullptr, nullptr, to[l + 1].error, nullptr,
                               nullptr};
      S *const post[FACTORS] = {to[l].rate, to[l].rate, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                nullptr};
      g.feedback_kept = pulled<S>(
          p.feedback_rule, r, t, B,
          {target.size, s.feedback, s.feedback_velocity, g.feedback_velocity_after, g.feedback, g.feedback_velocity,
           nullptr},
          this->feedback_pre_end(l), pre, this->feedback_post_end(l), post, scratch, pulling);
      for (i64 b = 0; p.feedback_rule.reads[TOTAL_POST] && b < B; ++b)
        for (i64 n = 0; n < source.size; ++n) to[l].rate[b * source.ld + n] += total[b];
    }
  }

  // Back through error_l = slope_l x what came down.
  void through_errors(i64 l) {
    const Projection &p = plan.projection[l];
    const Population<S> &source = at[l];
    const i64 above = p.crossing == DIRECT ? L : l + 1;
    for (i64 n = 0; n < B * source.ld; n += lanes<S>)
      store(to[l].feedback + n, load(to[l].feedback + n) + load(to[l].error + n) * load(source.gain + n));
    this->fill(source, to[l].feedback, 0);
    if (l)
      bent<S>(source.activation, S(plan.beta), B * source.ld, source.rate, source.gain, to[l].error, source.feedback,
              to[l].rate);
    driven<S>(B, at[above].size, source.ld, to[l].feedback, source.ld, this->crossed(l), source.ld, teaching,
              at[above].ld, pulling.turned);
    add(at[above], teaching, to[above].error);
  }

  // The rest, from the output down: what each rate and each weight did to what lies above.
  void through_activity(i64 t) {
    const Population<S> &output = at[L];
    if (plan.y)
      for (i64 n = 0; n < B * output.ld; n += lanes<S>)
        store(to[L].rate + n, load(to[L].rate + n) - load(to[L].error + n) - load(to[L].feedback + n));
    for (i64 l = L; l > 0; --l) {
      Population<S> &p = to[l];
      if (l == L)
        through_output();
      else
        for (i64 n = 0; n < B * p.ld; n += lanes<S>)
          store(p.drive + n, load(p.drive + n) + load(p.rate + n) * load(at[l].gain + n));
      this->fill(at[l], p.drive, 0);
      change_gradients(l - 1, t);
      if (l > 1)
        multiplied<S>(B, at[l - 1].ld, p.size, p.drive, p.ld, between[l - 1].weight, at[l - 1].ld, to[l - 1].rate,
                      at[l - 1].ld, false);
    }
  }

  void through_output() {
    const Population<S> &output = at[L];
    Population<S> &p = to[L];
    if (plan.output != SOFTMAX_OUTPUT)
      Units<S>{B * p.ld, 1, false, nullptr, p.rate, output.rate, p.rate, nullptr}.errors(output.activation);
    for (i64 b = 0; b < B; ++b) {
      const S *rate = output.rate + b * p.ld, *slope = p.rate + b * p.ld;
      Vec<S> mean = {};
      for (i64 n = 0; plan.output == SOFTMAX_OUTPUT && n < p.ld; n += lanes<S>) mean += load(rate + n) * load(slope + n);
      mean = sum_of<S>(mean);
      for (i64 n = 0; n < p.ld; n += lanes<S>) {
        S *drive = p.drive + b * p.ld + n;
        store(drive, load(drive) + (plan.output == SOFTMAX_OUTPUT ? load(rate + n) * (load(slope + n) - mean)
                                                                  : load(slope + n)));
      }
    }
  }

  // The gradients of a projection's weights, by all that they had a part in.
  void change_gradients(i64 l, i64 t) {
    const Projection &p = plan.projection[l];
    const Population<S> &source = at[l], &target = at[l + 1];
    Gradients<S> &g = around[l];
    const S *left[PAIRS] = {to[l + 1].drive}, *right[PAIRS] = {source.rate};
    i64 pairs = 1;
    if (reconstructs(p.rule))
      left[pairs] = target.rate, right[pairs++] = g.reconstruction;
    if (p.crossing == TRANSPOSED && p.error_below) left[pairs] = target.error, right[pairs++] = to[l].feedback;
    if (g.weight && t && B == 1 && passing(p.rule) && p.rule.schedule[t - 1] != 0) {
      g.pending.count = pairs;  // the step before reads the gradient, and adds these first
      for (i64 k = 0; k < pairs; ++k) {
        std::memcpy(g.pending.left[k], left[k], target.ld * sizeof(S));
        std::memcpy(g.pending.right[k], right[k], source.ld * sizeof(S));
      }
    } else if (g.weight) {
      scaled_sum(g.weight, g.kept, target.size, source.ld, {pairs, B, left, target.ld, right, source.ld});
    }
    left[0] = target.error, right[0] = to[l].feedback;
    if (g.feedback)
      scaled_sum(g.feedback, g.feedback_kept, target.size, source.ld,
                 {p.error_below, B, left, target.ld, right, source.ld});
  }

  void scaled_sum(S *gradient, S kept, i64 rows, i64 ld, const Factors<S> &factors) {
    for (i64 i = 0; i < rows; ++i) scratch.keep[i] = kept;
    product<S, true>(rows, ld, factors, gradient, ld, kept != 1 ? scratch.keep : nullptr, false);
  }

  void add(const Population<S> &p, const S *values, S *sums) const {
    for (i64 b = 0; b < B; ++b)
      for (i64 n = b * p.ld; n < b * p.ld + padded<S>(p.size); n += lanes<S>) store(sums + n, load(sums + n) + load(values + n));
  }
};

}  // namespace VARIANT
