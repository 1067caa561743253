# shellcheck shell=bash
# Sourced: makes .venv if it is missing, installs what requirements.txt pins, and puts it on PATH.
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
if ! cmp -s requirements.txt .venv/installed.txt; then
    echo "installing requirements into .venv (some minutes the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/installed.txt
fi
export PATH="$PWD/.venv/bin:$PATH"
