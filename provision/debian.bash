# shellcheck shell=bash
# Root file systems of Debian that are not booted: where their packages come from, and how a command runs in one.
# Sourced by provision/dev/bare and provision/cluster/lxc.bash.


# The package source that this machine is configured with, or MIRROR. Other suites are at the same place.
debian_mirror() {
    # shellcheck disable=SC2016  # these are apt's names
    printf '%s\n' "${MIRROR:-$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' \
        | awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')}"
}


# The source of security updates, where this machine has one.
debian_security() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' \
        | awk '$2 == "Debian-Security" { print $1; exit }'
}


# The lines of sources.list for a suite: debian_sources SUITE MIRROR SECURITY
debian_sources() {
    echo "deb $2 $1 main"
    echo "deb $2 $1-updates main"
    [[ -z $3 ]] || echo "deb $3 $1-security main"
}


# inside ROOT COMMAND...: runs COMMAND in a root that is not booted. Mounts and processes end with it.
inside() {
    local root=$1
    shift

    # shellcheck disable=SC2016  # those are for the shell inside
    unshare --mount --pid --fork --kill-child bash -ec '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" "$@"' inside "$root" "$@"
}
