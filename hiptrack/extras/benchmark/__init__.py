"""How fast this machine tracks, trains, loads and evaluates, next to what it could do: hiptrack benchmark."""
