# shellcheck shell=bash
# Functions of the scripts below this directory: the repository's path, the version of PostgreSQL, other users, messages.
# Sourced, never run. Sourcing it changes nothing.

set -euo pipefail
umask 022
PATH=$PATH:/usr/sbin:/sbin

# shellcheck disable=SC2034  # for the scripts that source this
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)


say() { printf 'ngx_pgq: %s\n' "$*"; }


die() {
    printf 'ngx_pgq: %s\n' "$*" >&2
    exit 1
}


# Prints the names of this repository's files, each with a zero byte: those that git lists, without git all but build results
# and what Vagrant's machines leave.
sources() {
    if [[ -e $top/.git ]]; then
        git -C "$top" ls-files -z
    else
        (cd "$top" && find . -regextype egrep -regex '\./(build|run|made|repository|\.vagrant)' -prune -o -type f ! -name '*.o' ! -name '*.so' -print0)
    fi
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


# as USER COMMAND...: runs COMMAND as USER; only root can become another user.
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


# Whether the users of PostgreSQL and of nginx's workers can enter directory $1.
passable() {
    local dir=$1 user

    for user in "$(postgres_user)" "$(worker_user)"; do
        (cd / && as "$user" test -x "$dir") || return 1
    done
}


# place DIR [LENGTH]: makes DIR. If those users cannot reach it (a clone below a home that only its owner may enter), or
# its path is longer than LENGTH (sockets), it makes a directory elsewhere and a symbolic link to it. Prints the directory
# to use.
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


# own DIR: fails unless DIR is ours. Root writes and changes owners only where no other user can replace the path.
own() { [[ -O $1 ]] || die "$1 belongs to another user: make clean first"; }


# give PATH OWNER MODE: sets the owner (USER or USER:GROUP) and mode of PATH, which has to be in a directory of ours.
give() {
    own "$(dirname "$1")"
    [[ -e $1 && ! -L $1 ]] || die "$1 is missing or a link"
    [[ $EUID -ne 0 ]] || chown -h "$2" "$1"
    chmod "$3" "$1"
}


# remove DIR: removes a directory that place() made. A link is followed only to a directory with a name as mktemp makes it
# that belongs to the owner of the link: root removes nothing that another user's link points to.
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


# wait_until SECONDS COMMAND...: repeats COMMAND until it succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift

    until "$@"; do
        [[ $SECONDS -lt $deadline ]] || return 1
        sleep 0.05
    done
}


# Whether port $1 of this machine is in use.
port_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}


# Prints a free port below the kernel's range for outgoing connections.
port_free() {
    local port

    while :; do
        port=$((20000 + RANDOM % 12000))
        port_taken "$port" || break
    done

    printf '%s\n' "$port"
}


# Prints the links by which units and scripts start when the system in root file system $1 ('': this one) boots.
boot_links() {
    find "$1/etc/systemd/system" "$1"/etc/rc[2-5].d -type l \
        \( -path '*.wants/*' -o -path '*.requires/*' -o -name 'S*' \) 2> /dev/null | sort
}


# Prints the pid in file $1 if the process is running and its directory or its command line contains $2: the kernel may
# have reused the pid.
pid_of() {
    local pid

    [[ -f $1 && -r $1 ]] && read -r pid < "$1" && [[ $pid =~ ^[0-9]+$ && -d /proc/$pid ]] || return 1

    if [[ $(readlink "/proc/$pid/cwd") == "$2" ]] || tr '\0' ' ' < "/proc/$pid/cmdline" | grep -qF -- "$2"; then
        printf '%s\n' "$pid"
    else
        return 1
    fi
}


# Whether process $1 has ended; it may still be a zombie.
gone() { [[ ! -d /proc/$1 ]] || grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null; }
