"""The second job, inspecting: what a run found, numbers first, then pictures and text."""
