"""The room of the fused engine: one run at a time through all its steps, its weights in cache, in compiled code."""
