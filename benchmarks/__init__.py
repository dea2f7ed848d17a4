"""Ratios against the guide's way: `make bench`. One module a comparison; both sides in one run, on the same data."""
