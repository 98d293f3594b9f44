// What Python asks for, as plain C structures; layout.py mirrors them field by field.
#pragma once
#include <cstdint>

typedef std::int64_t i64;

enum Activation : i64 { LINEAR, RELU, SIGMOID, SOFTPLUS, TANH };
enum Output : i64 { SOFTMAX_OUTPUT, SIGMOID_OUTPUT, LINEAR_OUTPUT };

// How an error crosses a forward projection on its way down.
enum Crossing : i64 { NOTHING, TRANSPOSED, OWN, DIRECT, SIGNS, SIGNS_OF_OWN };

// Factors of monomials. The first four live at units of the post side, the next three are one number per event.
enum Factor : i64 { POST, ERROR, FEEDBACK, GAIN, TOTAL_POST, AGREEMENT, MATCH, PRE, PRE_ERROR, RECONSTRUCTION, FACTORS };

// sum over (row, column) monomials of coefficient * mean over events of row column^T, times weight^power.
struct Group {
  i64 power;
  i64 rows, columns;
  const std::int8_t *row, *column;  // powers of every factor, FACTORS numbers for each monomial
  const std::int8_t *row_is, *column_is;  // the factor that a monomial is nothing more than, or -1
  const std::int8_t *used;                // rows columns: whether the pair is in any term
  const void *coefficients;               // R rows columns
  double *coefficient_gradient;             // the same, added to on the way back
};

struct Rule {
  i64 plastic;
  i64 groups;
  const Group *group;
  i64 reads[FACTORS];      // whether any monomial has this factor
  const void *rate;        // R
  const double *schedule;  // T: multiplies the rate; at 0 nothing is stepped
  double decay, momentum;
  i64 nesterov;
  void *velocity;  // as the weights, or null
  double *rate_gradient;   // R, added to on the way back
  void *velocity_gradient;  // as the velocity
  double *missed;  // R 2, of a round trip: squared distance of rebuilt weights from the first ones, squared norm of these
};

// Whether a rule reads what the weights make of the post side.
inline bool reconstructs(const Rule &rule) { return rule.reads[RECONSTRUCTION] || rule.reads[AGREEMENT]; }

// From one population of the chain to the next.
struct Projection {
  i64 inputs, outputs, bias;
  i64 activation;  // of the target; the output's own for the last one
  i64 crossing;
  double size;       // of all feedback weights, where only signs cross
  i64 error_below;   // whether anybody needs the error at the source
  void *weight;      // R outputs (inputs + bias)
  void *feedback;    // R inputs (outputs, or the network's where DIRECT), or null
  void *weight_gradient, *feedback_gradient;  // on the way back: of the loss, in both after the steps and then before them
  Rule rule, feedback_rule;
};

struct Plan {
  i64 layers;
  const Projection *projection;
  i64 input_activation, output;
  double beta;
  i64 runs, steps, events;
  const void *x, *y;                // tables, rows of the input's and output's size; y null where nobody teaches
  const i64 *x_rows, *y_rows;       // R T B: which rows each event shows
  void *tape;                       // R T, each as long as `metarule_tape` says; null where nobody goes back
  i64 keeps_weights;                // whether the tape holds the weights too, which else are rebuilt
  i64 asked;                        // Q: how many events each run is asked after its steps
  const void *asked_x;              // the table that they are rows of
  const i64 *asked_rows, *answers;  // R Q: which rows, and the output unit that is right
  void *likelihood, *right;         // R Q: log-likelihood of that unit, and 1 where it has the largest drive, else 0
  i64 forgets;                      // whether nobody needs the weights afterwards
  double share;                     // of the mean negative log-likelihood in what a round trip differentiates
};
