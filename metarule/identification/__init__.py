"""The third job: which rule made a recording of learning dynamics."""
