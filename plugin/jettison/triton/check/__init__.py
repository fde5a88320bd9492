"""Check: everything in a repository that would make Triton refuse, hang or lie."""
