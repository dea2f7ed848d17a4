"""Which operators of an ONNX graph float16 spoils: the ranking before any conversion, and the search on the device."""
