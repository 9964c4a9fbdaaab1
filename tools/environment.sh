# Sourced by ./entrepot and ./check: makes sure that .venv holds what uv.lock says.
#
#   prepare GROUP    GROUP: "run", what the product needs; "dev", what its tests need as well
#
# Takes uv if there is one, else brings it along with pip; takes a Python >= 3.12 of this machine (ENTREPOT_PYTHON
# names one, else PATH and pyenv are searched), else lets uv fetch one.

say() { printf '%s\n' "$*" >&2; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${ENTREPOT_PYTHON:+"$ENTREPOT_PYTHON"} python3 python3.13 python3.12 python3.14 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

find_uv() {
    if uv --version >/dev/null 2>&1; then
        command -v uv
        return
    fi
    [ -x "$here/.tools/bin/uv" ] || bring_uv
    echo "$here/.tools/bin/uv"
}

bring_uv() {
    with=${python:-python3}
    if ! "$with" -m pip --version >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "installing pip (package python3-pip)"
            { apt-get update -q && apt-get install -y -q --no-install-recommends python3-pip; } >&2
            with=python3
        else
            say "neither uv nor pip is here: install one of them (Debian, Ubuntu: apt install python3-pip) and try again"
            exit 1
        fi
    fi
    say "bringing uv into .tools"
    "$with" -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$here/.tools" uv >&2
}

prepare() {
    stamp="$1 $(cksum <"$here/uv.lock") $(cksum <"$here/pyproject.toml")"
    made=$(cat "$here/.venv/.made" 2>/dev/null || true)
    case $made in "$stamp" | "dev ${stamp#* }") return ;; esac
    python=$(find_python)
    uv=$(find_uv)
    say "making the environment in .venv${python:+ with $python}"
    set -- --project "$here" --frozen --quiet --compile-bytecode --python "${python:->=3.12}"
    case $stamp in run*) set -- "$@" --no-dev ;; esac
    # The machine's own trust store, as pip uses: networks with a CA of their own are where this runs. Two names, old uv and new.
    UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true UV_PROJECT_ENVIRONMENT="$here/.venv" "$uv" sync "$@"
    echo "$stamp" >"$here/.venv/.made"
}
