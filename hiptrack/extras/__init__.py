"""What the framework does beside its mission; nothing outside this folder and hiptrack/cli imports it."""
