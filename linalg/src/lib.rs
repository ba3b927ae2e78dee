//! Block points, low-rank factors, named random streams and comparison for peftml.
