# shellcheck shell=bash
# Root file systems of Debian that are not booted: how they are made, and commands that run in them.
# Sourced by provision/dev/matrix, provision/package/check-deb and provision/cluster/lxc.bash.


# Prints the package source of this machine, or MIRROR. Other suites are at the same URL.
debian_mirror() {
    # shellcheck disable=SC2016  # these are apt's names
    printf '%s\n' "${MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' \
        | awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')}"
}


# Prints the source of security updates, if this machine has one.
debian_security() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' \
        | awk '$2 == "Debian-Security" { print $1; exit }'
}


# Prints the name of the suite of a release: 12, 13, or such a name.
suite_of() {
    case $1 in
        12) echo bookworm ;;
        13) echo trixie ;;
        *)  echo "$1" ;;
    esac
}


# debian_root SUITE ROOT LOG PACKAGES [ARGUMENT...]: makes a minimal root file system with these packages and the package
# sources of this machine. Arguments are those of debootstrap.
debian_root() {
    local suite=$1 root=$2 log=$3 packages=$4 mirror security
    shift 4

    mirror=$(debian_mirror)
    security=$(debian_security)
    [[ -n $mirror ]] || die "this machine has no Debian package source: set MIRROR=<url>"

    rm -rf --one-file-system "$root"
    unshare --mount debootstrap --variant=minbase --include="$packages" "$@" "$suite" "$root" "$mirror" > "$log" 2>&1 \
        || { tail -n 5 "$log" >&2; die "debootstrap failed, see $log"; }

    {
        if [[ $suite == sid ]]; then
            echo "deb [check-valid-until=no] $mirror $suite main"    # the lists of a mirror that is late have expired
        else
            echo "deb $mirror $suite main"
            echo "deb $mirror $suite-updates main"
            [[ -z $security ]] || echo "deb $security $suite-security main"
        fi
    } > "$root/etc/apt/sources.list"
    echo force-unsafe-io > "$root/etc/dpkg/dpkg.cfg.d/unsafe-io"    # it can be made again: no file is synced
}


# inside ROOT COMMAND...: runs COMMAND in a root file system that is not booted. Mounts and processes end with it.
inside() {
    local root=$1
    shift

    # shellcheck disable=SC2016  # for the shell inside
    unshare --mount --pid --fork --kill-child bash -ec '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" "$@"' inside "$root" "$@"
}


# clean_inside ROOT [VARIABLE=VALUE...] COMMAND...: the same, with an environment as of root's login and these variables.
clean_inside() {
    inside "$1" env -i HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${@:2}"
}
