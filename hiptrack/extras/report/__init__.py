"""One self-contained page about one evaluation, or several side by side."""
