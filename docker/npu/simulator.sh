# shellcheck shell=bash source=/dev/null
# Stands where CANN keeps its set_env.sh.
source /opt/simulator/set_env.sh
