"""The kernel of the fused engine on a machine that has none: built at its first use, or done without."""

from __future__ import annotations

import pytest
import torch
from building import fitting_learner, start_row, train
from test_fused import FUSED, THREE

from metarule.credit.feedback_alignment import FeedbackAlignment
from metarule.fused import library
from metarule.inner import Fastest, Fused


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without a kernel and without a compiler; the folder that kernels would be built into."""
    monkeypatch.setattr(library, "BUILT", tmp_path / "package")
    monkeypatch.setenv("METARULE_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.found.cache_clear()
    yield tmp_path
    library.found.cache_clear()


def test_without_a_compiler_auto_is_eager_and_fused_says_why(bare):
    learner = fitting_learner(FeedbackAlignment(), rule=THREE)
    assert "no C++ compiler was found" in str(Fused().can(learner))
    found = train(learner, start_row(learner), 3, engine=Fastest(dtype=torch.float64))
    assert found.engine == "reference"
    assert torch.equal(found.loss, train(learner, start_row(learner), 3).loss)
    found = train(learner, start_row(learner), 3, engine=Fastest(dtype=torch.float64), wants=frozenset({"grad"}))
    assert found.engine == "adjoint"
    with pytest.raises(ValueError, match=r"no C\+\+ compiler was found"):
        train(learner, start_row(learner), 3, engine=FUSED)


def test_a_worker_without_a_kernel_computes_by_the_reference_and_says_so(bare, monkeypatch):
    monkeypatch.setattr(Fused, "can", lambda *asked: None)  # as the machine that shared out the work found
    learner = fitting_learner(FeedbackAlignment(), rule=THREE)
    assert train(learner, start_row(learner), 3, engine=FUSED).engine == "reference"
    assert train(learner, start_row(learner), 3, engine=FUSED, wants=frozenset({"grad"})).engine == "adjoint"


@pytest.mark.skipif(library.compiler() is None, reason="no compiler")
def test_a_kernel_is_built_at_its_first_use_and_kept(bare, monkeypatch):
    monkeypatch.delenv("CXX")
    monkeypatch.delenv("METARULE_INSTRUCTIONS", raising=False)
    monkeypatch.setattr(library, "X86", ())  # a machine without AVX; and quicker
    monkeypatch.setattr(library, "variants", lambda: (library.PORTABLE,))
    library.name.cache_clear()
    try:
        learner = fitting_learner(FeedbackAlignment(), rule=THREE)
        found = train(learner, start_row(learner), 3, engine=FUSED)
        assert found.engine == "fused (portable)"
        (kept,) = (bare / "metarule").glob("*")
        built = kept.stat().st_mtime_ns
        library.found.cache_clear()
        assert library.library().path == kept
        assert kept.stat().st_mtime_ns == built
        torch.testing.assert_close(found.loss, train(learner, start_row(learner), 3).loss, rtol=1e-10, atol=0)
    finally:
        library.name.cache_clear()


@pytest.mark.skipif(library.compiler() is None, reason="no compiler")
def test_sources_that_do_not_compile_are_a_kernel_that_is_missing(bare, monkeypatch):
    monkeypatch.delenv("CXX")
    monkeypatch.delenv("METARULE_INSTRUCTIONS", raising=False)
    monkeypatch.setattr(library, "FLAGS", ("-std=no-such-standard",))
    with pytest.raises(library.Missing, match=r"does not compile the kernel: .*error.*no-such-standard"):
        library.library()
    assert not list((bare / "metarule").glob("*"))
