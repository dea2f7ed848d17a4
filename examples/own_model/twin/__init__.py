"""A small model of one's own: two inputs of different dtype, two outputs, a metric that is lower-is-better.

docs/own-model.md is the contract. The checkpoint is a .npz of two matrices, the dataset an .npz of both inputs.
"""
