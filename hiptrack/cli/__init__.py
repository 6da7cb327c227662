"""The commands: `hiptrack train ...` is `python tools/train.py ...`, and so on."""
