"""The loop, its step, stages and losses, and what lets a run stop and go on."""
