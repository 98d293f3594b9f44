"""Walks through the interfaces: learners unlike any that ship, written against the bases and nothing else."""
