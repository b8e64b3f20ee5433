# shellcheck shell=bash
# Functions of the scripts that set up a host: fill a template, write a file, start a service. Sourced, never run. The
# scripts run as root on the host itself, from a kit (see provision/cluster/kit).

set -euo pipefail
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# shellcheck disable=SC2034  # for the scripts that source this
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# Tests of the written files set this: then files are written below it, and nothing else is done.
root=${NGX_PGQ_ROOT:-}


say() { printf 'ngx_pgq: %s\n' "$*"; }


die() {
    printf 'ngx_pgq: %s\n' "$*" >&2
    exit 1
}


# put FILE MODE OWNER < TEXT: replaces FILE atomically; a file that has this text, mode and owner is not touched.
put() {
    local file=$root$1 mode=$2 owner=$3

    mkdir -p "$(dirname "$file")"
    (umask 077; cat > "$file.new")
    [[ -n $root ]] || chown "$owner" "$file.new"
    chmod "$mode" "$file.new"

    if cmp -s "$file.new" "$file" && [[ $(stat -c %a:%U "$file") == "$(stat -c %a:%U "$file.new")" ]]; then
        rm "$file.new"
    else
        mv "$file.new" "$file"
    fi
}


# fill TEMPLATE NAME=TEXT...: prints the template with each @NAME@ replaced. A @NAME@ without a value is an error.
fill() {
    local template=$1 text pair
    shift

    [[ -s $template ]] || die "there is no $template"
    text=$(< "$template")

    for pair in "$@"; do
        text=${text//"@${pair%%=*}@"/"${pair#*=}"}
    done

    [[ ! $text =~ @[A-Z_]+@ ]] || die "$template: no value for ${BASH_REMATCH[0]}"
    printf '%s\n' "$text"
}


# each SEPARATOR FORMAT WORD...: prints FORMAT for each word, with % replaced by it, and the separator between them.
each() {
    local separator=$1 format=$2 word text=''
    shift 2

    for word in "$@"; do
        text+=${text:+"$separator"}${format//%/"$word"}
    done

    printf '%s' "$text"
}


# versions PACKAGE...: prints the installed versions.
versions() { [[ -n $root ]] || dpkg-query -W -f '${Package} ${Version}\n' "$@"; }


# service UNIT WAY FILE...: enables and starts UNIT. A running unit is reloaded or restarted (WAY) if one of the files has
# changed since it was last started, reloaded or restarted, even if the change was made by an earlier setup that failed.
# It does not wait for the unit: a member of a quorum starts only when others do.
service() {
    local unit=$1 way=$2 read=/run/ngx_pgq.$1 file
    shift 2

    [[ -z $root ]] || return 0

    systemctl is-enabled --quiet "$unit" 2>/dev/null || systemctl enable --quiet "$unit"

    if ! systemctl is-active --quiet "$unit"; then
        touch "$read"
        systemctl start --no-block "$unit"
        return
    fi

    [[ -e $read ]] || touch -d "$(systemctl show --property=ActiveEnterTimestamp --value "$unit")" "$read"

    for file in "$@"; do
        if [[ $file -nt $read ]]; then
            say "$way of $unit, for $file"
            touch "$read"
            systemctl "$way" --no-block "$unit"
            return
        fi
    done
}
