# shellcheck shell=bash
# Source this: it makes the shell a simulated NPU host, as CANN's own set_env.sh makes it a real one.
_npu_sim="$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
export ASCEND_TOOLKIT_HOME="${_npu_sim}/cann/${NPU_SIM_CANN:-6.0.RC1}"
export ASCEND_DRIVER_PATH="${_npu_sim}/driver/${NPU_SIM_DRIVER:-22.0.2}"
if [ ! -d "${ASCEND_TOOLKIT_HOME}" ] || [ ! -d "${ASCEND_DRIVER_PATH}" ]; then
    echo "error: the simulator plays the versions in ${_npu_sim}/cann and ${_npu_sim}/driver," \
        "not NPU_SIM_CANN=${NPU_SIM_CANN:-} with NPU_SIM_DRIVER=${NPU_SIM_DRIVER:-}" >&2
    return 1
fi
export PYTHONPATH="${_npu_sim}${PYTHONPATH:+:${PYTHONPATH}}"
# The kit's environment holds numpy, onnx and onnxruntime; an image has them in its own python3.
if [ -x "${_npu_sim}/../../../.venv/bin/python3" ]; then
    PATH="$(CDPATH="" cd -- "${_npu_sim}/../../../.venv/bin" && pwd):${PATH}"
fi
export PATH="${_npu_sim}/bin:${PATH}"
unset _npu_sim
