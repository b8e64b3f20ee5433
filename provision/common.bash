# shellcheck shell=bash
# What the scripts below this directory share: where the repository is, which PostgreSQL is meant, how to become
# another user, and the few lines they say. Sourced, never run. It changes nothing by being sourced.

set -euo pipefail
umask 022
PATH=$PATH:/usr/sbin:/sbin

# shellcheck disable=SC2034  # for those who source this
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)


say() { printf 'ngx_pgq: %s\n' "$*"; }


die() {
    printf 'ngx_pgq: %s\n' "$*" >&2
    exit 1
}


# The major version of PostgreSQL: PGVERSION when set, else the newest one installed; empty when there is none.
postgres_version() {
    local dir newest=

    if [[ -n ${PGVERSION:-} ]]; then
        printf '%s\n' "$PGVERSION"
        return
    fi

    for dir in /usr/lib/postgresql/*/bin/postgres; do
        [[ -x $dir ]] || continue
        dir=${dir#/usr/lib/postgresql/}
        dir=${dir%%/*}
        [[ -z $newest || $dir -gt $newest ]] && newest=$dir
    done

    printf '%s\n' "$newest"
}


# The user PostgreSQL runs as: never root.
postgres_user() {
    if [[ $EUID -eq 0 ]]; then echo postgres; else id -un; fi
}


# The user of nginx's workers.
worker_user() {
    if [[ $EUID -eq 0 ]]; then echo www-data; else id -un; fi
}


# as USER COMMAND...: runs COMMAND as USER, which needs no password of anybody; only root can become somebody else.
as() {
    local user=$1
    shift

    if [[ $EUID -ne 0 || $user == root ]]; then
        "$@"
    else
        setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups \
            env HOME=/ USER="$user" LOGNAME="$user" "$@"
    fi
}


# Whether the users of PostgreSQL and of nginx's workers can pass through directory $1 to what lies below it.
passable() {
    local dir=$1 user

    for user in "$(postgres_user)" "$(worker_user)"; do
        (cd / && as "$user" test -x "$dir") || return 1
    done
}


# place DIR [LENGTH]: makes DIR. When those users cannot reach it (a clone below a home that only its owner may enter),
# or its path is longer than LENGTH (sockets), makes it elsewhere and leaves a symbolic link in its place. Prints the
# directory to use.
place() {
    local dir=$1 length=${2:-4096} parent away

    mkdir -p "$(dirname "$dir")"
    parent=$(cd "$(dirname "$dir")" && pwd -P)
    dir=$parent/$(basename "$dir")

    if [[ -L $dir && ! -d $dir ]]; then
        rm -f "$dir"
    fi

    if [[ ! -e $dir ]]; then
        if [[ ${#dir} -le $length ]] && passable "$parent"; then
            mkdir "$dir"
        else
            away=$(mktemp -d /var/tmp/ngx_pgq.XXXXXXXX)
            chmod 755 "$away"
            ln -s "$away" "$dir"
        fi
    fi

    (cd "$dir" && pwd -P)
}


# own DIR: ends unless DIR is ours. Root writes and changes owners only where no other user can replace the path.
own() { [[ -O $1 ]] || die "$1 belongs to another user: make clean first"; }


# give PATH OWNER MODE: PATH, which lies in a directory of ours, gets that owner, USER or USER:GROUP, and that mode.
give() {
    own "$(dirname "$1")"
    [[ -e $1 && ! -L $1 ]] || die "$1 is not what was made there"
    [[ $EUID -ne 0 ]] || chown -h "$2" "$1"
    chmod "$3" "$1"
}


# remove DIR: removes what place() made, wherever it is. A link is followed only to a directory of the form that mktemp
# makes, which belongs to the user who made the link: root removes nothing that another user's link points to.
remove() {
    local dir=$1 real

    if [[ -L $dir ]]; then
        real=$(readlink "$dir")
        if [[ $real =~ ^/var/tmp/ngx_pgq\.[A-Za-z0-9]{8}$ && -d $real && ! -L $real && $(stat -c %u "$dir") == "$(stat -c %u "$real")" ]]; then
            rm -rf "$real"
        fi
        rm -f "$dir"
    fi

    rm -rf "$dir"
}


# wait_until SECONDS COMMAND...: runs COMMAND again and again until it succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift

    until "$@"; do
        [[ $SECONDS -lt $deadline ]] || return 1
        sleep 0.05
    done
}


# Whether something listens on port $1 of this machine.
port_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}


# A port that nobody listens on, below the range that the kernel gives to outgoing connections.
port_free() {
    local port

    while :; do
        port=$((20000 + RANDOM % 12000))
        port_taken "$port" || break
    done

    printf '%s\n' "$port"
}


# The pid in file $1, when that process is alive and its directory or its command line holds $2: a pid that the
# kernel gave to somebody else meanwhile is not ours.
pid_of() {
    local pid

    [[ -f $1 && -r $1 ]] && read -r pid < "$1" && [[ $pid =~ ^[0-9]+$ && -d /proc/$pid ]] || return 1

    if [[ $(readlink "/proc/$pid/cwd") == "$2" ]] || tr '\0' ' ' < "/proc/$pid/cmdline" | grep -qF -- "$2"; then
        printf '%s\n' "$pid"
    else
        return 1
    fi
}


# Whether process $1 has ended, if its parent has taken notice of it or not.
gone() { [[ ! -d /proc/$1 ]] || grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null; }
