//! Task sources for peftml: synthetic problems and NumPy files.
