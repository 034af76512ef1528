"""What is true: types, names, units and definitions. Standard library only."""
