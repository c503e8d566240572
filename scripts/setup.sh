#!/usr/bin/env bash
# Set up what the library needs, from nothing.
#
#   setup.sh venv FOLDER STAMP    make a Python environment that runs the examples
#   setup.sh tools FOLDER STAMP   add what tests, checks and documents need
#   setup.sh java                 print the home of a Java that Spark runs on
#
# All packages have the versions of constraints.txt.
#
# On Debian as root, a missing Python or Java is installed; otherwise the command to type is shown.
# Messages go to stderr: stdout is the answer.
set -euo pipefail

OLDEST_JAVA=17 # of PySpark 4

say() { printf '%s\n' "$*" >&2; }

# Install the first of the named groups of Debian packages that can be had.
debian_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    export DEBIAN_FRONTEND=noninteractive
    say "Installing $1 with apt-get ..."
    apt-get -qq update >/dev/null || say "apt-get update failed; trying with the lists as they are."
    local packages
    for packages in "$@"; do
        # Unquoted: a group is several words.
        # shellcheck disable=SC2086
        if apt-get -qq install --yes --no-install-recommends $packages >/dev/null; then
            hash -r
            return 0
        fi
    done
    return 1
}

good_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if command -v "$name" >/dev/null && good_python "$name"; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

need_python() {
    find_python && return 0
    debian_install "python3 python3-venv" && find_python && return 0
    say "Python 3.11 or newer is needed, and none was found. On Debian 12 or newer, type:"
    say "    sudo apt-get update && sudo apt-get install --yes python3 python3-venv"
    say "For a Python in another place: PYTHON=/path/to/python make setup"
    return 1
}

# Debian ships Python without the module that makes environments.
need_venv_module() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return 0
    local package
    package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    debian_install "$package" "python3-venv" && "$1" -c 'import ensurepip, venv' && return 0
    say "$1 cannot make environments. On Debian, type:"
    say "    sudo apt-get update && sudo apt-get install --yes $package"
    return 1
}

# One set-up at a time. Whoever waited may find the work done: then this fails.
begin() {
    exec 9<constraints.txt
    ! command -v flock >/dev/null || flock 9
    ! { [ "$1" -nt pyproject.toml ] && [ "$1" -nt constraints.txt ] && [ "$1" -nt scripts/setup.sh ]; }
}

# Modules are compiled when they are first imported: most never are.
install() {
    local python=$1
    shift
    "$python" -m pip install --quiet --no-compile --constraint constraints.txt \
        --no-build-isolation --use-pep517 "$@"
}

make_venv() {
    local venv=$1 stamp=$2 python
    begin "$stamp" || return 0
    python=$(need_python)
    need_venv_module "$python"
    say "Making $venv with $("$python" --version) (a minute) ..."
    # From nothing each time: an interrupted set-up, or an older one, leaves no trace.
    "$python" -m venv --clear "$venv"
    python=$venv/bin/python
    # It builds PySpark and the library, and has its pinned version for that.
    install "$python" setuptools
    install "$python" --editable '.[torch,examples]'
    touch "$stamp"
}

add_tools() {
    local venv=$1 stamp=$2
    begin "$stamp" || return 0
    say "Adding the tools to $venv (a minute) ..."
    # One core is enough for each of the two.
    make_archive "$venv/bin/python" &
    install "$venv/bin/python" --editable '.[torch,torchmetrics,examples,dev]'
    wait
    touch "$stamp"
}

# Spark's JVMs start in half the time with it. Everything works without it as well.
make_archive() {
    local java
    java=$(need_java) || return 0
    say "Making an archive of Spark's classes ..."
    JAVA_HOME=$java PYTHONPATH=src "$1" -m zoo.cluster.session.archive >/dev/null ||
        say "Going on without it."
}

# Print the home of a Java program when it is new enough.
java_home_of() {
    local settings version
    settings=$("$1" -XshowSettings:properties -version 2>&1) || return 1
    version=$(sed -n 's/^ *java\.specification\.version = \([0-9]*\).*/\1/p' <<<"$settings")
    [ "${version:-0}" -ge "$OLDEST_JAVA" ] || return 1
    sed -n 's/^ *java\.home = //p' <<<"$settings"
}

find_java() {
    local java
    for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        if [ -x "$java" ] && java_home_of "$java"; then
            return 0
        fi
    done
    return 1
}

need_java() {
    find_java && return 0
    debian_install openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless &&
        find_java && return 0
    say "Java $OLDEST_JAVA or newer is needed, and none was found in JAVA_HOME or PATH."
    say "On Debian, type:"
    say "    sudo apt-get update && sudo apt-get install --yes openjdk-17-jre-headless"
    say "(On Debian 13 the package is openjdk-21-jre-headless.)"
    return 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
    venv) make_venv "$2" "$3" ;;
    tools) add_tools "$2" "$3" ;;
    java) need_java ;;
    *)
        say "usage: setup.sh venv FOLDER STAMP | setup.sh tools FOLDER STAMP | setup.sh java"
        exit 2
        ;;
esac
