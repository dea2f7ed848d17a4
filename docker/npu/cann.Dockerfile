# A base for `make npu-image BASE_IMAGE=stgcn-cann` with a CANN that no registry has, 6.0.RC1 for instance, made by
# `make cann-image CANN_RUN=FOLDER` of the .run files in FOLDER (toolkit; for 8.x the kernels package too).
# CANN 6.0 knows Python 3.7 to 3.9.
ARG PYTHON_IMAGE=python:3.9-slim-bookworm
FROM ${PYTHON_IMAGE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY docker/build docker/npu/cann.sh /build/
RUN --mount=type=secret,id=network --mount=type=secret,id=ca /build/online /build/tools g++
RUN --mount=type=bind,source=cann,target=/cann /build/cann.sh /cann
ENV LD_LIBRARY_PATH=/usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64/common:/usr/local/Ascend/driver/lib64/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
