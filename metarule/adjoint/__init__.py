"""The hand-written adjoint: a gradient that walks back through the steps and rebuilds the weights on its way."""
