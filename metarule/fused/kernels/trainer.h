// One run at a time through all its steps, its weights in cache.
#pragma once
#include <cmath>
#include <cstring>

#include "memory.h"
#include "streamed.h"

namespace VARIANT {

template <class S> struct Population {
  i64 size, bias, ld, activation;
  S *rate, *drive, *feedback, *error, *gain;
};

template <class S> struct Synapses {
  S *weight, *velocity, *feedback, *feedback_velocity, *reconstruction, *signs;
};

constexpr i64 TOGETHER = 64;  // questions that are answered at a time

template <class S> struct Trainer {
  const Plan &plan;
  const i64 B, L;
  Memory<S> memory;
  Population<S> *at, *asked;  // in a step, and where questions are answered
  Synapses<S> *between;
  Waiting<S> *waiting;
  Scratch<S> scratch;
  S *events;  // total_post, agreement, match
  i64 length = 0;       // of what a step leaves on the tape
  S *tape = nullptr;    // of the run at hand

  explicit Trainer(const Plan &given) : plan(given), B(given.events), L(given.layers) {
    at = memory.template many<Population<S>>(L + 1);
    asked = memory.template many<Population<S>>(L + 1);
    between = memory.template many<Synapses<S>>(L);
    waiting = memory.template many<Waiting<S>>(L);
    events = memory.take(3 * B);
    if (memory.full) return;
    for (i64 l = 0; l <= L; ++l) {
      Population<S> &p = at[l];
      p.size = l < L ? plan.projection[l].inputs : plan.projection[L - 1].outputs;
      p.bias = l < L ? plan.projection[l].bias : 0;
      p.activation = l ? plan.projection[l - 1].activation : plan.input_activation;
      p.ld = padded<S>(p.size + p.bias);
      S **const buffers[] = {&p.rate, &p.drive, &p.feedback, &p.error, &p.gain};
      for (S **buffer : buffers) *buffer = memory.take(B * p.ld);
      if (memory.full) return;
      for (i64 b = 0; p.bias && b < B; ++b) p.rate[b * p.ld + p.size] = 1;
      asked[l] = p;
      if (!plan.asked) continue;
      asked[l].rate = memory.take(TOGETHER * p.ld), asked[l].drive = memory.take(TOGETHER * p.ld);
      for (i64 b = 0; p.bias && b < TOGETHER && !memory.full; ++b) asked[l].rate[b * p.ld + p.size] = 1;
    }
    i64 sides = 0, monomials = 0, weights = 0, rows = 0;
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      Synapses<S> &s = between[l];
      const i64 ld = at[l].ld, size = padded<S>(p.outputs) * ld, back = padded<S>(feedback_rows(l)) * ld;
      s.weight = memory.take(size);
      s.velocity = p.rule.velocity ? memory.take(size) : nullptr;
      s.feedback = p.feedback ? memory.take(back) : nullptr;
      s.feedback_velocity = p.feedback_rule.velocity ? memory.take(back) : nullptr;
      s.signs = p.crossing == SIGNS || p.crossing == SIGNS_OF_OWN ? memory.take(size) : nullptr;
      s.reconstruction = memory.take(B * ld);
      Waiting<S> &changes = waiting[l];
      if ((changes.used = waits(l))) {
        changes.W = s.weight, changes.I = p.outputs, changes.ld = ld, changes.tall = padded<S>(p.outputs);
        changes.rows = memory.take(Waiting<S>::MOST * changes.tall);
        changes.columns = memory.take(Waiting<S>::MOST * ld), changes.keep = memory.take(changes.tall + lanes<S>);
        changes.ahead = memory.take(changes.tall + lanes<S>);
      }
      const Rule *const rules[] = {&p.rule, &p.feedback_rule};
      for (const Rule *rule : rules) {
        i64 here = 0, count = 0;
        for (i64 g = 0; g < rule->groups; ++g) {
          here += (rule->group[g].rows + rule->group[g].columns) * B * 4 * (ld + at[l + 1].ld);
          count += rule->group[g].rows + rule->group[g].columns;
        }
        sides = here > sides ? here : sides, monomials = count > monomials ? count : monomials;
      }
      weights = size > weights ? size : weights, weights = back > weights ? back : weights;
    }
    for (i64 l = 0; l <= L; ++l) rows = at[l].ld > rows ? at[l].ld : rows;
    scratch.sides = memory.take(sides), scratch.group = memory.take(weights), scratch.extra = memory.take(weights);
    scratch.keep = memory.take(rows);
    const S ***const lists[] = {&scratch.a, &scratch.b, &scratch.rows, &scratch.columns};
    for (const S ***pointers : lists)
      *pointers = memory.template many<const S *>(monomials + 1);
    shown([&](S *&, i64 size) { length += size; });
    if (plan.keeps_weights) moving([&](S *&, i64 size) { length += size; });
  }

