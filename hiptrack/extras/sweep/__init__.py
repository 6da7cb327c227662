"""Many runs: a grid of them planned and trained, and their results set side by side."""
