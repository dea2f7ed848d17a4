#!/usr/bin/env bash
# whole.sh VENV: whether VENV is an environment with pip, its Python is there and it stands where it was made: the
# programs in it hold its path.
# shellcheck disable=SC1091  # made by Python
(. "$1/bin/activate" && [ "$VIRTUAL_ENV" -ef "$1" ] && "$1/bin/python" -c 'import pip') >/dev/null 2>&1