  // Whether changes of the weights may wait: of large ones that are on no tape and do not change themselves, where units
  // need not wait for each other.
  bool waits(i64 l) const {
    const Rule &rule = plan.projection[l].rule;
    const i64 size = padded<S>(plan.projection[l].outputs) * at[l].ld * i64(sizeof(S));
    bool can = size > NEAR && B == 1 && l + 1 < L && rule.plastic && !rule.velocity && !plan.keeps_weights;
    for (i64 g = 0; g < rule.groups; ++g) can = can && (rule.group[g].power == 0 || of_rows(rule.group[g]));
    return can;
  }

  // What a step computes that the way back reads, buffer by buffer.
  template <class Each> void shown(Each each) {
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      each(at[l + 1].rate, B * at[l + 1].ld);
      if (p.rule.reads[MATCH]) each(at[l + 1].drive, B * at[l + 1].ld);
      if (p.error_below) each(at[l].feedback, B * at[l].ld);
      if (reconstructs(p.rule)) each(between[l].reconstruction, B * at[l].ld);
    }
  }
  // What a step changes.
  template <class Each> void moving(Each each) {
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      Synapses<S> &s = between[l];
      const i64 size = padded<S>(p.outputs) * at[l].ld, back = padded<S>(feedback_rows(l)) * at[l].ld;
      if (p.rule.plastic) each(s.weight, size);
      if (s.velocity) each(s.velocity, size);
      if (p.feedback_rule.plastic) each(s.feedback, back);
      if (s.feedback_velocity) each(s.feedback_velocity, back);
    }
  }
  S *taped(i64 r) const { return plan.tape ? static_cast<S *>(plan.tape) + r * plan.steps * length : nullptr; }
  // Let a step compute into the tape, and leave the weights there as they are before it.
  void record(S *slot) {
    shown([&](S *&buffer, i64 size) { buffer = slot, slot += size; });
    if (plan.keeps_weights)
      moving([&](S *&buffer, i64 size) { std::memcpy(slot, buffer, size * sizeof(S)), slot += size; });
  }

  i64 feedback_rows(i64 l) const { return plan.projection[l].crossing == DIRECT ? at[L].size : at[l + 1].size; }

  // Rows filled up with zeros, whatever a run before left there.
  static void in(S *to, const void *from, i64 run, i64 rows, i64 columns, i64 ld, bool turned) {
    if (!to) return;
    const S *values = static_cast<const S *>(from) + run * rows * columns;
    for (i64 i = 0; i < rows; ++i) {
      if (!turned) std::memcpy(to + i * ld, values + i * columns, columns * sizeof(S));
      for (i64 j = columns; j < ld; ++j) to[i * ld + j] = 0;
    }
    if (!turned) return;
    const i64 squares = rows / lanes<S> * lanes<S>;
    for (i64 first = 0; first < columns; first += lanes<S>) {
      const i64 last = first + lanes<S> < columns ? first + lanes<S> : columns;
      i64 i = 0;
      for (; last - first == lanes<S> && i < squares; i += lanes<S>)
        turn_square(values + first * rows + i, rows, to + i * ld + first, ld);
      for (; i < rows; ++i)
        for (i64 j = first; j < last; ++j) to[i * ld + j] = values[j * rows + i];
    }
  }
  static void out(const S *from, void *to, i64 run, i64 rows, i64 columns, i64 ld, bool turned) {
    if (!from || !to) return;
    S *values = static_cast<S *>(to) + run * rows * columns;
    for (i64 i = 0; i < rows; ++i)
      for (i64 j = 0; j < columns; ++j) values[turned ? j * rows + i : i * columns + j] = from[i * ld + j];
  }

  void run(i64 r) {
    load_run(r);
    tape = taped(r);
    steps(r);
    if (plan.asked) answer(r, [](i64, i64) {});
    if (!plan.forgets) store_run(r);
  }

  void steps(i64 r) {
    for (i64 t = 0; t < plan.steps; ++t) {
      if (tape) record(tape + t * length);
      show(r, t);
      forward(at, B, true);
      if (plan.y) judge(r, t);
      for (i64 l = L - 1; l >= 0; --l) {
        if (plan.projection[l].error_below) send_down(l);
        learn(l, r, t);
      }
    }
    for (i64 l = 0; l < L; ++l) waiting[l].make();
  }

  void load_run(i64 r) {
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      Synapses<S> &s = between[l];
      const i64 J = p.inputs + p.bias, ld = at[l].ld;
      in(s.weight, p.weight, r, p.outputs, J, ld, false);
      in(s.velocity, p.rule.velocity, r, p.outputs, J, ld, false);
      in(s.feedback, p.feedback, r, feedback_rows(l), p.inputs, ld, true);
      in(s.feedback_velocity, p.feedback_rule.velocity, r, feedback_rows(l), p.inputs, ld, true);
    }
  }

  void store_run(i64 r) {
    for (i64 l = 0; l < L; ++l) {
      const Projection &p = plan.projection[l];
      Synapses<S> &s = between[l];
      const i64 J = p.inputs + p.bias, ld = at[l].ld;
      if (p.rule.plastic) out(s.weight, p.weight, r, p.outputs, J, ld, false);
      out(s.velocity, p.rule.velocity, r, p.outputs, J, ld, false);
      if (p.feedback_rule.plastic) out(s.feedback, p.feedback, r, feedback_rows(l), p.inputs, ld, true);
      out(s.feedback_velocity, p.feedback_rule.velocity, r, feedback_rows(l), p.inputs, ld, true);
    }
  }

  void show(i64 r, i64 t) { shown_rows(at[0], plan.x, plan.x_rows + (r * plan.steps + t) * B, B); }
  static void shown_rows(const Population<S> &input, const void *x, const i64 *rows, i64 count) {
    for (i64 b = 0; b < count; ++b)
      std::memcpy(input.rate + b * input.ld, static_cast<const S *>(x) + rows[b] * input.size, input.size * sizeof(S));
  }

  // Through all populations of `chain`, `count` events; `learning`: of a step, whose weights may have changes to come.
  void forward(Population<S> *chain, i64 count, bool learning = false) {
    for (i64 l = 0; l < L; ++l) {
      const Population<S> &source = chain[l];
      Population<S> &p = chain[l + 1];
      if (learning && waiting[l].used) {
        waiting[l].through(source.rate, p.activation, S(plan.beta), p.drive, p.rate,
                           reconstructs(plan.projection[l].rule) ? between[l].reconstruction : nullptr);
        fill(p, p.rate, S(p.bias), count);
        continue;
      }
      driven<S>(count, p.size, source.ld, source.rate, source.ld, between[l].weight, source.ld, p.drive, p.ld,
                scratch.group);
      if (l == L - 1 && plan.output == SOFTMAX_OUTPUT) {
        i64 b = 0;
        for (; b + 4 <= count; b += 4) softmax<S, 4>(p.drive + b * p.ld, p.rate + b * p.ld, p.size, p.ld);
        for (; b < count; ++b) softmax<S, 1>(p.drive + b * p.ld, p.rate + b * p.ld, p.size, p.ld);
      } else {
        Units<S>{count * p.ld, l == L - 1 ? S(1) : S(plan.beta), false, p.drive, nullptr, p.rate, nullptr, nullptr}.rates(
            p.activation);  // an output has no beta
      }
      fill(p, p.rate, S(p.bias), count);
    }
  }

  // Held-out questions, a class each: how likely the right one is by the softmax of the drives, and whether it leads.
  // `then` sees some at a time, the first of them and their number, while `asked` holds what they made of the network.
  template <class Then> void answer(i64 r, Then then) {
    const Population<S> &output = asked[L];
    for (i64 first = 0; first < plan.asked; first += TOGETHER) {
      const i64 count = plan.asked - first < TOGETHER ? plan.asked - first : TOGETHER, at_run = r * plan.asked + first;
      shown_rows(asked[0], plan.asked_x, plan.asked_rows + at_run, count);
      forward(asked, count);
      for (i64 b = 0; b < count; ++b) {
        const S *drive = output.drive + b * output.ld;
        i64 leading = 0;
        for (i64 i = 1; i < output.size; ++i)
          if (drive[i] > drive[leading]) leading = i;
        S share = output.rate[b * output.ld + leading];  // of the leading one, by the softmax
        if (plan.output != SOFTMAX_OUTPUT) {
          S total = 0;
          for (i64 i = 0; i < output.size; ++i) total += std::exp(drive[i] - drive[leading]);
          share = 1 / total;
        }
        const i64 right = plan.answers[at_run + b];
        static_cast<S *>(plan.likelihood)[at_run + b] = drive[right] - drive[leading] + std::log(share);
        static_cast<S *>(plan.right)[at_run + b] = leading == right && std::isfinite(share) && std::isfinite(drive[leading]);
      }
      then(first, count);
    }
  }

  // What lies beyond the units: the one that is always on, and zeros.
  void fill(const Population<S> &p, S *values, S always) const { fill(p, values, always, B); }
  void fill(const Population<S> &p, S *values, S always, i64 count) const {
    if (p.size == p.ld) return;
    for (i64 b = 0; b < count; ++b) {
      values[b * p.ld + p.size] = always;
      for (i64 i = p.size + 1; i < p.ld; ++i) values[b * p.ld + i] = 0;
    }
  }

  void judge(i64 r, i64 t) {
    const i64 *rows = plan.y_rows + (r * plan.steps + t) * B;
    const Population<S> &p = at[L];
    for (i64 b = 0; b < B; ++b) {
      const S *target = static_cast<const S *>(plan.y) + rows[b] * p.size;
      for (i64 i = 0; i < p.size; ++i) {
        const i64 n = b * p.ld + i;
        p.error[n] = p.feedback[n] = target[i] - p.rate[n];
        p.gain[n] = 1;
      }
    }
  }

  // What errors cross projection l by.
  const S *crossed(i64 l) {
    const Projection &p = plan.projection[l];
    Synapses<S> &s = between[l];
    if (!s.signs) return p.crossing == TRANSPOSED ? s.weight : s.feedback;
    waiting[l].make();
    for (i64 n = 0; n < p.outputs * at[l].ld; ++n) {
      const S w = s.weight[n], size = p.crossing == SIGNS ? S(p.size) : s.feedback[n] < 0 ? -s.feedback[n] : s.feedback[n];
      s.signs[n] = w > 0 ? size : w < 0 ? -size : w;
    }
    return s.signs;
  }

  // The error at the source of projection l.
  void send_down(i64 l) {
    const Projection &p = plan.projection[l];
    Population<S> &source = at[l];
    const Population<S> &teacher = p.crossing == DIRECT ? at[L] : at[l + 1];
    if (p.crossing == TRANSPOSED && waiting[l].used)
      waiting[l].back(teacher.error, source.feedback);
    else
      multiplied<S>(B, source.ld, teacher.size, teacher.error, teacher.ld, crossed(l), source.ld, source.feedback,
                    source.ld);
    Units<S>{B * source.ld, S(plan.beta), l == 0, nullptr, source.feedback, source.rate, source.error, nullptr}.errors(
        source.activation);
    fill(source, source.error, 0);
  }

  // One number per event, at a projection with a forward rule; needs the reconstruction where it reads `agreement`.
  void sum_events(i64 l) {
    const Rule &rule = plan.projection[l].rule;
    const Population<S> &source = at[l], &target = at[l + 1];
    S *total = events, *agreement = events + B, *match = events + 2 * B;
    for (i64 b = 0; b < B; ++b) {
      total[b] = agreement[b] = match[b] = 0;
      const i64 i = b * target.ld, j = b * source.ld;
      if (rule.reads[TOTAL_POST])
        for (i64 n = 0; n < target.size; ++n) total[b] += target.rate[i + n];
      if (rule.reads[MATCH])
        for (i64 n = 0; n < target.size; ++n) match[b] += target.error[i + n] * target.drive[i + n];
      if (rule.reads[AGREEMENT])
        for (i64 n = 0; n < source.size; ++n) agreement[b] += source.error[j + n] * between[l].reconstruction[j + n];
    }
  }
  End<S> post_end(i64 l) const {
    const Population<S> &p = at[l + 1];
    return {p.size, p.ld, {p.rate, p.error, p.feedback, p.gain, events, events + B, events + 2 * B, nullptr, nullptr,
                           nullptr}};
  }
  End<S> pre_end(i64 l) const {
    const Population<S> &p = at[l];
    return {p.size + p.bias, p.ld, {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, p.rate, p.error,
                                    between[l].reconstruction}};
  }

  // Seen from feedback weights, the upper error is pre, and the lower rate is both post and the error.
  void sum_feedback_events(i64 l) {
    const Population<S> &source = at[l];
    for (i64 b = 0; b < B; ++b) {
      events[b] = 0;
      for (i64 n = 0; n < source.size; ++n) events[b] += source.rate[b * source.ld + n];
    }
  }
  End<S> feedback_pre_end(i64 l) const {
    const Population<S> &p = at[l + 1];
    return {p.size, p.ld, {nullptr, nullptr, nullptr, nullptr, events, nullptr, nullptr, p.error, nullptr, nullptr}};
  }
  End<S> feedback_post_end(i64 l) const {
    const Population<S> &p = at[l];
    return {p.size, p.ld, {p.rate, p.rate, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr}};
  }

  void learn(i64 l, i64 r, i64 t) {
    const Projection &p = plan.projection[l];
    Synapses<S> &s = between[l];
    const Population<S> &source = at[l], &target = at[l + 1];
    const Rule &rule = p.rule;
    if (rule.plastic && rule.schedule[t] != 0) {
      if (reconstructs(rule) && !waiting[l].used)
        multiplied<S>(B, source.ld, target.size, target.rate, target.ld, s.weight, source.ld, s.reconstruction,
                      source.ld);
      if (rule.reads[GAIN] && l + 1 < L)
        Units<S>{B * target.ld, S(plan.beta), false, nullptr, nullptr, target.rate, nullptr, target.gain}.errors(
            target.activation);
      sum_events(l);
      const Change change = changed<S>(rule, r, t, B, s.weight, target.size, post_end(l), pre_end(l), scratch);
      if (waiting[l].used && change.stacked <= Waiting<S>::MOST)
        waiting[l].hold(change, scratch);
      else
        change_weights<S>(rule, r, t, B, change, s.weight, s.velocity, target.size, target.ld, source.ld, scratch);
    }
    if (p.feedback_rule.plastic && p.feedback_rule.schedule[t] != 0) {
      sum_feedback_events(l);
      const Change change = changed<S>(p.feedback_rule, r, t, B, s.feedback, target.size, feedback_pre_end(l),
                                       feedback_post_end(l), scratch);
      change_weights<S>(p.feedback_rule, r, t, B, change, s.feedback, s.feedback_velocity, target.size, target.ld,
                        source.ld, scratch);
    }
  }
};

}  // namespace VARIANT
