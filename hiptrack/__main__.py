"""`python -m hiptrack COMMAND ...` is `hiptrack COMMAND ...`; a launcher starts it by this name."""

from hiptrack.cli import console

if __name__ == "__main__":
    console()
